"""Hessian-gradient product alignment (Hemati, Zhang, Estiri and Chen, ICCV 2023)."""

from typing import ClassVar, Literal

from typing_extensions import override

from hessalign.algorithms.aligned import AlignedHead, AlignedHParams
from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import LogUniform, hparam
from hessalign.alignment import HessianAlignment


class HGPHParams(AlignedHParams):
    """Hyper-parameters of HGP.

    Attributes:
        alpha: Weight of the Hessian distance.
        beta: Weight of the gradient distance.
        centre: What the products are compared with. ``"mean_loss"``: ``H̄ Ḡ``, as in the published code;
            ``"mean_product"``: the mean of the products ``H_e G_e``, as in the paper's text; ``"auto"``
            (default): the first, and with ``unbiased`` the second, which is the only one then.
        unbiased: U-statistics, whose expected value does not depend on the batch size. Needs 4 samples of
            each domain in a batch.
    """

    alpha: float = hparam(1e-4, LogUniform(-3, -5), reference_name="penalty_alpha")
    beta: float = hparam(5e-3, LogUniform(-1, -3), reference_name="penalty_beta")
    centre: Literal["auto", "mean_loss", "mean_product"] = "auto"
    unbiased: bool = False
    unbiased_samples: ClassVar[int] = 4


@register("hgp", reference_name="HGP")
class HGP(AlignedHead):
    """Hessian distance ``‖H_e G_e − sg(c)‖²``, products of Hessian and gradient; by default ``c = H̄ Ḡ``."""

    hparams_class = HGPHParams
    hparams: HGPHParams

    @override
    def alignment(self) -> HessianAlignment:
        return HessianAlignment(
            "hgp",
            self.hparams.alpha,
            self.hparams.beta,
            centre=None if self.hparams.centre == "auto" else self.hparams.centre,
            unbiased=self.hparams.unbiased,
        )
