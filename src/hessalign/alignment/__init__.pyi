from .diagonal import diagonal_distances
from .domains import sort_by_domain
from .flatness import HessianFlatness, hessian_squares
from .frobenius import frobenius_distances
from .gradient import gradient_distances
from .hgp import hgp_distances
from .hutchinson import expected_hutchinson_distances, sampled_hutchinson_distances
from .penalty import HessianAlignment
from .spectral import spectral_distances

__all__ = [
    "HessianAlignment",
    "HessianFlatness",
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
