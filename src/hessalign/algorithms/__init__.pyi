from . import description
from .base import Algorithm, DomainBatch
from .domainbed import from_domainbed
from .hparams import HParams, hparam
from .registry import algorithm_names, get_algorithm, register, require_algorithm

__all__ = [
    "Algorithm",
    "DomainBatch",
    "HParams",
    "algorithm_names",
    "description",
    "from_domainbed",
    "get_algorithm",
    "hparam",
    "register",
    "require_algorithm",
]
