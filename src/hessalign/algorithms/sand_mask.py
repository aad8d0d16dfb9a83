"""SAND-mask (Shahtalebi, Gagnon-Audet, Laleh, Faramarzi, Ahuja and Rish, 2021)."""

from typing import Literal, Self

from pydantic import model_validator
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import HParams, LogUniform, Uniform, hparam
from hessalign.algorithms.masked import MaskedGradients, agreement

SMALLEST = 1e-17


class SANDMaskHParams(HParams):
    """Hyper-parameters of SAND-mask.

    Attributes:
        tau: Agreement of the domains' signs above which the mask opens, below 1: there it is zero everywhere.
            Default 0.5, the middle of the search range.
        k: Steepness of the mask.
        variant: ``"paper"`` (default). ``"domainbed"`` also allows DomainBed's default ``tau = 1``, with
            which nothing is ever learned.
    """

    tau: float = hparam(0.5, Uniform(0.0, 1.0), at_most=1)
    k: float = hparam(10.0, LogUniform(-3, 5))
    variant: Literal["paper", "domainbed"] = "paper"

    @model_validator(mode="after")
    def _mask_can_open(self) -> Self:
        if self.variant == "paper" and self.tau >= 1:
            raise ValueError(f"tau: must be below 1, got {self.tau}: at 1 no parameter is ever updated")
        return self


@register("sand_mask", reference_name="SANDMask")
class SANDMask(MaskedGradients):
    """``mask = max(0, tanh((k/v)(|mean_e sign g_e| − τ)))``, ``v`` the unbiased variance over domains."""

    hparams_class = SANDMaskHParams
    hparams: SANDMaskHParams

    def no_effect(self) -> str | None:
        """Also where the mask cannot open."""
        if self.hparams.tau >= 1:
            return "tau: at 1 the mask is zero everywhere, and nothing is trained"
        return super().no_effect()

    @override
    def mask(self, gradients: Tensor) -> Tensor:
        # Where the variance is undefined or the mask is, 10⁻¹⁷ stands for it.
        # Not var(0), which takes thirty times as long over a few domains on a processor.
        squares = (gradients - gradients.mean(0)).square_().sum(0)
        variance = squares.div_(len(gradients) - 1).nan_to_num(nan=SMALLEST)
        raised: Tensor = (self.hparams.k / variance * (agreement(gradients) - self.hparams.tau)).tanh()
        return raised.clamp(min=0).nan_to_num(nan=SMALLEST)
