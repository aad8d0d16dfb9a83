"""Transfer risk minimisation (Xu and Jaakkola, "Representations that Support Robust Transfer", 2021)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from hessalign.algorithms.base import (
    Algorithm,
    DomainBatch,
    Metrics,
    cross_entropies,
    head_derivatives,
    register,
)
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.head import HeadDerivatives
from hessalign.head.derivatives import without_autocast

HEAD_STEPS, HEAD_LR = 30, 0.1
"""Of the domains' heads in each update: steps of gradient descent, and their size."""
TERMS = 10
"""Of the Neumann series, after the first."""
DIVERGED = 10.0
"""Largest element at which DomainBed's series is broken off."""


class TRMHParams(HParams):
    """Hyper-parameters of TRM.

    Attributes:
        implicit_weight: Weight ``κ`` of the derivative through the domains' heads.
        erm_steps: Steps of plain risk minimisation before the transfer risks set in.
        eta: Rate at which the weights of the transfer risks follow them.
        variant: ``"paper"`` (default). ``"domainbed"``: DomainBed's series, which begins with its second term
            instead of its first, is never scaled, and is broken off where an element exceeds 10; its
            products with the head's weights alone; and weights that follow the weighted risks.
    """

    implicit_weight: float = hparam(1e-4, LogUniform(-5, 0), reference_name="cos_lambda")
    erm_steps: int = hparam(200, LogUniform(0, 4, whole=True), reference_name="iters")
    eta: float = hparam(1e-2, LogUniform(-3, -1), reference_name="groupdro_eta")
    variant: Literal["paper", "domainbed"] = "paper"


@register("trm", reference_name="TRM")
class TRM(Algorithm):
    """``mean_e R_e + mean_q Σ_f≠q α_qf R_f(θ_q)``: the risk of each domain under every other one's own head.

    ``θ_q`` is a head of domain ``q`` alone. It goes with the features: 30 steps of gradient descent of size
    0.1 in each update, and a term ``−κ ⟨H_q⁻¹ Σ_f α_qf ∇_θ R_f(θ_q), ∇_θ R_q(θ_q)⟩`` of the loss, in which
    the inverse Hessian's product is a constant. It is a Neumann series of eleven terms,
    ``s Σ_k (1 − s H_q)^k v``, ``s`` the smaller of 1 and ``2 / mean_i ‖z̃_i‖²``, with which it converges. The
    worst transfers gain weight: ``α_qf ← α_qf exp(η R_f(θ_q))``, normalised.

    Gradients and Hessians of the heads are those in closed form of ``hessalign.head``; nothing is
    differentiated twice.
    """

    hparams_class = TRMHParams
    hparams: TRMHParams
    batched = ("implicit_weight", "erm_steps", "eta")
    sets_in = (("erm_steps", "the transfer risk"),)
    needs_domains = 2
    needs_trainable_backbone = True
    heads: Tensor
    transfers: Tensor

    @override
    def build(self) -> None:
        drawn = [nn.Linear(self.width, self.classes) for _ in range(self.domains)]
        heads = [torch.cat([head.weight, head.bias.unsqueeze(1)], dim=1) for head in drawn]
        self.register_buffer("heads", torch.stack(heads).detach())
        others = (1 - torch.eye(self.domains)) / max(1, self.domains - 1)
        self.register_buffer("transfers", others)

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        features = self.backbone(batch.inputs)
        risk = cross_entropies(self.head(features), batch).mean()
        started = self.steps_done >= self.hparams.erm_steps
        if started is False or batch.domain_count == 1:
            return risk, {"risk": risk.detach(), "transfer": torch.zeros_like(risk)}
        with without_autocast(features.device):
            heads = self._fitted(features.detach(), batch)
            transfer, risks = self._transfer(features, heads.detach(), batch)
        followed = self.transfers * risks if self.hparams.variant == "domainbed" else risks
        exponents = self.hparams.eta * followed
        raised = self.transfers * (exponents - exponents.amax(1, keepdim=True)).exp()
        transfers = (raised / raised.sum(1, keepdim=True)).to(self.transfers)
        if isinstance(started, Tensor):
            transfer = torch.where(started, transfer, 0.0)
            heads = torch.where(started, heads, self.heads)
            transfers = torch.where(started, transfers, self.transfers)
        self.heads, self.transfers = heads.detach(), transfers.detach()
        return risk + transfer, {"risk": risk.detach(), "transfer": transfer.detach()}

    def _fitted(self, features: Tensor, batch: DomainBatch) -> Tensor:
        """The domains' heads after this update's steps of gradient descent, ``(E, C, d+1)``."""
        domains = F.pad(features.to(self.heads), (0, 1), value=1.0).view(self.domains, -1, self.width + 1)
        targets = F.one_hot(batch.targets, self.classes).to(domains).view(self.domains, -1, self.classes)
        heads = self.heads
        for _ in range(HEAD_STEPS):
            residuals = (domains @ heads.mT).softmax(2) - targets
            heads = heads - HEAD_LR / batch.samples_per_domain * (residuals.mT @ domains)
        return heads

    def _transfer(self, features: Tensor, heads: Tensor, batch: DomainBatch) -> tuple[Tensor, Tensor]:
        """The transfer risks' part of the loss, and ``R_f(θ_q)``, ``(E, E)``, detached."""
        total, every = features.new_zeros((), dtype=heads.dtype), []
        for domain, head in enumerate(heads.unbind()):
            logits = F.linear(features.to(head), head[:, :-1], head[:, -1])
            risks = cross_entropies(logits, batch)
            weights = self.transfers[domain]
            derivatives = head_derivatives(features, logits, batch)
            gradients = torch.stack([part.gradient() for part in derivatives])
            wanted = torch.einsum("e,eck->ck", weights.to(gradients), gradients.detach())
            direction = self._inverse_product(derivatives[domain], wanted)
            implicit = (direction * gradients[domain]).sum()
            total = total + weights @ risks - self.hparams.implicit_weight * implicit.to(total)
            every.append(risks.detach())
        return total / self.domains, torch.stack(every)

    @torch.no_grad()
    def _inverse_product(self, derivatives: HeadDerivatives, vector: Tensor) -> Tensor:
        """``H⁻¹ v``, as the class says, ``(C, d+1)``."""
        if self.hparams.variant == "domainbed":
            return _domainbeds_product(derivatives, vector)
        # Curvatures of a softmax have no eigenvalue above 1/2.
        longest = (1 + derivatives.features.square().sum(1).mean()) / 2
        scale = 1 / longest.clamp(min=1)
        term, total = vector, vector
        for _ in range(TERMS):
            term = term - scale * derivatives.hvp(term)
            total = total + term
        return scale * total


def _domainbeds_product(derivatives: HeadDerivatives, vector: Tensor) -> Tensor:
    weights = torch.ones_like(vector)
    weights[:, -1] = 0
    term = weights * vector
    total = torch.zeros_like(vector)
    going = torch.ones((), dtype=torch.bool, device=vector.device)
    for number in range(TERMS):
        term = term - weights * derivatives.hvp(term)
        total = torch.where(going, total + (2 if number == 0 else 1) * term, total)
        going = going & (total.abs().amax() <= DIVERGED)
    return total
