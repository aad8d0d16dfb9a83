"""Alignment of the exact Hessian diagonals: Hutchinson (Hemati et al., ICCV 2023) without probes."""

from hessalign.algorithms.aligned import AlignedHead, AlignedHParams
from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import LogUniform, hparam
from hessalign.alignment import HessianAlignment


class ExactDiagonalHParams(AlignedHParams):
    """Hyper-parameters of ExactDiagonal.

    Attributes:
        alpha: Weight of the Hessian distance.
        beta: Weight of the gradient distance.
        unbiased: U-statistics, whose expected value does not depend on the batch size. Needs 2 samples of
            each domain in a batch.
    """

    alpha: float = hparam(1e-3, LogUniform(-4, 4), reference_name="penalty_alpha")
    beta: float = hparam(5e-3, LogUniform(-3, 6), reference_name="penalty_beta")
    unbiased: bool = False


@register("exact_diagonal", reference_name="ExactDiagonal")
class ExactDiagonal(AlignedHead):
    """Hessian distance ``‖D_e − sg(D̄)‖²``, exact diagonals.

    The search space is ours: from where the penalty is as good as absent, the default in it, to the upper
    end of Hutchinson's.
    """

    hparams_class = ExactDiagonalHParams
    hparams: ExactDiagonalHParams

    def alignment(self) -> HessianAlignment:
        """See the class."""
        return HessianAlignment(
            "diagonal", self.hparams.alpha, self.hparams.beta, unbiased=self.hparams.unbiased
        )
