from .local import LocalEngine
from .ray import RayEngine

__all__ = [
    "LocalEngine",
    "RayEngine",
]
