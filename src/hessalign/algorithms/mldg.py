"""Meta-learning domain generalization, first order (Li, Yang, Song and Hospedales, AAAI 2018)."""

import copy
from itertools import cycle
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers, register
from hessalign.algorithms.hparams import Choice, HParams, LogUniform, hparam


class MLDGHParams(HParams):
    """Hyper-parameters of MLDG.

    Attributes:
        meta_weight: Weight ``β`` of the meta-test gradient.
        meta_test_domains: Domains held out for meta-test in each update; at most all but one are.
        variant: ``"paper"`` (default). ``"domainbed"``: DomainBed's defect, which learns nothing where
            ``meta_test_domains`` is not below the number of source domains.
    """

    meta_weight: float = hparam(1.0, LogUniform(-1, 1), reference_name="mldg_beta")
    meta_test_domains: int = hparam(2, Choice((1, 2)), reference_name="n_meta_test", at_least=1)
    variant: Literal["paper", "domainbed"] = "paper"


@register("mldg", reference_name="MLDG")
class MLDG(Algorithm):
    """For each pair of a meta-train domain ``i`` and a meta-test one ``j``: ``(∇R_i(θ) + β ∇R_j(θ′)) / E``.

    ``θ′`` is ``θ`` after one step of a fresh Adam on ``R_i``; no second derivatives are taken. Domains are
    split at random in each update; meta-test domains are used in turn. The sum over pairs is one step of the
    main Adam. With one source domain there is no pair, and the update is that of ERM.
    """

    hparams_class = MLDGHParams
    hparams: MLDGHParams
    needs_domains = 2

    def no_effect(self) -> str | None:
        """With DomainBed's defect also where no domain is left for meta-train."""
        held_out = self.hparams.meta_test_domains
        if self.hparams.variant == "domainbed" and held_out >= self.domains:
            return (
                f"meta_test_domains: with {held_out} of {self.domains} source domains held out none is left "
                'for meta-train, and variant "domainbed" trains nothing'
            )
        return super().no_effect()

    @override
    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        domains = batch.domain_batches()
        order = torch.randperm(len(domains)).tolist()
        held_out = self.hparams.meta_test_domains
        if self.hparams.variant == "paper":
            held_out = min(held_out, len(domains) - 1)
        meta_train, meta_test = order[: max(0, len(domains) - held_out)], order[len(domains) - held_out :]
        if len(domains) == 1 and self.hparams.variant == "paper":
            risk = F.cross_entropy(self(domains[0].inputs), domains[0].targets)
            self.minimise(risk, optimizers["main"])
            return {"loss": risk.detach()}
        network = nn.Sequential(self.backbone, self.head)
        total = [torch.zeros_like(parameter) for parameter in network.parameters()]
        losses = [total[0].new_zeros(())]
        for first, second in zip(meta_train, cycle(meta_test), strict=False):
            losses.append(self._add_pair(network, domains[first], domains[second], total))
        self.zero_grad()
        for parameter, gradient in zip(network.parameters(), total, strict=True):
            parameter.grad = gradient / len(domains)
        optimizers["main"].step()
        return {"loss": torch.stack(losses).sum() / len(domains)}

    def _add_pair(
        self, network: nn.Sequential, train: DomainBatch, test: DomainBatch, total: list[Tensor]
    ) -> Tensor:
        """Add the gradients of one pair to the total; returns its loss."""
        inner = copy.deepcopy(network)
        optimizer = self.adam(inner.parameters())
        train_risk = self._add_gradient(inner, train, 1.0, total)
        optimizer.step()
        test_risk = self._add_gradient(inner, test, self.hparams.meta_weight, total)
        return train_risk + self.hparams.meta_weight * test_risk

    def _add_gradient(
        self, network: nn.Sequential, batch: DomainBatch, weight: float, total: list[Tensor]
    ) -> Tensor:
        """Leave the gradient of the batch's risk in the network and add it to the total; returns the risk."""
        risk = F.cross_entropy(network(batch.inputs), batch.targets)
        network.zero_grad()
        self.backward(risk)
        for accumulated, parameter in zip(total, network.parameters(), strict=True):
            if parameter.grad is not None:
                accumulated.add_(parameter.grad, alpha=weight)
        return risk.detach()
