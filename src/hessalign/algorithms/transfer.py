"""Transfer (Zhang, Zhao, Yu and Poupart, "Quantifying and Improving Transferability", NeurIPS 2021)."""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD, Optimizer
from typing_extensions import override

from hessalign.algorithms.base import (
    Algorithm,
    DomainBatch,
    Metrics,
    Optimizers,
    cross_entropies,
    register,
)
from hessalign.algorithms.hparams import Choice, HParams, LogUniform, Uniform, hparam


class TransferHParams(HParams):
    """Hyper-parameters of Transfer.

    Attributes:
        gap_weight: Weight ``λ`` of the gap.
        radius: Largest distance ``δ`` of the adversarial head from the head.
        adversary_steps: Steps of the adversarial head in each update.
        adversary_lr: Learning rate of the adversarial head.
        gda: Whether backbone and head take plain gradient steps instead of Adam's.
        variant: ``"paper"`` (default). ``"domainbed"``: DomainBed's defect with ``gda``, which all of its
            draws have: the optimiser is given the adversarial head, and backbone and head stay as they are.
    """

    gap_weight: float = hparam(1.0, LogUniform(-2, 1), reference_name="t_lambda")
    radius: float = hparam(2.0, Uniform(0.1, 3.0), reference_name="delta", at_least=1e-6)
    adversary_steps: int = hparam(10, Choice((1, 2, 5)), reference_name="d_steps_per_g")
    adversary_lr: float = hparam(1e-3, LogUniform(-4.5, -2.5), reference_name="lr_d")
    gda: bool = False
    variant: Literal["paper", "domainbed"] = "paper"


@register("transfer", reference_name="Transfer")
class Transfer(Algorithm):
    """``mean_e R_e + λ max_h′ [max_e R_e(h′) − min_e R_e(h′)]`` over heads ``h′`` within ``δ`` of the head.

    In each update (1) backbone and head take a step on ``mean_e R_e``, (2) the backbone one on ``λ`` times
    the gap, under the adversarial head of the last update, (3) the adversarial head begins anew from the
    head and takes gradient steps up the gap, projected back into the ball after each.
    """

    hparams_class = TransferHParams
    hparams: TransferHParams
    needs_domains = 2
    needs_trainable_backbone = True

    @override
    def build(self) -> None:
        self.adversary = copy.deepcopy(self.head)

    @override
    def make_optimizers(self) -> Optimizers:
        network = [*self.backbone.parameters(), *self.head.parameters()]
        main: Optimizer = self.adam(network)
        if self.hparams.gda:
            moved = self.adversary.parameters() if self.hparams.variant == "domainbed" else network
            main = SGD(moved, lr=self.hparams.lr)
        return {"main": main, "adversary": SGD(self.adversary.parameters(), lr=self.hparams.adversary_lr)}

    @override
    def no_effect(self) -> str | None:
        if self.hparams.gda and self.hparams.variant == "domainbed":
            return 'gda: with variant "domainbed" nothing is trained but the adversarial head'
        return super().no_effect()

    @override
    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        risk = F.cross_entropy(self(batch.inputs), batch.targets)
        self.minimise(risk, optimizers["main"])
        gap = torch.zeros_like(risk)
        if batch.domain_count > 1:
            gap = self._gap(self.domain_features(batch), batch)
            self.minimise(self.hparams.gap_weight * gap, optimizers["main"])
            self.adversary.load_state_dict(self.head.state_dict())
            with torch.no_grad():
                features = self.domain_features(batch)
            for _ in range(self.hparams.adversary_steps):
                self.minimise(-self.hparams.gap_weight * self._gap(features, batch), optimizers["adversary"])
                self._project()
        return {"loss": risk.detach(), "gap": gap.detach()}

    def _gap(self, features: Tensor, batch: DomainBatch) -> Tensor:
        """``max_e R_e(h′) − min_e R_e(h′)``."""
        risks = cross_entropies(self.adversary(features), batch)
        return risks.max(0).values - risks.min(0).values

    @torch.no_grad()
    def _project(self) -> None:
        """Bring the adversarial head back into the ball."""
        pairs = list(zip(self.adversary.parameters(), self.head.parameters(), strict=True))
        distance = torch.stack([(mine - centre).square().sum() for mine, centre in pairs]).sum().sqrt()
        share = self.hparams.radius / distance
        for mine, centre in pairs:
            mine.copy_(torch.where(share >= 1, mine, centre + share * (mine - centre)))
