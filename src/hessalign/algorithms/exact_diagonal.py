"""Alignment of the exact Hessian diagonals: Hutchinson (Hemati et al., ICCV 2023) without probes."""

from hessalign.algorithms.aligned import ExactAlignment
from hessalign.algorithms.base import register


@register("exact_diagonal", reference_name="ExactDiagonal")
class ExactDiagonal(ExactAlignment):
    """Hessian distance ``‖D_e − sg(D̄)‖²``, exact diagonals."""

    method = "diagonal"
