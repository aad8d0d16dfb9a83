"""Spectral decoupling (Pezeshki et al., "Gradient Starvation", NeurIPS 2021)."""

from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies, register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.head.derivatives import at_least_single


class SDHParams(HParams):
    """Hyper-parameters of SD.

    Attributes:
        penalty_weight: Weight ``λ`` of the mean squared logit.
    """

    penalty_weight: float = hparam(0.1, LogUniform(-5, -1), reference_name="sd_reg")


@register("sd", reference_name="SD")
class SD(Algorithm):
    """``mean_e R_e + λ mean_ik a_ik²``, the mean squared logit over samples and classes."""

    hparams_class = SDHParams
    hparams: SDHParams
    batched = ("penalty_weight",)
    penalty_weights = ("penalty_weight",)

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        logits = self(batch.inputs)
        risk = cross_entropies(logits, batch).mean()
        penalty = at_least_single(logits).square().mean()
        return risk + self.hparams.penalty_weight * penalty, {
            "risk": risk.detach(),
            "penalty": penalty.detach(),
        }
