"""Alignment of the exact Hessian diagonals: Hutchinson (Hemati et al., ICCV 2023) without probes."""

from hessalign.algorithms.aligned import AlignedHead
from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.alignment import HessianAlignment


class ExactDiagonalHParams(HParams):
    """Hyper-parameters of ExactDiagonal.

    Attributes:
        alpha: Weight of the Hessian distance.
        beta: Weight of the gradient distance.
    """

    alpha: float = hparam(1e-3, LogUniform(4, 1), reference_name="penalty_alpha")
    beta: float = hparam(5e-3, LogUniform(6, 2), reference_name="penalty_beta")


@register("exact_diagonal")
class ExactDiagonal(AlignedHead):
    """Hessian distance ``‖D_e − sg(D̄)‖²``, exact diagonals; the search space is Hutchinson's."""

    hparams_class = ExactDiagonalHParams
    hparams: ExactDiagonalHParams

    def alignment(self) -> HessianAlignment:
        """See the class."""
        return HessianAlignment("diagonal", self.hparams.alpha, self.hparams.beta)
