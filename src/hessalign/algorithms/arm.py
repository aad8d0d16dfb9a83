"""Adaptive risk minimisation with context networks (Zhang et al., NeurIPS 2021)."""

from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers, cross_entropies, register
from hessalign.algorithms.hparams import Fixed, HParams, LogUniform, hparam


class ARMHParams(HParams):
    """Hyper-parameters of ARM.

    Attributes:
        batch_size: Also the size of the groups of samples that share a context.
        variant: ``"paper"`` (default). ``"domainbed"``: DomainBed's defect, whose optimiser does not know the
            context network, so that it keeps its random weights.
    """

    batch_size: int = hparam(
        8,
        Fixed(8),
        small=(64, LogUniform(3, 9, base=2, whole=True)),
        domain_net=(8, Fixed(8)),
        at_least=1,
    )
    variant: Literal["paper", "domainbed"] = "paper"


@register("arm", reference_name="ARM")
class ARM(Algorithm):
    """Each image gets one more channel: the mean context map of its group.

    A context network maps every image to one channel; the maps of a group of ``batch_size`` consecutive
    images are averaged. A batch that is no multiple of that size is one group. The backbone must take
    ``extra_input_channels`` more channels than the images have.
    """

    hparams_class = ARMHParams
    hparams: ARMHParams
    extra_input_channels = 1
    needs_images = True
    predicts_by_batch = True

    @override
    def build(self) -> None:
        self.context = nn.Sequential(
            nn.LazyConv2d(64, 5, padding=2),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 5, padding=2),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 1, 5, padding=2),
        )

    def make_optimizers(self) -> Optimizers:
        """Adam over all of it, or without the context network for DomainBed's variant."""
        if self.hparams.variant == "domainbed":
            return {"main": self.adam([*self.backbone.parameters(), *self.head.parameters()])}
        return super().make_optimizers()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, with contexts from the batch itself."""
        group = self.hparams.batch_size if len(inputs) % self.hparams.batch_size == 0 else len(inputs)
        maps = self.context(inputs)
        means = maps.unflatten(0, (-1, group)).mean(1, keepdim=True)
        contexts = means.expand(-1, group, -1, -1, -1).flatten(0, 1)
        return super().forward(torch.cat([inputs, contexts], dim=1))

    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        """Cross-entropy over the pooled batch."""
        return cross_entropies(self(batch.inputs), batch).mean(), {}
