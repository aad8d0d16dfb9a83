"""Alignment of whole head Hessians in the Frobenius norm, exact (see also CMA, UAI 2025)."""

from hessalign.algorithms.aligned import AlignedHead
from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.alignment import HessianAlignment


class ExactHessianHParams(HParams):
    """Hyper-parameters of ExactHessian.

    Attributes:
        alpha: Weight of the Hessian distance.
        beta: Weight of the gradient distance.
    """

    alpha: float = hparam(1e-3, LogUniform(4, 1), reference_name="penalty_alpha")
    beta: float = hparam(5e-3, LogUniform(6, 2), reference_name="penalty_beta")


@register("exact_hessian")
class ExactHessian(AlignedHead):
    """Hessian distance ``‖H_e − sg(H̄)‖_F²``, never formed; the search space is Hutchinson's."""

    hparams_class = ExactHessianHParams
    hparams: ExactHessianHParams

    def alignment(self) -> HessianAlignment:
        """See the class."""
        return HessianAlignment("frobenius", self.hparams.alpha, self.hparams.beta)
