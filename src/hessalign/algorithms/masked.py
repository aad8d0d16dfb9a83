"""Updates by the mean of the domains' gradients, masked where the domains disagree on its sign."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers

TINY = 1e-10


class MaskedGradients(Algorithm):
    """For each parameter tensor: ``mask ⊙ mean_e g_e / (10⁻¹⁰ + mean(mask))``, then a step of Adam."""

    needs_domains = 2

    @abstractmethod
    def mask(self, gradients: Tensor) -> Tensor:
        """Mask of a parameter from the domains' gradients, ``(E, ...)``: ``(...)``, values in [0, 1]."""

    @override
    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        risks, by_domain = [], []
        for domain in batch.domain_batches():
            risk = F.cross_entropy(self(domain.inputs), domain.targets)
            self.zero_grad()
            self.backward(risk)
            risks.append(risk.detach())
            by_domain.append([parameter.grad for parameter in parameters])
        self.zero_grad()
        for parameter, gradients in zip(parameters, zip(*by_domain, strict=True), strict=True):
            if all(gradient is not None for gradient in gradients):
                stacked = torch.stack(list(gradients))
                mask = self.mask(stacked)
                parameter.grad = mask * stacked.mean(0) / (TINY + mask.mean())
        optimizers["main"].step()
        return {"loss": torch.stack(risks).mean()}


def agreement(gradients: Tensor) -> Tensor:
    """``|mean_e sign g_e|``: 1 where all domains agree."""
    return gradients.sign().mean(0).abs()
