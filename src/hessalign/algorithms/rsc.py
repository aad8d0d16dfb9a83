"""Representation self-challenging (Huang, Wang, Xing and Huang, ECCV 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, register
from hessalign.algorithms.hparams import HParams, Uniform, hparam


class RSCHParams(HParams):
    """Hyper-parameters of RSC.

    Attributes:
        feature_drop: Share of each sample's features that are muted.
        batch_drop: Share of the batch that is challenged.
    """

    feature_drop: float = hparam(1 / 3, Uniform(0, 0.5), reference_name="rsc_f_drop_factor", at_most=1)
    batch_drop: float = hparam(1 / 3, Uniform(0, 0.5), reference_name="rsc_b_drop_factor", at_most=1)


@register("rsc", reference_name="RSC")
class RSC(Algorithm):
    """Mutes the features that speak most for the right class, in the samples that suffer most from it.

    With ``g_i = ∂ o_{i,y_i}/∂z_i``, for a linear head ``W_{y_i}``: keep the features whose ``g`` lies below
    its ``1 − f`` quantile within the sample; samples whose right class loses less probability by that than
    the ``1 − b`` quantile of the batch stay whole. Loss: cross-entropy on the masked features.
    """

    hparams_class = RSCHParams
    hparams: RSCHParams
    batched = ("feature_drop", "batch_drop")

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        features = self.backbone(batch.inputs)
        mask = self._mask(features.detach(), batch.targets)
        return F.cross_entropy(self.head(features * mask), batch.targets), {}

    @torch.no_grad()
    def _mask(self, features: Tensor, targets: Tensor) -> Tensor:
        slopes = self.head.weight
        kept = (slopes < _quantile(slopes, 1 - self.hparams.feature_drop))[targets]
        loss_of_confidence = self._confidence(features, targets) - self._confidence(features * kept, targets)
        whole = loss_of_confidence < _quantile(loss_of_confidence, 1 - self.hparams.batch_drop)
        return kept | whole.unsqueeze(1)

    def _confidence(self, features: Tensor, targets: Tensor) -> Tensor:
        probabilities: Tensor = self.head(features).softmax(1)
        return probabilities.gather(1, targets.unsqueeze(1)).squeeze(1)


def _quantile(values: Tensor, share: float | Tensor) -> Tensor:
    """torch.quantile over the last axis, kept; the share may differ between runs trained together."""
    ordered = values.sort(dim=-1).values
    # A number's rank is computed on the host, so that no device is waited for.
    rank = torch.as_tensor(share, dtype=values.dtype) * (values.shape[-1] - 1)
    if not isinstance(share, Tensor):
        below, above = (ordered[..., end : end + 1] for end in (int(rank.floor()), int(rank.ceil())))
        return torch.lerp(below, above, float(rank - rank.floor()))
    below, above = (ordered.index_select(-1, end.long().reshape(1)) for end in (rank.floor(), rank.ceil()))
    return torch.lerp(below, above, rank - rank.floor())
