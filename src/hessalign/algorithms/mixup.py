"""Inter-domain Mixup (Yan et al., "Improve Unsupervised Domain Adaptation with Mixup Training", 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Beta

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam


class MixupHParams(HParams):
    """Hyper-parameters of Mixup.

    Attributes:
        alpha: Both parameters of the Beta distribution. The range is that of DomainBed since 2023; the
            published tables always drew 0.1, by a defect.
    """

    alpha: float = hparam(0.2, LogUniform(-1, 1), reference_name="mixup_alpha", at_least=1e-6)


@register("mixup")
class Mixup(Algorithm):
    """Each domain mixed with the next one of a random circular order.

    ``x = λ x_i + (1 − λ) x_j``, ``λ ~ Beta(α, α)`` for each pair; loss
    ``(1/E) Σ_pairs λ CE(x, y_i) + (1 − λ) CE(x, y_j)``.
    """

    hparams_class = MixupHParams
    hparams: MixupHParams

    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        """See the class."""
        inputs, targets = batch.by_domain(batch.inputs), batch.by_domain(batch.targets)
        order = torch.randperm(batch.domain_count).tolist()
        losses = []
        for first, second in zip(order, order[1:] + order[:1], strict=True):
            share = float(Beta(self.hparams.alpha, self.hparams.alpha).sample())
            logits = self(share * inputs[first] + (1 - share) * inputs[second])
            losses.append(
                share * F.cross_entropy(logits, targets[first])
                + (1 - share) * F.cross_entropy(logits, targets[second])
            )
        return torch.stack(losses).mean(), {}
