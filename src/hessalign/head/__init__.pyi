from .derivatives import HeadDerivatives, hessian_inner_products, hessian_inner_products_and_diagonals
from .losses import AutogradLoss, BinaryCrossEntropy, CrossEntropy, HeadLoss, SquaredError
from .spectrum import hessian_distance, spectral_norm

__all__ = [
    "AutogradLoss",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "HeadDerivatives",
    "HeadLoss",
    "SquaredError",
    "hessian_distance",
    "hessian_inner_products",
    "hessian_inner_products_and_diagonals",
    "spectral_norm",
]
