"""Risk extrapolation (Krueger et al., "Out-of-Distribution Generalization via REx", ICML 2021)."""

from torch import Tensor

from hessalign.algorithms.annealed import AnnealedHParams, AnnealedPenalty
from hessalign.algorithms.base import DomainBatch, register
from hessalign.algorithms.hparams import LogUniform, hparam


class VRExHParams(AnnealedHParams):
    """Hyper-parameters of V-REx.

    Attributes:
        penalty_weight: Weight of the penalty after annealing; 1 before.
        anneal_steps: Steps before the weight sets in.
    """

    penalty_weight: float = hparam(1e1, LogUniform(-1, 5), reference_name="vrex_lambda")
    anneal_steps: int = hparam(500, LogUniform(0, 4, whole=True), reference_name="vrex_penalty_anneal_iters")


@register("vrex", reference_name="VREx")
class VREx(AnnealedPenalty):
    """``mean_e R_e + w (1/E) Σ_e (R_e − R̄)²``."""

    hparams_class = VRExHParams
    hparams: VRExHParams
    needs_domains = 2

    def penalty(self, features: Tensor, logits: Tensor, risks: Tensor, batch: DomainBatch) -> Tensor:
        """Population variance of the domains' risks."""
        return risks.var(unbiased=False)
