"""AND-mask (Parascandolo et al., "Learning explanations that are hard to vary", ICLR 2021)."""

from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import HParams, Uniform, hparam
from hessalign.algorithms.masked import MaskedGradients, agreement


class ANDMaskHParams(HParams):
    """Hyper-parameters of AND-mask.

    Attributes:
        tau: Agreement of the domains' signs that an element needs.
    """

    tau: float = hparam(1.0, Uniform(0.5, 1.0), at_most=1)


@register("and_mask", reference_name="ANDMask")
class ANDMask(MaskedGradients):
    """``mask = [|mean_e sign g_e| ≥ τ]``."""

    hparams_class = ANDMaskHParams
    hparams: ANDMaskHParams

    @override
    def mask(self, gradients: Tensor) -> Tensor:
        return (agreement(gradients) >= self.hparams.tau).to(gradients.dtype)
