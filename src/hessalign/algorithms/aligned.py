"""Algorithms that align head gradients and Hessians, in the convention of the published DomainBed code."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies, head_derivatives
from hessalign.algorithms.hparams import Fixed, HParams, LogUniform, hparam
from hessalign.alignment import HessianAlignment
from hessalign.alignment.penalty import Method
from hessalign.head import HeadDerivatives
from hessalign.head.derivatives import without_autocast


class AlignedHParams(HParams):
    """Batch sizes as the paper's code draws them, from exponents of at least 4 where DomainBed begins at 3.

    Attributes:
        batch_size: Samples of each domain in a batch.
    """

    batch_size: int = hparam(
        32,
        LogUniform(4, 5.5, base=2, whole=True),
        small=(64, LogUniform(4, 9, base=2, whole=True)),
        domain_net=(32, LogUniform(4, 5, base=2, whole=True)),
        features=(32, Fixed(32)),
        at_least=1,
    )
    unbiased_samples: ClassVar[int] = 2
    """Of each domain, without which U-statistics are not defined."""
    later: ClassVar[tuple[str, ...]] = ("unbiased", "centre")
    """Fields that the first edition did not have: at their defaults they are not written down, so that its
    runs keep their identity."""

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in written.items()
            if name not in self.later or value != fields[name].default
        }

    @model_validator(mode="after")
    def _batches_that_unbiased_statistics_need(self) -> Self:
        if getattr(self, "unbiased", False) and self.batch_size < self.unbiased_samples:
            raise ValueError(
                f"batch_size: with unbiased=true at least {self.unbiased_samples} samples of each domain are "
                f"needed, got {self.batch_size}"
            )
        return self


class ExactHParams(AlignedHParams):
    """Hyper-parameters of ExactDiagonal and ExactHessian.

    Attributes:
        alpha: Weight of the Hessian distance.
        beta: Weight of the gradient distance.
        unbiased: U-statistics, whose expected value does not depend on the batch size. Needs 2 samples of
            each domain in a batch.
    """

    alpha: float = hparam(1e-3, LogUniform(-4, 4), reference_name="penalty_alpha")
    beta: float = hparam(5e-3, LogUniform(-3, 6), reference_name="penalty_beta")
    unbiased: bool = False


class AlignedHead(Algorithm):
    """``mean_e R_e + (1/E) Σ_e [α · Hessian distance of e + β ‖G_e − sg(Ḡ)‖²]``.

    From the first step on where no wait is named. With one source domain the distances are 0. Gradients
    flow to head and backbone, not through the centres.

    Reported beside the loss: ``gradient`` and ``hessian``, the two terms of the penalty without weights,
    as means over the source domains, and ``gradient_0``, ``hessian_0`` ... of each of them.
    """

    needs_domains = 2
    penalty_weights = ("alpha", "beta")
    batched: ClassVar[tuple[str, ...] | None] = ("alpha", "beta")

    @abstractmethod
    def alignment(self) -> HessianAlignment:
        """The penalty with its weights."""

    @override
    def build(self) -> None:
        self.penalty = self.alignment()  # which checks the hyper-parameters

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        features = self.domain_features(batch)
        logits = self.head(features)
        risk = cross_entropies(logits, batch).mean()
        # Mixed precision would round the differences of Hessians away.
        with without_autocast(features.device):
            penalty, terms = self.head_penalty(head_derivatives(features, logits, batch))
        return risk + penalty, {"risk": risk.detach(), "penalty": penalty.detach(), **_by_name(terms)}

    def head_penalty(self, domains: Sequence[HeadDerivatives]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What is added to the risk, and its terms of each domain without weights, detached."""
        penalty = self.alignment()
        # Runs that are trained together have tensors for weights; which of them are 0 all have in common.
        for name in ("alpha", "beta"):
            if getattr(self.penalty, name) == 0:
                setattr(penalty, name, 0.0)
        return penalty.evaluate(domains)


class ExactAlignment(AlignedHead):
    """The search space is ours.

    It reaches from where the penalty is as good as absent, the default in it, to the upper end of
    Hutchinson's.
    """

    hparams_class = ExactHParams
    hparams: ExactHParams
    method: ClassVar[Method]

    @override
    def alignment(self) -> HessianAlignment:
        return HessianAlignment(
            self.method, self.hparams.alpha, self.hparams.beta, unbiased=self.hparams.unbiased
        )


def _by_name(terms: Mapping[str, Tensor]) -> Metrics:
    """Mean over domains, and value of each domain, of every term."""
    metrics = {}
    for name, distances in terms.items():
        metrics[name] = distances.mean()
        for domain, distance in enumerate(distances.unbind()):
            metrics[f"{name}_{domain}"] = distance
    return metrics
