"""Risk distribution matching (Nguyen, Do, Duong and Nguyen, WACV 2024)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, register
from hessalign.algorithms.hparams import Fixed, HParams, LogUniform, Uniform, hparam
from hessalign.algorithms.mmd import BANDWIDTHS, kernels
from hessalign.algorithms.pairwise import means_of_domains
from hessalign.head.derivatives import precise_type


class RDMHParams(HParams):
    """Hyper-parameters of RDM.

    Attributes:
        penalty_weight: Weight ``λ`` of the distance of distributions after annealing; 0 before.
        variance_weight: Weight ``v`` of the losses' variances after annealing; 0 before.
        anneal_steps: Steps before both weights set in.
        late_lr: Learning rate of the Adam that begins anew with the first step that has a penalty.
        batch_size: Samples of each domain in a batch; more than other algorithms have.
    """

    penalty_weight: float = hparam(
        5.0, Uniform(0.1, 10.0), domain_net=(0.5, Uniform(0.1, 1.0)), reference_name="rdm_lambda"
    )
    variance_weight: float = hparam(0.004, Uniform(0.001, 0.007), domain_net=(0.0, Fixed(0.0)))
    anneal_steps: int = hparam(
        1500,
        Uniform(800, 2700, whole=True),
        domain_net=(2400, Uniform(1500, 3000, whole=True)),
        reference_name="rdm_penalty_anneal_iters",
    )
    late_lr: float = hparam(
        1.5e-5, Uniform(8e-6, 2e-5), features=(3e-4, Uniform(1.6e-4, 4e-4)), reference_name="rdm_lr"
    )
    batch_size: int = hparam(
        88,
        Uniform(70, 100, whole=True),
        small=(64, LogUniform(3, 9, base=2, whole=True)),
        domain_net=(40, Uniform(30, 60, whole=True)),
        features=(32, Fixed(32)),
        at_least=1,
    )


@register("rdm", reference_name="RDM")
class RDM(Algorithm):
    """``mean_e R_e + w_t [λ MMD²(ℓ_worst, ℓ) + v (Var ℓ + Var ℓ_worst)]``, ``w_t`` 0 at first, then 1.

    ``ℓ`` are the losses of all samples, ``ℓ_worst`` those of the domain with the largest mean. The squared
    MMD is that of eight Gaussian kernels ``exp(−g (a − b)²)``, ``g`` from 10⁻⁴ to 10³, a sample with itself
    included; variances are unbiased. Adam begins anew with the first step that has a penalty.
    """

    hparams_class = RDMHParams
    hparams: RDMHParams
    batched = ("penalty_weight", "variance_weight", "anneal_steps", "late_lr")
    sets_in = (("anneal_steps", "the penalty"),)
    needs_domains = 2
    needs_samples = 2
    penalty_weights = ("penalty_weight", "variance_weight")

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        losses = F.cross_entropy(self(batch.inputs), batch.targets, reduction="none")
        risk = losses.view(batch.domain_count, -1).mean()
        distance, variance = self._terms(losses, batch)
        penalty = self.hparams.penalty_weight * distance + self.hparams.variance_weight * variance
        started = self.steps_done >= self.hparams.anneal_steps
        if isinstance(started, Tensor):
            loss = torch.where(started, risk + penalty, risk)
        else:
            loss = risk + penalty if started else risk
        return loss, {
            "risk": risk.detach(),
            "penalty": penalty.detach(),
            "distance": distance.detach(),
            "variance": variance.detach(),
        }

    @override
    def resets_optimizer(self) -> bool | Tensor:
        return (self.hparams.anneal_steps == self.steps_done) & (self.domains > 1)

    @override
    def lr_from_now(self) -> float | Tensor:
        return self.hparams.late_lr

    def _terms(self, losses: Tensor, batch: DomainBatch) -> tuple[Tensor, Tensor]:
        """Squared distance of the distributions, and sum of the variances, without weights."""
        if batch.domain_count == 1:
            return losses.new_zeros(()), losses.new_zeros(())
        values = losses.to(precise_type(losses))
        by_domain = values.view(batch.domain_count, -1)
        worst = by_domain.detach().mean(1).argmax().reshape(1)
        similarity = means_of_domains(
            kernels((values.unsqueeze(1) - values).square(), (1e-4, *BANDWIDTHS)), batch.domain_count
        )
        of_worst = similarity.index_select(0, worst)
        distance = of_worst.index_select(1, worst).mean() + similarity.mean() - 2 * of_worst.mean()
        variance = values.var() + by_domain.index_select(0, worst).var()
        return distance.to(losses), variance.to(losses)
