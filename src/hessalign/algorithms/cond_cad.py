"""Conditional contrastive adversarial domain bottleneck (Ruan, Dubois and Maddison, ICLR 2022)."""

from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import register
from hessalign.algorithms.contrastive import ContrastiveBottleneck


@register("cond_cad", reference_name="CondCAD")
class CondCAD(ContrastiveBottleneck):
    """``N(i)`` are the other samples of the class: features hide of the domain what it does not tell."""

    @override
    def neighbours(self, same_class: Tensor) -> Tensor:
        return same_class
