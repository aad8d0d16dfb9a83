"""CausIRL with CORAL's distance (Chevalley, Bunne, Krause and Bauer, "Invariant Causal Mechanisms", 2022)."""

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import register
from hessalign.algorithms.causirl import CausIRL


@register("causirl_coral", reference_name="CausIRL_CORAL")
class CausIRLCORAL(CausIRL):
    """Distance ``mean_k (μ − μ′)_k² + mean_kl (C − C′)_kl²`` of feature means and unbiased covariances."""

    @override
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        means = (first.mean(0) - second.mean(0)).square().mean()
        # Σ_kl C_kl C′_kl is ‖X X′ᵀ‖² of centred rows over √(n − 1), and samples are fewer than features.
        rows = torch.cat([(half - half.mean(0)) / (len(half) - 1) ** 0.5 for half in (first, second)])
        products = (rows @ rows.T).square()
        within, between, others = (
            products[: len(first), : len(first)],
            products[: len(first), len(first) :],
            products[len(first) :, len(first) :],
        )
        return means + (within.sum() + others.sum() - 2 * between.sum()) / first.shape[1] ** 2
