"""Deep CORAL (Sun and Saenko, ECCV Workshops 2016), between every two source domains."""

from torch import Tensor

from hessalign.algorithms.base import register
from hessalign.algorithms.pairwise import PairwisePenalty


@register("coral")
class CORAL(PairwisePenalty):
    """Distance ``mean_k (μ − μ′)_k² + mean_kl (C − C′)_kl²`` of feature means and unbiased covariances."""

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """See the class.

        With ``X`` the centred features over ``√(n − 1)``, ``Σ_kl (C − C′)_kl²`` is
        ``‖X Xᵀ‖² + ‖X′ X′ᵀ‖² − 2 ‖X X′ᵀ‖²``: inner products of samples, which are far fewer than features,
        instead of covariances.
        """
        mean, other_mean = first.mean(0), second.mean(0)
        scaled = (first - mean) / (len(first) - 1) ** 0.5
        other = (second - other_mean) / (len(second) - 1) ** 0.5
        same = (scaled @ scaled.T).square().sum() + (other @ other.T).square().sum()
        between = (scaled @ other.T).square().sum()
        covariances: Tensor = (same - 2 * between) / mean.numel() ** 2
        return (mean - other_mean).square().mean() + covariances
