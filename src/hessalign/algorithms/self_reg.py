"""SelfReg, self-supervised contrastive regularisation (Kim, Yoo, Park, Kim and Lee, ICCV 2021)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers, register
from hessalign.algorithms.hparams import HParams
from hessalign.algorithms.mixup import draw_share

FEATURE_WEIGHT = 0.3
MIXING = 0.5
"""Both parameters of the Beta distribution."""


class SelfRegHParams(HParams):
    """Hyper-parameters of SelfReg; the weights are the paper's, and fixed.

    Attributes:
        variant: ``"paper"`` (default). ``"domainbed"``: DomainBed's defect, whose optimiser does not know the
            projection, so that it keeps its random weights.
    """

    variant: Literal["paper", "domainbed"] = "paper"


@register("self_reg", reference_name="SelfReg")
class SelfReg(Algorithm):
    """Logits and features are drawn to those of other samples of the class, and to mixtures of two.

    ``CE + min(1, sg CE) · [λ (‖a − a′‖² + 0.3 ‖z − z′‖²) + (1 − λ) (‖a − a″‖² + 0.3 ‖z − z″‖²)]``, squares
    meant as means over samples and elements, ``λ ~ Beta(0.5, 0.5)`` once an update. ``a′`` are the logits and
    ``z′`` the projected features of the samples in an order drawn within each class; ``a″`` and ``z″`` mix
    them, ``λ`` to ``1 − λ``, with those in another such order. The projection has three linear layers, each
    with a BatchNorm.
    """

    hparams_class = SelfRegHParams
    hparams: SelfRegHParams
    needs_samples = 2

    @override
    def build(self) -> None:
        # DomainBed's widths: those of a ResNet-50's 2048 features stay what they are.
        hidden = self.width if self.width == 2048 else 2 * self.width
        self.projection = nn.Sequential(
            nn.Linear(self.width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, self.width),
            nn.BatchNorm1d(self.width),
        )

    @override
    def make_optimizers(self) -> Optimizers:
        if self.hparams.variant == "domainbed":
            return {"main": self.adam([*self.backbone.parameters(), *self.head.parameters()])}
        return super().make_optimizers()

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        features = self.backbone(batch.inputs)
        logits, projected = self.head(features), self.projection(features)
        risk = F.cross_entropy(logits, batch.targets)
        share = draw_share(MIXING)
        first, second = _within_classes(batch.targets), _within_classes(batch.targets)

        def distance(values: Tensor, others: Tensor) -> Tensor:
            mixed = share * others[first] + (1 - share) * others[second]
            return share * F.mse_loss(values, others[first]) + (1 - share) * F.mse_loss(values, mixed)

        penalty = distance(logits, logits) + FEATURE_WEIGHT * distance(features, projected)
        return risk + risk.detach().clamp(max=1) * penalty, {
            "risk": risk.detach(),
            "penalty": penalty.detach(),
        }


def _within_classes(targets: Tensor) -> Tensor:
    """For each sample one of its class, ``(n,)``: a permutation, drawn among those within classes."""
    shuffled = torch.randperm(len(targets), device=targets.device)
    in_random_order = shuffled[targets[shuffled].argsort(stable=True)]
    others = torch.empty_like(targets)
    others[targets.argsort(stable=True)] = in_random_order
    return others
