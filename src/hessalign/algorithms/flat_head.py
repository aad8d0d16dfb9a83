"""A flat head with aligned gradients: the regulariser behind Hutchinson's probes, with a weight of its own.

The probes of Hutchinson (Hemati et al., ICCV 2023) add ``(1/k) off(H_e)`` to the penalty on average; here
that term stands alone, and exact.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from hessalign.algorithms.aligned import AlignedHead
from hessalign.algorithms.base import DomainBatch, register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.alignment import HessianAlignment, HessianFlatness


class FlatHeadHParams(HParams):
    """Hyper-parameters of FlatHead.

    Attributes:
        beta: Weight of the gradient distance.
        gamma: Weight of the Hessians' size.
        part: Which elements of the Hessians count.
    """

    beta: float = hparam(5e-3, LogUniform(6, 2), reference_name="penalty_beta")
    gamma: float = hparam(1e-5, LogUniform(-1.5, 2))
    part: Literal["whole", "off_diagonal"] = "off_diagonal"


@register("flat_head")
class FlatHead(AlignedHead):
    """Aligns gradients and adds ``(γ/E) Σ_e off(H_e)``, or ``‖H_e‖_F²`` with ``part="whole"``; α = 0.

    The default and the search space of ``γ`` are those of Hutchinson's ``α`` divided by some 100 to 300
    probes. With one source domain there is no gradient distance, and the head is still made flat.
    """

    hparams_class = FlatHeadHParams
    hparams: FlatHeadHParams

    def alignment(self) -> HessianAlignment:
        """See the class."""
        return HessianAlignment("gradient", beta=self.hparams.beta)

    def build(self) -> None:
        """Make both penalties."""
        super().build()
        self.flatness = HessianFlatness(self.hparams.gamma, self.hparams.part)

    def head_penalty(
        self, features: Tensor, logits: Tensor, batch: DomainBatch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Gradient distance and size of the Hessians, which is reported as ``hessian_size``."""
        penalty, parts = super().head_penalty(features, logits, batch)
        flatness, sizes = self.flatness.with_parts(features, logits, batch.targets, batch.domains)
        return penalty + flatness, {**parts, **sizes}
