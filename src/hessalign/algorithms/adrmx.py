"""ADRMX, additive disentanglement of domain features with remix loss (Demirel, Aptoula and Ozkan, 2023)."""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam
from typing_extensions import override

from hessalign.algorithms.adversarial import mlp
from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers, register
from hessalign.algorithms.hparams import Choice, Fixed, HParams, LogUniform, hparam
from hessalign.head.derivatives import at_least_single

TEMPERATURE, SAME_DOMAIN, SMALLEST = 0.07, 0.5, 1e-5


class ADRMXHParams(HParams):
    """Hyper-parameters of ADRMX; ``weight_decay`` is not used.

    Attributes:
        lr: Learning rate of both Adams.
        contrastive_weight: Weight of the contrastive losses.
        domain_weight: Weight of the domain classifier's loss.
        discriminator_weight: Weight of the discriminator's loss, which is driven up.
        remix_weight: Weight of the remix loss.
        discriminator_steps: Discriminator steps for each step of all else.
        beta1: Of both Adams.
        mlp_width: Hidden width of the discriminator.
        mlp_depth: Linear layers of the discriminator.
        mlp_dropout: Dropout of the discriminator.
        variant: ``"paper"`` (default). ``"domainbed"``: DomainBed's defect, which remixes two of the first
            samples of the batch, whatever their classes, instead of two of a class.
    """

    unread = ("weight_decay",)

    lr: float = hparam(
        3e-5,
        Choice((2e-5, 3e-5, 4e-5, 5e-5)),
        small=(3e-3, Choice((5e-4, 1e-3, 2e-3, 3e-3))),
        features=(1e-3, LogUniform(-4, -2)),
    )
    contrastive_weight: float = hparam(1.0, Fixed(1.0), reference_name="cnt_lambda")
    domain_weight: float = hparam(1.0, Fixed(1.0), reference_name="dclf_lambda")
    discriminator_weight: float = hparam(0.75, Fixed(0.75), reference_name="disc_lambda")
    remix_weight: float = hparam(1.0, Fixed(1.0), reference_name="rmxd_lambda")
    discriminator_steps: int = hparam(2, Fixed(2), reference_name="d_steps_per_g_step")
    beta1: float = hparam(0.5, Fixed(0.5), at_most=0.999999)
    mlp_width: int = hparam(256, Fixed(256), at_least=1)
    mlp_depth: int = hparam(9, Choice((8, 9, 10)), at_least=2)
    mlp_dropout: float = hparam(0.0, Fixed(0.0), at_most=1)
    variant: Literal["paper", "domainbed"] = "paper"


