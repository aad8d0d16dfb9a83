"""Information bottleneck IRM (Ahuja et al., "Invariance Principle", NeurIPS 2021)."""

from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies, register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.algorithms.ib_erm import feature_variance
from hessalign.algorithms.irm import irm_penalty
from hessalign.loop import WeightSchedule


class IBIRMHParams(HParams):
    """Hyper-parameters of IB-IRM.

    Attributes:
        irm_weight: Weight of IRM's penalty after its annealing; 1 before.
        irm_anneal_steps: Steps before it sets in.
        ib_weight: Weight of the features' variance after its annealing; 0 before.
        ib_anneal_steps: Steps before it sets in.
    """

    irm_weight: float = hparam(1e2, LogUniform(-1, 5), reference_name="irm_lambda")
    irm_anneal_steps: int = hparam(
        500, LogUniform(0, 4, whole=True), reference_name="irm_penalty_anneal_iters"
    )
    ib_weight: float = hparam(1e2, LogUniform(-1, 5), reference_name="ib_lambda")
    ib_anneal_steps: int = hparam(500, LogUniform(0, 4, whole=True), reference_name="ib_penalty_anneal_iters")


@register("ib_irm", reference_name="IB_IRM")
class IBIRM(Algorithm):
    """``mean_e R_e + w_t mean_e g_e g′_e + v_t mean_e mean_k Var_e(z_k)``: IRM's penalty and IB-ERM's.

    Each weight jumps at a step of its own, and Adam begins anew at either.
    """

    hparams_class = IBIRMHParams
    hparams: IBIRMHParams
    batched = ("irm_weight", "irm_anneal_steps", "ib_weight", "ib_anneal_steps")
    sets_in = (
        ("irm_anneal_steps", "the full weight of IRM's penalty"),
        ("ib_anneal_steps", "the weight of the features' variance"),
    )
    needs_samples = 2
    penalty_weights = ("irm_weight", "ib_weight")

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        features = self.backbone(batch.inputs)
        logits = self.head(features)
        risk = cross_entropies(logits, batch).mean()
        irm, variance = irm_penalty(features, logits, batch), feature_variance(features, batch)
        weights = [schedule(self.steps_done) for schedule in self._schedules()]
        irm_weight, ib_weight = (
            weight.to(risk) if isinstance(weight, Tensor) else weight for weight in weights
        )
        penalty = irm_weight * irm + ib_weight * variance
        return risk + penalty, {
            "risk": risk.detach(),
            "penalty": penalty.detach(),
            "irm_penalty": irm.detach(),
            "ib_penalty": variance.detach(),
        }

    @override
    def no_effect(self) -> str | None:
        if self.hparams.ib_weight > 0 and not self.trains_features():
            return (
                "ib_weight: the variance of the features is theirs alone, and this backbone has nothing to "
                "train that could change it: ib_irm trains as irm does; on frozen features choose the "
                "backbone adapter:linear or adapter:mlp, or ib_weight=0"
            )
        return super().no_effect()

    @override
    def resets_optimizer(self) -> bool | Tensor:
        irm, variance = (schedule.resets(self.steps_done) for schedule in self._schedules())
        return irm | variance

    def _schedules(self) -> tuple[WeightSchedule, WeightSchedule]:
        hparams = self.hparams
        return (
            WeightSchedule(hparams.irm_weight, 1.0, hparams.irm_anneal_steps, reset_optimizer=True),
            WeightSchedule(hparams.ib_weight, 0.0, hparams.ib_anneal_steps, reset_optimizer=True),
        )
