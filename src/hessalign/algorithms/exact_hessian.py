"""Alignment of whole head Hessians in the Frobenius norm, exact (see also CMA, UAI 2025)."""

from hessalign.algorithms.aligned import AlignedHead, AlignedHParams
from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import LogUniform, hparam
from hessalign.alignment import HessianAlignment


class ExactHessianHParams(AlignedHParams):
    """Hyper-parameters of ExactHessian.

    Attributes:
        alpha: Weight of the Hessian distance.
        beta: Weight of the gradient distance.
        unbiased: U-statistics, whose expected value does not depend on the batch size. Needs 2 samples of
            each domain in a batch.
    """

    alpha: float = hparam(1e-3, LogUniform(-4, 4), reference_name="penalty_alpha")
    beta: float = hparam(5e-3, LogUniform(-3, 6), reference_name="penalty_beta")
    unbiased: bool = False


@register("exact_hessian", reference_name="ExactHessian")
class ExactHessian(AlignedHead):
    """Hessian distance ``‖H_e − sg(H̄)‖_F²``, never formed.

    The search space is ours: from where the penalty is as good as absent, the default in it, to the upper
    end of Hutchinson's.
    """

    hparams_class = ExactHessianHParams
    hparams: ExactHessianHParams

    def alignment(self) -> HessianAlignment:
        """See the class."""
        return HessianAlignment(
            "frobenius", self.hparams.alpha, self.hparams.beta, unbiased=self.hparams.unbiased
        )
