from .base import Engine
from .local import LocalEngine
from .ray import RayEngine

__all__ = [
    "Engine",
    "LocalEngine",
    "RayEngine",
]
