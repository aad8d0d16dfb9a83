"""Group distributionally robust optimisation (Sagawa, Koh, Hashimoto and Liang, ICLR 2020)."""

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies, register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam


class GroupDROHParams(HParams):
    """Hyper-parameters of GroupDRO.

    Attributes:
        eta: Rate at which the weights follow the risks.
    """

    eta: float = hparam(1e-2, LogUniform(-3, -1), reference_name="groupdro_eta")


@register("group_dro", reference_name="GroupDRO")
class GroupDRO(Algorithm):
    """``Σ_e q_e R_e`` with ``q_e ← q_e exp(η sg(R_e))``, normalised: the worst domains weigh most."""

    hparams_class = GroupDROHParams
    hparams: GroupDROHParams
    needs_domains = 2
    weights: Tensor
    batched = ("eta",)

    @override
    def build(self) -> None:
        self.register_buffer("weights", torch.ones(self.domains))

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        risks = cross_entropies(self.head(self.domain_features(batch)), batch)
        raised = self.weights * (self.hparams.eta * risks.detach()).exp()
        self.weights = raised / raised.sum()
        # Not a matrix product, which mixed precision would round.
        return (self.weights * risks).sum(), {"risk": risks.mean().detach()}
