"""Deep CORAL (Sun and Saenko, ECCV Workshops 2016), between every two source domains."""

from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import register
from hessalign.algorithms.pairwise import PairwisePenalty, means_of_domains, squared_distances


@register("coral", reference_name="CORAL")
class CORAL(PairwisePenalty):
    """Distance ``mean_k (μ − μ′)_k² + mean_kl (C − C′)_kl²`` of feature means and unbiased covariances."""

    needs_samples = 2

    @override
    def distances(self, features: Tensor) -> Tensor:
        # With X the centred features over √(n − 1), Σ_kl C_kl C′_kl is ‖X X′ᵀ‖²: inner products of samples,
        # which are far fewer than features, instead of covariances.
        domains, samples, width = features.shape
        means = features.mean(1)
        centred = (features - means.unsqueeze(1)).flatten(0, 1) / (samples - 1) ** 0.5
        products = samples**2 * means_of_domains((centred @ centred.T).square(), domains)
        between_means = (means.unsqueeze(1) - means).square().mean(2)
        return between_means + squared_distances(products) / width**2
