"""Empirical risk minimisation (Vapnik, "Statistical Learning Theory", 1998)."""

from torch import Tensor

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies, register
from hessalign.algorithms.hparams import HParams


@register("erm", reference_name="ERM")
class ERM(Algorithm):
    """``mean_e R_e``: cross-entropy over the pooled batch."""

    @classmethod
    def batched_hparams(cls, hparams: HParams) -> tuple[str, ...] | None:
        """See the base class."""
        return ()

    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        """See the class."""
        return cross_entropies(self(batch.inputs), batch).mean(), {}
