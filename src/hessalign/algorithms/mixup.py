"""Inter-domain Mixup (Yan et al., "Improve Unsupervised Domain Adaptation with Mixup Training", 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Beta, Gamma
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam

SMALL_ALPHA = 0.05
"""Below it draws from Γ(α) may be smaller than any number of the machine, both of a pair at once."""


class MixupHParams(HParams):
    """Hyper-parameters of Mixup.

    Attributes:
        alpha: Both parameters of the Beta distribution. The range is that of DomainBed since 2023; the
            published tables always drew 0.1, by a defect.
    """

    alpha: float = hparam(0.2, LogUniform(-1, 1), reference_name="mixup_alpha", at_least=1e-6)


@register("mixup", reference_name="Mixup")
class Mixup(Algorithm):
    """Each domain mixed with the next one of a random circular order.

    ``x = λ x_i + (1 − λ) x_j``, ``λ ~ Beta(α, α)`` for each pair; loss
    ``(1/E) Σ_pairs λ CE(x, y_i) + (1 − λ) CE(x, y_j)``.
    """

    hparams_class = MixupHParams
    hparams: MixupHParams
    needs_domains = 2

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        inputs, targets = batch.by_domain(batch.inputs), batch.by_domain(batch.targets)
        order = torch.randperm(batch.domain_count).tolist()
        losses = []
        for first, second in zip(order, order[1:] + order[:1], strict=True):
            share = draw_share(self.hparams.alpha)
            logits = self(share * inputs[first] + (1 - share) * inputs[second])
            losses.append(
                share * F.cross_entropy(logits, targets[first])
                + (1 - share) * F.cross_entropy(logits, targets[second])
            )
        return torch.stack(losses).mean(), {}


def draw_share(alpha: float) -> float:
    """``λ ~ Beta(α, α)``, from torch's generator of the processor.

    ``λ = X / (X + Y)`` with ``X, Y ~ Γ(α)``. Of a small ``α`` the logarithms are drawn instead, as those of
    ``Γ(α + 1)`` plus ``log(U) / α`` (Marsaglia and Tsang, "A simple method for generating gamma variables",
    ACM Transactions on Mathematical Software 2000): torch's own draw would be exactly 0.5 wherever both
    vanish, which at ``α = 0.001`` are 23 of 100.

    Returns:
        A number between 0 and 1.
    """
    if alpha >= SMALL_ALPHA:
        return float(Beta(alpha, alpha, validate_args=False).sample())  # checked by the hyper-parameters
    shape = torch.full((2,), alpha + 1, dtype=torch.float64)
    uniform = torch.rand(2, dtype=torch.float64)
    logs = Gamma(shape, torch.ones_like(shape)).sample().log() + (-uniform).log1p() / alpha
    return float((logs[0] - logs[1]).sigmoid())
