"""Contrastive adversarial domain bottleneck (Ruan, Dubois and Maddison, ICLR 2022)."""

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import register
from hessalign.algorithms.contrastive import ContrastiveBottleneck


@register("cad", reference_name="CAD")
class CAD(ContrastiveBottleneck):
    """``N(i)`` are all other samples: features hide the domain."""

    @override
    def neighbours(self, same_class: Tensor) -> Tensor:
        return torch.ones_like(same_class)

    @override
    def anchors(self, same_class: Tensor) -> Tensor:
        return same_class.any(1) if self.hparams.variant == "domainbed" else super().anchors(same_class)

    @override
    def _with_oneself(self, chosen: Tensor, oneself: Tensor) -> Tensor:
        return chosen | oneself
