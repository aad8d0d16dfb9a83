"""Maximum mean discrepancy (Li et al., "Adversarial Feature Learning", CVPR 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import register
from hessalign.algorithms.pairwise import PairwisePenalty, means_of_domains, squared_distances

BANDWIDTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
VALUES_IN_CACHE = 2**15
"""Of a matrix of kernels, computed at once: as many as a processor's cache holds with what is on the way."""
ROUNDING = 50
"""Squared distances below so many units of their terms' last digit are those of equal samples."""


@register("mmd", reference_name="MMD")
class MMD(PairwisePenalty):
    """Distance ``mean K(Φ, Φ) + mean K(Φ′, Φ′) − 2 mean K(Φ, Φ′)``, ``K = Σ_g exp(−g ‖a − b‖²)``."""

    @override
    def distances(self, features: Tensor) -> Tensor:
        # Means over all pairs, a sample with itself included.
        rows = features.flatten(0, 1)
        kernel = kernels(squares(rows - rows.mean(0)))
        return squared_distances(means_of_domains(kernel, len(features)))


def kernels(distances: Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> Tensor:
    """``K`` of squared distances, with its first derivative: no tensor for each bandwidth is kept for it."""
    at = distances.detach()
    rows = len(at)
    if at.device.type == "cpu":
        rows = max(1, VALUES_IN_CACHE * rows // max(1, at.numel()))
    blocks = [_kernels_and_slopes(block, bandwidths) for block in at.split(rows)]
    values, slopes = (torch.cat(each) for each in zip(*blocks, strict=True))
    return values + slopes * (distances - at)


def _kernels_and_slopes(distances: Tensor, bandwidths: Sequence[float]) -> tuple[Tensor, Tensor]:
    values, slopes = torch.zeros_like(distances), torch.zeros_like(distances)
    for bandwidth in bandwidths:
        kernel = (-bandwidth * distances).exp_()
        values.add_(kernel)
        slopes.sub_(kernel.mul_(bandwidth))
    return values, slopes


def squares(centred: Tensor) -> Tensor:
    """Squared distances of every two rows, exactly 0 where they are equal."""
    norms = centred.square().sum(1)
    sums = norms.unsqueeze(1) + norms
    distances = sums - 2 * centred @ centred.T
    return torch.where(distances <= ROUNDING * torch.finfo(sums.dtype).eps * sums, 0.0, distances)
