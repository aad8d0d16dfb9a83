"""Inter-environmental gradient alignment (Koyama and Yamaguchi, 2020)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam


class IGAHParams(HParams):
    """Hyper-parameters of IGA.

    Attributes:
        penalty_weight: Weight ``λ`` of the penalty.
        variant: ``"paper"`` (default). ``"domainbed"``: the sum over domains instead of the mean.
    """

    penalty_weight: float = hparam(1000.0, LogUniform(1, 5), reference_name="penalty")
    variant: Literal["paper", "domainbed"] = "paper"


@register("iga", reference_name="IGA")
class IGA(Algorithm):
    """``mean_e R_e + λ mean_e ‖∇R_e − mean_f ∇R_f‖²``, gradients of the whole network.

    They are differentiated once more, so every layer of the backbone must have second derivatives. For the
    head alone that is the gradient's term of `hgp` and its kin, in closed form and without that cost:
    ``alpha=0``, ``beta`` for ``λ``.
    """

    hparams_class = IGAHParams
    hparams: IGAHParams
    needs_domains = 2
    penalty_weights = ("penalty_weight",)

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        risks, gradients = [], []
        for part in batch.domain_batches():
            risk = F.cross_entropy(self(part.inputs), part.targets)
            risks.append(risk)
            gradients.append(torch.autograd.grad(risk, parameters, create_graph=True, allow_unused=True))
        risk = torch.stack(risks).mean()
        penalty = risk.new_zeros(())
        for of_domains in zip(*gradients, strict=True):
            used = [gradient for gradient in of_domains if gradient is not None]
            if used:
                stacked = torch.stack(used)
                penalty = penalty + (stacked - stacked.mean(0)).square().sum()
        if self.hparams.variant == "paper":
            penalty = penalty / batch.domain_count
        return risk + self.hparams.penalty_weight * penalty, {
            "risk": risk.detach(),
            "penalty": penalty.detach(),
        }
