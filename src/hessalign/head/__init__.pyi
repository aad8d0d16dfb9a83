from .derivatives import DomainDerivatives, HeadDerivatives
from .losses import AutogradLoss, BinaryCrossEntropy, CrossEntropy, HeadLoss, SquaredError
from .spectrum import hessian_distance, leading_eigenpairs, spectral_norm
from .statistics import Spread, Statistics

__all__ = [
    "AutogradLoss",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "DomainDerivatives",
    "HeadDerivatives",
    "HeadLoss",
    "Spread",
    "SquaredError",
    "Statistics",
    "hessian_distance",
    "leading_eigenpairs",
    "spectral_norm",
]
