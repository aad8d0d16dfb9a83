"""A flat head with aligned gradients: the regulariser behind Hutchinson's probes, with a weight of its own.

The probes of Hutchinson (Hemati et al., ICCV 2023) add ``(1/k) off(H_e)`` to the penalty on average; here
that term stands alone, and exact.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.aligned import AlignedHead, AlignedHParams
from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import LogUniform, hparam
from hessalign.alignment import HessianAlignment, HessianFlatness
from hessalign.head import HeadDerivatives


class FlatHeadHParams(AlignedHParams):
    """Hyper-parameters of FlatHead.

    Attributes:
        beta: Weight of the gradient distance.
        gamma: Weight of the Hessians' size.
        part: Which elements of the Hessians count.
    """

    beta: float = hparam(5e-3, LogUniform(-3, 6), reference_name="penalty_beta")
    gamma: float = hparam(1e-5, LogUniform(-6, 2))
    part: Literal["whole", "off_diagonal"] = "off_diagonal"


@register("flat_head", reference_name="FlatHead")
class FlatHead(AlignedHead):
    """Aligns gradients and adds ``(γ/E) Σ_e off(H_e)``, or ``‖H_e‖_F²`` with ``part="whole"``; α = 0.

    The default and the search space of ``γ`` are those of the exact Hessian's ``α`` divided by a hundred
    probes. With one source domain there is no gradient distance, and the head is still made flat.
    """

    hparams_class = FlatHeadHParams
    hparams: FlatHeadHParams
    needs_domains = 1
    penalty_weights = ("beta", "gamma")
    batched = ("beta", "gamma")

    @override
    def alignment(self) -> HessianAlignment:
        return HessianAlignment("gradient", beta=self.hparams.beta)

    def head_penalty(self, domains: Sequence[HeadDerivatives]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Gradient distance and size of the Hessians, which is reported as ``hessian_size``."""
        penalty, terms = super().head_penalty(domains)
        flatness, sizes = HessianFlatness(self.hparams.gamma, self.hparams.part).evaluate(domains)
        return penalty + flatness, {**terms, **sizes}
