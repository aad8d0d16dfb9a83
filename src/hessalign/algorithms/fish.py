"""Fish (Shi et al., "Gradient Matching for Domain Generalization", ICLR 2022)."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers, register
from hessalign.algorithms.hparams import Choice, HParams, hparam


class FishHParams(HParams):
    """Hyper-parameters of Fish.

    Attributes:
        meta_lr: Share of the way to the inner network.
    """

    meta_lr: float = hparam(0.5, Choice((0.05, 0.1, 0.5)), at_most=1)


@register("fish", reference_name="Fish")
class Fish(Algorithm):
    """One inner Adam step on each domain in turn, then ``θ ← θ + ε (θ_inner − θ)``.

    The inner Adam's moments are kept from update to update. Running statistics move with the weights.
    """

    hparams_class = FishHParams
    hparams: FishHParams
    needs_domains = 2

    @override
    def build(self) -> None:
        self.inner = copy.deepcopy(nn.Sequential(self.backbone, self.head))

    def make_optimizers(self) -> Optimizers:
        """Adam of the inner network."""
        return {"inner": self.adam(self.inner.parameters())}

    @override
    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        outer = nn.Sequential(self.backbone, self.head)
        self.inner.load_state_dict(outer.state_dict())
        risks = []
        for domain in batch.domain_batches():
            risk = F.cross_entropy(self.inner(domain.inputs), domain.targets)
            self.minimise(risk, optimizers["inner"])
            risks.append(risk.detach())
        with torch.no_grad():
            for mine, inner in zip(
                outer.state_dict().values(), self.inner.state_dict().values(), strict=True
            ):
                moved = mine + self.hparams.meta_lr * (inner - mine)
                mine.copy_(moved if mine.is_floating_point() else moved.round())
        return {"loss": torch.stack(risks).mean()}
