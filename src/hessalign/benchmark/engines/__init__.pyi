from .local import LocalEngine
from .ray import RayEngine
from .slurm import SlurmEngine

__all__ = [
    "LocalEngine",
    "RayEngine",
    "SlurmEngine",
]
