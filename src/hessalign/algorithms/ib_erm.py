"""Information bottleneck ERM (Ahuja et al., "Invariance Principle", NeurIPS 2021)."""

from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.annealed import AnnealedHParams, AnnealedPenalty
from hessalign.algorithms.base import DomainBatch, register
from hessalign.algorithms.hparams import LogUniform, hparam
from hessalign.head.derivatives import at_least_single


class IBERMHParams(AnnealedHParams):
    """Hyper-parameters of IB-ERM.

    Attributes:
        penalty_weight: Weight of the penalty after annealing; 0 before.
        anneal_steps: Steps before the weight sets in.
    """

    penalty_weight: float = hparam(1e2, LogUniform(-1, 5), reference_name="ib_lambda")
    anneal_steps: int = hparam(500, LogUniform(0, 4, whole=True), reference_name="ib_penalty_anneal_iters")


@register("ib_erm", reference_name="IB_ERM")
class IBERM(AnnealedPenalty):
    """``mean_e R_e + w mean_e mean_k Var_e(z_k)``, unbiased variances of each domain's features."""

    hparams_class = IBERMHParams
    hparams: IBERMHParams
    weight_before = 0.0
    needs_samples = 2
    needs_trainable_backbone = True

    @override
    def penalty(self, features: Tensor, logits: Tensor, risks: Tensor, batch: DomainBatch) -> Tensor:
        return feature_variance(features, batch)


def feature_variance(features: Tensor, batch: DomainBatch) -> Tensor:
    """Mean over domains and features of the features' unbiased variance within a domain."""
    return at_least_single(features).view(batch.domain_count, -1, features.shape[1]).var(1).mean()
