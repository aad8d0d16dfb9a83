"""Maximum mean discrepancy (Li et al., "Adversarial Feature Learning", CVPR 2018)."""

from torch import Tensor

from hessalign.algorithms.base import register
from hessalign.algorithms.pairwise import PairwisePenalty

BANDWIDTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
SMALLEST_DISTANCE = 1e-30


@register("mmd")
class MMD(PairwisePenalty):
    """Distance ``mean K(Φ, Φ) + mean K(Φ′, Φ′) − 2 mean K(Φ, Φ′)``, ``K = Σ_g exp(−g ‖a − b‖²)``."""

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """See the class; means over all pairs, a sample with itself included."""
        within = _kernel(first, first).mean() + _kernel(second, second).mean()
        return within - 2 * _kernel(first, second).mean()


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    norms = first.square().sum(1).unsqueeze(1) + second.square().sum(1)
    distances = (norms - 2 * first @ second.T).clamp(min=SMALLEST_DISTANCE)
    total = distances.new_zeros(distances.shape)
    for bandwidth in BANDWIDTHS:
        total = total + (-bandwidth * distances).exp()
    return total