@register("adrmx", reference_name="ADRMX")
class ADRMX(Algorithm):
    """Features, less those of a second backbone that tell the domain, are to tell the class alone.

    With ``z`` and ``d`` the features of both and ``v = z − d``, discriminator steps minimise
    ``CE(D(v), domain)``, all others ``CE(c(z), y) + CE(c′(v), y) + w_d CE(c_d(d), domain) + w_r remix +
    w_c (con(z) + con(v)) − w_D CE(D(v), domain)``.

    ``remix`` is ``(1/C) Σ_k CE(c(v_i + d_j), k)``, ``i`` and ``j`` drawn from the class, in two domains.
    ``con`` is the supervised contrastive loss of normalised features at temperature 0.07, samples of the
    same domain and of others weighing one half each. Classifiers have two hidden layers. Predictions are
    those of ``c(z)``: what tells the domain helps there. The second backbone begins as a copy of the first.
    """

    hparams_class = ADRMXHParams
    hparams: ADRMXHParams
    needs_domains = 2
    needs_trainable_backbone = True

    @override
    def make_head(self) -> nn.Linear:
        return nn.Linear(max(1, self.width // 4), self.classes)

    @override
    def build(self) -> None:
        self.hidden = _hidden_layers(self.width)
        self.domain_backbone = copy.deepcopy(self.backbone)
        last = max(1, self.width // 4)
        self.invariant_classifier = nn.Sequential(_hidden_layers(self.width), nn.Linear(last, self.classes))
        self.domain_classifier = nn.Sequential(_hidden_layers(self.width), nn.Linear(last, self.domains))
        self.discriminator = mlp(
            self.width,
            self.domains,
            self.hparams.mlp_width,
            self.hparams.mlp_depth,
            self.hparams.mlp_dropout,
        )

    @override
    def make_optimizers(self) -> Optimizers:
        trained = nn.ModuleList(
            [
                self.backbone,
                self.domain_backbone,
                self.hidden,
                self.head,
                self.invariant_classifier,
                self.domain_classifier,
            ]
        )
        betas = (self.hparams.beta1, 0.9)
        return {
            "discriminator": Adam(self.discriminator.parameters(), lr=self.hparams.lr, betas=betas),
            "main": Adam(trained.parameters(), lr=self.hparams.lr, betas=betas),
        }

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self._classify(self.backbone(inputs))

    @override
    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        features, domain_features = self.backbone(batch.inputs), self.domain_backbone(batch.inputs)
        invariant = features - domain_features
        discriminator_loss = F.cross_entropy(self.discriminator(invariant), batch.domains)
        cycle = 1 + self.hparams.discriminator_steps
        if (self.steps_done + 1) % cycle < self.hparams.discriminator_steps:
            self.minimise(discriminator_loss, optimizers["discriminator"])
            return {"loss": discriminator_loss.detach(), "discriminator_loss": discriminator_loss.detach()}
        risk = F.cross_entropy(self._classify(features), batch.targets)
        invariant_risk = F.cross_entropy(self.invariant_classifier(invariant), batch.targets)
        domain_loss = F.cross_entropy(self.domain_classifier(domain_features), batch.domains)
        contrast = contrastive_loss(features, batch) + contrastive_loss(invariant, batch)
        remix = self._remix_loss(invariant, domain_features, batch)
        loss = (
            risk
            + invariant_risk
            + self.hparams.domain_weight * domain_loss
            + self.hparams.remix_weight * remix
            + self.hparams.contrastive_weight * contrast
            - self.hparams.discriminator_weight * discriminator_loss
        )
        self.minimise(loss, optimizers["main"])
        return {
            "loss": loss.detach(),
            "risk": risk.detach(),
            "invariant_risk": invariant_risk.detach(),
            "domain_loss": domain_loss.detach(),
            "contrastive_loss": contrast.detach(),
            "remix_loss": remix.detach(),
            "discriminator_loss": discriminator_loss.detach(),
        }

    def _classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(features))
        return logits

    def _remix_loss(self, invariant: Tensor, domain_features: Tensor, batch: DomainBatch) -> Tensor:
        if self.hparams.variant == "domainbed":
            first, second, drawn = domainbeds_pairs(batch, self.classes)
        else:
            first, second, drawn = pairs_within_classes(batch, self.classes)
        logits = self._classify(invariant[first] + domain_features[second])
        losses = F.cross_entropy(logits, batch.targets[first], reduction="none")
        return torch.where(drawn, losses, 0.0).sum() / self.classes


def pairs_within_classes(batch: DomainBatch, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each class two random samples of it from different domains.

    Returns:
        Their places in the batch, ``(C,)`` each, and whether the class has such a pair, ``(C,)``.
    """
    targets, domains = batch.targets, batch.domains
    members = targets == torch.arange(classes, device=targets.device).unsqueeze(1)
    first = _one_of_each(members)
    partners = members & (domains != domains[first].unsqueeze(1))
    return first, _one_of_each(partners), partners.any(1)


def domainbeds_pairs(batch: DomainBatch, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """What DomainBed takes for such pairs: two different numbers below the class's count, as places."""
    targets = batch.targets
    counts = (targets == torch.arange(classes, device=targets.device).unsqueeze(1)).sum(1)
    first, second = (
        (torch.rand(classes, device=targets.device) * (counts - left)).long().clamp(min=0) for left in (0, 1)
    )
    return first, second + (second >= first), counts >= 2


def _one_of_each(members: Tensor) -> Tensor:
    """A random member of each row, ``(C,)``; any place in a row without one."""
    return (members * (1 + torch.rand(members.shape, device=members.device))).argmax(1)


def contrastive_loss(features: Tensor, batch: DomainBatch) -> Tensor:
    """Supervised contrastive loss with weights by domain (Khosla et al., NeurIPS 2020).

    ``−Σ_i (1/|P_i|) Σ_j∈P_i log(w_ij e_ij / Σ_k≠i w_ik e_ik) / (n + 1)`` with ``e = exp(cos/0.07)``, ``P_i``
    the other samples of ``i``'s class, ``n`` the number of samples that have any, and 10⁻⁵ added to the
    denominator and inside the logarithm.

    Returns:
        Scalar.
    """
    values = at_least_single(features)
    lengths: Tensor = values.norm(dim=1, keepdim=True)
    # Two equal backbones have features that differ by nothing, which has no direction.
    unit = values / lengths.masked_fill(lengths == 0, 1.0)
    similar = (unit @ unit.T / TEMPERATURE).exp()
    same_domain = batch.domains.unsqueeze(1) == batch.domains
    weighted = torch.where(same_domain, SAME_DOMAIN, 1 - SAME_DOMAIN) * similar
    others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    positives = (batch.targets.unsqueeze(1) == batch.targets) & others
    sums = (weighted * others).sum(1, keepdim=True) + SMALLEST
    logs = (weighted / sums + SMALLEST).log()
    counts = positives.sum(1)
    means = (logs * positives).sum(1) / counts.clamp(min=1)
    return -means.sum() / ((counts > 0).sum() + 1)


def _hidden_layers(width: int) -> nn.Sequential:
    half, quarter = max(1, width // 2), max(1, width // 4)
    return nn.Sequential(nn.Linear(width, half), nn.ReLU(), nn.Linear(half, quarter), nn.ReLU())
