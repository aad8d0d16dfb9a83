"""An algorithm of one's own: minimise the risk of the worst source domain alone."""

from torch import Tensor

from hessalign.algorithms import Algorithm, DomainBatch, register
from hessalign.algorithms.base import cross_entropies


@register("worst_domain")
class WorstDomain(Algorithm):
    """``max_e R_e``."""

    def objective(self, batch: DomainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the domain where it is largest."""
        risks = cross_entropies(self(batch.inputs), batch)
        return risks.max(), {"mean_risk": risks.mean().detach()}
