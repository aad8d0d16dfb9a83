"""Empirical risk minimisation (Vapnik, "Statistical Learning Theory", 1998)."""

from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies, register


@register("erm", reference_name="ERM")
class ERM(Algorithm):
    """``mean_e R_e``: cross-entropy over the pooled batch."""

    batched = ()

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        return cross_entropies(self(batch.inputs), batch).mean(), {}
