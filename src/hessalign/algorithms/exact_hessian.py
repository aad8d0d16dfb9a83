"""Alignment of whole head Hessians in the Frobenius norm, exact (see also CMA, UAI 2025)."""

from hessalign.algorithms.aligned import ExactAlignment
from hessalign.algorithms.base import register


@register("exact_hessian", reference_name="ExactHessian")
class ExactHessian(ExactAlignment):
    """Hessian distance ``‖H_e − sg(H̄)‖_F²``, never formed."""

    method = "frobenius"
