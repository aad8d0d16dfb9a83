from .distances import (
    diagonal_distances,
    expected_hutchinson_distances,
    frobenius_distances,
    gradient_distances,
    hessian_squares,
    hgp_distances,
    sampled_hutchinson_distances,
    spectral_distances,
)
from .flatness import HessianFlatness
from .grouping import SortedDomains, sort_by_domain
from .penalty import HessianAlignment
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
    "sort_by_domain",
    "spectral_distances",
]
