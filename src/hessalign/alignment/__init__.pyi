from .flatness import HessianFlatness
from .penalty import (
    HessianAlignment,
    SortedDomains,
    diagonal_distances,
    expected_hutchinson_distances,
    frobenius_distances,
    gradient_distances,
    hessian_squares,
    hgp_distances,
    sampled_hutchinson_distances,
    spectral_distances,
)
from .suggestion import WeightSuggestion

__all__ = [
    "HessianAlignment",
    "HessianFlatness",
    "SortedDomains",
    "WeightSuggestion",
    "diagonal_distances",
    "expected_hutchinson_distances",
    "frobenius_distances",
    "gradient_distances",
    "hessian_squares",
    "hgp_distances",
    "sampled_hutchinson_distances",
    "spectral_distances",
]
