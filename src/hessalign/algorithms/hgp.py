"""Hessian-gradient product alignment (Hemati, Zhang, Estiri and Chen, ICCV 2023)."""

from hessalign.algorithms.aligned import AlignedHead, AlignedHParams
from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import LogUniform, hparam
from hessalign.alignment import HessianAlignment


class HGPHParams(AlignedHParams):
    """Hyper-parameters of HGP.

    Attributes:
        alpha: Weight of the Hessian distance.
        beta: Weight of the gradient distance.
    """

    alpha: float = hparam(1e-4, LogUniform(-3, -5), reference_name="penalty_alpha")
    beta: float = hparam(5e-3, LogUniform(-1, -3), reference_name="penalty_beta")


@register("hgp", reference_name="HGP")
class HGP(AlignedHead):
    """Hessian distance ``‖H_e G_e − sg(H̄ Ḡ)‖²``, the products of Hessian and gradient."""

    hparams_class = HGPHParams
    hparams: HGPHParams

    def alignment(self) -> HessianAlignment:
        """See the class."""
        return HessianAlignment("hgp", self.hparams.alpha, self.hparams.beta)
