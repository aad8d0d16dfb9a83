"""Marginal transfer learning (Blanchard, Deshmukh, Dogan, Lee and Scott, JMLR 2021)."""

from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies, register
from hessalign.algorithms.hparams import Choice, HParams, hparam


class MTLHParams(HParams):
    """Hyper-parameters of MTL.

    Attributes:
        ema: Share of the batch's mean in the domain's embedding; the rest is its past.
        variant: ``"paper"`` (default): embeddings as below. ``"domainbed"``: DomainBed's defect, which
            overwrites every embedding by standard normal noise, in training and at test.
    """

    ema: float = hparam(0.99, Choice((0.5, 0.9, 0.99, 1.0)), reference_name="mtl_ema", at_most=1)
    variant: Literal["paper", "domainbed"] = "paper"


@register("mtl", reference_name="MTL")
class MTL(Algorithm):
    """The head sees ``[f(x), m_e]``, ``m_e`` a moving average of the domain's mean feature; loss ``Σ_e R_e``.

    At test ``m`` is the mean feature of the batch.
    """

    hparams_class = MTLHParams
    hparams: MTLHParams
    embeddings: Tensor
    predicts_by_batch = True

    @override
    def build(self) -> None:
        self.register_buffer("embeddings", torch.zeros(self.domains, self.width))

    def make_head(self) -> nn.Linear:
        """Twice as wide as the features."""
        return nn.Linear(2 * self.width, self.classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits with the batch's own mean as embedding."""
        features = self.backbone(inputs)
        return self._classify(features, features.mean(0))

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        features = self.domain_features(batch)
        logits, updated = [], []
        for own, stored in zip(batch.by_domain(features), self.embeddings, strict=True):
            embedding = self.hparams.ema * own.mean(0) + (1 - self.hparams.ema) * stored
            updated.append(embedding.detach())
            logits.append(self._classify(own, embedding))
        self.embeddings = torch.stack(updated)
        return cross_entropies(torch.cat(logits), batch).sum(), {}

    def _classify(self, features: Tensor, embedding: Tensor) -> Tensor:
        context = embedding.expand_as(features)
        if self.hparams.variant == "domainbed":
            context = torch.randn_like(features)
        logits: Tensor = self.head(torch.cat([features, context], dim=1))
        return logits
