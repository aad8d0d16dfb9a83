"""Deep CORAL (Sun and Saenko, ECCV Workshops 2016), between every two source domains."""

from torch import Tensor

from hessalign.algorithms.base import register
from hessalign.algorithms.pairwise import PairwisePenalty


@register("coral")
class CORAL(PairwisePenalty):
    """Distance ``mean_k (μ − μ′)_k² + mean_kl (C − C′)_kl²`` of feature means and unbiased covariances."""

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """See the class."""
        means = first.mean(0) - second.mean(0)
        covariances = _covariance(first) - _covariance(second)
        return means.square().mean() + covariances.square().mean()


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)
