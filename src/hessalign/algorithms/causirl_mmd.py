"""CausIRL with MMD's distance (Chevalley, Bunne, Krause and Bauer, "Invariant Causal Mechanisms", 2022)."""

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import register
from hessalign.algorithms.causirl import CausIRL
from hessalign.algorithms.mmd import kernels, squares


@register("causirl_mmd", reference_name="CausIRL_MMD")
class CausIRLMMD(CausIRL):
    """Distance ``mean K(Φ, Φ) + mean K(Φ′, Φ′) − 2 mean K(Φ, Φ′)``, with MMD's seven kernels."""

    @override
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        rows = torch.cat([first, second])
        values = kernels(squares(rows - rows.mean(0)))
        within, between, others = (
            values[: len(first), : len(first)],
            values[: len(first), len(first) :],
            values[len(first) :, len(first) :],
        )
        return within.mean() + others.mean() - 2 * between.mean()
