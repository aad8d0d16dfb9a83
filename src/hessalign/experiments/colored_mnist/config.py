"""What determines a restart, and so its result."""

import hashlib
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["balanced", "script", "text"]
SOURCE_IMAGES = 50_000

Hutchinson = Literal["expected", "sampled", "expected-sampled-steps", "sampled-expected-steps"]
"""Probes in expectation or drawn; the last two follow the gradient of the one in steps sized by the other."""

_FORMS: dict[Hutchinson, tuple[Hutchinson, Hutchinson]] = {
    "expected": ("expected", "expected"),
    "sampled": ("sampled", "sampled"),
    "expected-sampled-steps": ("expected", "sampled"),
    "sampled-expected-steps": ("sampled", "expected"),
}

METHOD_NAMES = (
    "erm",
    "irm",
    "vrex",
    "fishr",
    "hgp",
    "hgp-alpha0",
    "hgp-beta0",
    "hutchinson",
    "hutchinson-alpha0",
    "hutchinson-beta0",
    "gradient",
    "diagonal",
    "diagonal-alpha0",
    "diagonal-beta0",
    "frobenius",
    "frobenius-alpha0",
    "frobenius-beta0",
    "spectral",
    "spectral-alpha0",
    "spectral-beta0",
    "gradient-flat",
    "gradient-flat-off",
    "diagonal-flat",
    "diagonal-flat-off",
    "frobenius-flat",
    "frobenius-flat-off",
)
"""Keys of ``METHODS``, for those who do not wait for PyTorch."""

PUBLISHED_STEPS = 501
PUBLISHED_ANNEAL_STEP = 190
PUBLISHED_PROBES: dict[Split, int] = {"balanced": 150, "script": 200, "text": 200}


class Setting(BaseModel):
    """The experiment that all rows of a table share. The defaults are the published values.

    Attributes:
        split: How images are dealt to the source domains.
        steps: Evaluations of the full-batch loss; the accuracies of the last one count, as published, so
            ``steps − 1`` updates precede them.
        anneal_step: First step with the full penalty weight; the weight is 1 before.
        hidden: Width of both hidden layers.
        learning_rate: Of Adam.
        weight_norm: Coefficient of ``Σ‖w‖²`` over all parameters.
        penalty_weight: ``λ`` from ``anneal_step`` on, where the whole loss is divided by it.
        fresh_optimizer: Whether Adam forgets its running averages when the full weight sets in, as it does
            for DomainBed's IRM. The published script lets it go on: once the loss is divided by ``λ``, the
            mean squares of the earlier gradients keep its steps small.
        subsample: Source images in all, the first of the shuffled 50,000; None for all of them. They are
            dealt to the domains as the whole is. The target keeps its 10,000 images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Split = "balanced"
    steps: int = Field(PUBLISHED_STEPS, ge=1)
    anneal_step: int = Field(PUBLISHED_ANNEAL_STEP, ge=0)
    hidden: int = Field(390, ge=1)
    learning_rate: float = Field(0.0004898536566546834, gt=0)
    weight_norm: float = Field(0.00110794568, ge=0)
    penalty_weight: float = Field(91257.18613115903, ge=1)
    fresh_optimizer: bool = False
    subsample: int | None = Field(None, ge=100, le=SOURCE_IMAGES)

    def with_steps(self, steps: int) -> "Setting":
        """The same setting over another number of steps, annealed after the same part of them."""
        anneal_step = round(steps * self.anneal_step / self.steps)
        return self.model_copy(update={"steps": steps, "anneal_step": anneal_step})

    def with_published_schedule(self) -> Self:
        """The same setting with the published anneal step, penalty weight and optimizer for as many steps."""
        published = Setting().with_steps(self.steps)
        schedule = ("anneal_step", "penalty_weight", "fresh_optimizer")
        return self.model_copy(update={name: getattr(published, name) for name in schedule})


class RestartSpec(Setting):
    """One restart: a setting, a method and a seed. Equal specs give equal results on one machine.

    Attributes:
        method: A key of ``METHODS``.
        seed: Of data, initial weights and probes.
        probes: Hutchinson probes for each estimate; None where the method has none.
        hutchinson: Whether the probes are drawn, or their expectation is taken in closed form, or the one is
            followed in steps that are sized by the other.
        alpha: Weight of the Hessian distance beside that of the gradient distance, 1 as published; stays at 1
            where the method has none.
        gamma: Weight of the flatness penalty, likewise; None where the method has none.
    """

    method: str
    seed: int = Field(ge=0)
    probes: int | None = Field(None, ge=1)
    hutchinson: Hutchinson = "expected"
    alpha: float = Field(1.0, ge=0, allow_inf_nan=False)
    gamma: float | None = Field(None, ge=0, allow_inf_nan=False)

    def setting(self) -> Setting:
        """What all rows of the restart's table share."""
        return Setting(**{name: getattr(self, name) for name in Setting.model_fields})

    def configuration(self) -> "RestartSpec":
        """What the restarts of one row share: the same restart with seed 0."""
        return self.model_copy(update={"seed": 0})

    def hutchinson_forms(self) -> tuple["RestartSpec", "RestartSpec"]:
        """This restart in the form whose gradient is followed, and in the one that sizes the steps."""
        followed, sizing = _FORMS[self.hutchinson]
        return (
            self.model_copy(update={"hutchinson": followed}),
            self.model_copy(update={"hutchinson": sizing}),
        )

    def identity(self) -> str:
        """Short hash of everything that is not at its default: a setting added later keeps old identities."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:12]
