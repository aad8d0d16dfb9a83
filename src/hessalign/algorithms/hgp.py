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
        unbiased: U-statistics, whose expected value does not depend on the batch size; the centre is then the
            mean of the products ``H_e G_e``. Needs 4 samples of each domain in a batch.
    """

    alpha: float = hparam(1e-4, LogUniform(-3, -5), reference_name="penalty_alpha")
    beta: float = hparam(5e-3, LogUniform(-1, -3), reference_name="penalty_beta")
    unbiased: bool = False


@register("hgp", reference_name="HGP")
class HGP(AlignedHead):
    """Hessian distance ``‖H_e G_e − sg(H̄ Ḡ)‖²``, the products of Hessian and gradient."""

    hparams_class = HGPHParams
    hparams: HGPHParams

    def alignment(self) -> HessianAlignment:
        """See the class."""
        return HessianAlignment(
            "hgp",
            self.hparams.alpha,
            self.hparams.beta,
            centre="mean_product" if self.hparams.unbiased else "mean_loss",
            unbiased=self.hparams.unbiased,
        )
