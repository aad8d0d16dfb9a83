"""What determines a restart, and so its result; and which restarts a table needs."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["balanced", "script", "text"]
SOURCE_IMAGES = 50_000
"""Images of both source domains together."""

Hutchinson = Literal["expected", "sampled", "expected-sampled-steps", "sampled-expected-steps"]
"""Probes in expectation or drawn; the last two follow the gradient of the one in steps sized by the other."""

PLAIN_HUTCHINSON: tuple[Hutchinson, ...] = ("expected", "sampled")
"""Those that ``hessalign cmnist`` runs; it reads records of all."""

Alignment = Literal["gradient", "hgp", "hutchinson", "diagonal", "frobenius", "spectral"]


@dataclass(frozen=True)
class Method:
    """A row of a table; its penalty is made in ``methods``.

    Attributes:
        label: Name as the paper prints it.
        alignment: Method of [HessianAlignment][hessalign.HessianAlignment]; None where it is none.
        gradients: Whether an alignment has its gradient distance, β = 1, or β = 0.
        hessians: Whether it has its Hessian distance.
        flat: Which elements of the Hessians are made small besides.
    """

    label: str
    alignment: Alignment | None = None
    gradients: bool = True
    hessians: bool = True
    flat: Literal["whole", "off_diagonal"] | None = None

    @property
    def uses_probes(self) -> bool:
        """Whether the number of Hutchinson probes matters."""
        return self.alignment == "hutchinson"

    @property
    def uses_alpha(self) -> bool:
        """Whether there is a Hessian distance, whose weight matters."""
        return self.alignment not in {None, "gradient"} and self.hessians

    @property
    def uses_gamma(self) -> bool:
        """Whether there is a flatness penalty, whose weight matters."""
        return self.flat is not None


def _hessian_methods(alignment: Alignment, label: str) -> dict[str, Method]:
    """An alignment with both distances, and with one of them switched off."""
    return {
        alignment: Method(label, alignment),
        f"{alignment}-alpha0": Method(f"{label} (α = 0)", alignment, hessians=False),
        f"{alignment}-beta0": Method(f"{label} (β = 0)", alignment, gradients=False),
    }


def _flat_methods(alignment: Alignment, label: str) -> dict[str, Method]:
    """An alignment with both distances, beside a flat head: the whole Hessian, and its off-diagonal."""
    return {
        f"{alignment}-flat": Method(f"{label} + flat head", alignment, flat="whole"),
        f"{alignment}-flat-off": Method(f"{label} + flat head, off-diagonal", alignment, flat="off_diagonal"),
    }


METHODS: dict[str, Method] = {
    "erm": Method("ERM"),
    "irm": Method("IRM"),
    "vrex": Method("V-REx"),
    "fishr": Method("Fishr"),
    **_hessian_methods("hgp", "HGP"),
    **_hessian_methods("hutchinson", "Hutchinson"),
    "gradient": Method("Gradient", "gradient"),
    **_hessian_methods("diagonal", "Exact diagonal"),
    **_hessian_methods("frobenius", "Exact Hessian"),
    **_hessian_methods("spectral", "Exact Hessian, spectral norm"),
    **_flat_methods("gradient", "Gradient"),
    **_flat_methods("diagonal", "Exact diagonal"),
    **_flat_methods("frobenius", "Exact Hessian"),
}
"""The rows of the tables and of the study, by name."""

# All images, with a sixth of the hidden units and two fifths of the steps: a restart takes a twentieth of the
# time, and the network still cannot memorise the label noise, which fewer images would let it do (half of
# them took plain training to 23 % target accuracy). A narrow network needs larger steps to get as far, and
# more Hutchinson probes: with 150 their noise term keeps its few features from growing at all (50 %).
FAST_HIDDEN = 64
FAST_STEPS = 211
"""Steps of a restart of ``--fast``."""
FAST_LEARNING_RATE_FACTOR = 4.0
FAST_PROBES = 2000
"""Probes of Hutchinson in the reduced network of ``--fast``."""
FAST_METHODS = ("erm", "hgp", "hutchinson", "diagonal", "frobenius")
"""Methods of ``--fast``."""
TABLE_METHODS = ("erm", "irm", "vrex", "fishr", "hgp", "hutchinson")
"""Methods of the paper's tables; their rows of one term alone have names of their own."""

PUBLISHED_STEPS = 501
"""Steps of a restart."""
PUBLISHED_ANNEAL_STEP = 190
"""Step from which on the penalty has its full weight."""
PUBLISHED_PROBES: dict[Split, int] = {"balanced": 150, "script": 200, "text": 200}
"""Probes of Hutchinson, by the split of the domains."""


class Setting(BaseModel):
    """The experiment that all rows of a table share. The defaults are the published values.

    Attributes:
        split: How images are dealt to the source domains.
        steps: Evaluations of the full-batch loss; the accuracies of the last one count, as published, so
            ``steps − 1`` updates precede them.
        anneal_step: First step with the full penalty weight; the weight is 1 before.
        hidden: Width of both hidden layers.
        learning_rate: Adam's, the same throughout.
        weight_norm: Coefficient of ``Σ‖w‖²`` over all parameters.
        penalty_weight: ``λ`` from ``anneal_step`` on, where the whole loss is divided by it.
        fresh_optimizer: Whether Adam forgets its running averages when the full weight sets in, as it does
            for DomainBed's IRM. The published script lets it go on: once the loss is divided by ``λ``, the
            mean squares of the earlier gradients keep its steps small.
        subsample: Source images in all, the first of the shuffled 50,000; None for all of them. They are
            dealt to the domains as the whole is. The target keeps its 10,000 images.

    Examples:
        >>> from hessalign.experiments.colored_mnist import Setting
        >>> Setting().steps, Setting().hidden, Setting(split="script").split
        (501, 390, 'script')
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
        seed: From which data, initial weights and probes are drawn.
        probes: Hutchinson probes for each estimate; None where the method has none.
        hutchinson: Whether the probes are drawn, or their expectation is taken in closed form, or the one is
            followed in steps that are sized by the other.
        alpha: Weight of the Hessian distance beside that of the gradient distance, 1 as published; stays at 1
            where the method has none.
        gamma: Weight of the flatness penalty, likewise; None where the method has none.

    Examples:
        >>> from hessalign.experiments.colored_mnist import RestartSpec
        >>> spec = RestartSpec(method="hgp", seed=3)
        >>> spec.configuration().seed, spec.setting().steps
        (0, 501)
        >>> spec.identity() == RestartSpec(method="hgp", seed=3, alpha=1.0).identity()
        True
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

    def identity(self) -> str:
        """Short hash of everything that is not at its default: a setting added later keeps old identities."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:12]


def fast_setting(split: Split) -> Setting:
    """A reduced setting that keeps the ranking of the methods.

    Returns:
        The setting.

    Examples:
        >>> from hessalign.experiments.colored_mnist import Setting, fast_setting
        >>> fast_setting("balanced").hidden < Setting().hidden
        True
    """
    published = Setting(split=split)
    learning_rate = FAST_LEARNING_RATE_FACTOR * published.learning_rate
    reduced = published.model_copy(update={"hidden": FAST_HIDDEN, "learning_rate": learning_rate})
    return reduced.with_steps(FAST_STEPS)


def describe_reduction(setting: Setting, probes: int | None = None) -> str | None:
    """How a setting differs from the published one, in words; None where it does not.

    Args:
        setting: What all restarts share.
        probes: Number of Hutchinson probes for each estimate; None where no method has any.

    Returns:
        The differences, in a list with commas; None where there is none.

    Examples:
        >>> from hessalign.experiments.colored_mnist import Setting, describe_reduction
        >>> describe_reduction(Setting(steps=100))
        'steps 100 instead of 501'
        >>> describe_reduction(Setting()) is None
        True
    """
    published = Setting(split=setting.split)
    published_probes = PUBLISHED_PROBES[setting.split]
    changes = [
        f"{name.replace('_', ' ')} {value:.4g} instead of {getattr(published, name):.4g}"
        for name, value in setting
        if value != getattr(published, name) and name not in ("fresh_optimizer", "subsample")
    ]
    if setting.fresh_optimizer:
        changes.append("fresh optimizer")
    if setting.subsample is not None:
        changes.append(f"{setting.subsample} source images instead of {SOURCE_IMAGES}")
    if probes is not None and probes != published_probes:
        changes.append(f"Hutchinson probes {probes} instead of {published_probes}")
    return ", ".join(changes) or None


def plan_restarts(
    setting: Setting,
    methods: Iterable[str],
    seeds: Iterable[int],
    probes: int,
    hutchinson: Hutchinson = "expected",
    alpha: float = 1.0,
    gamma: float | None = None,
) -> list[RestartSpec]:
    """The restarts of a table, seed by seed, so that an unfinished table has all methods.

    Args:
        setting: What all restarts share.
        methods: Keys of ``METHODS``.
        seeds: One for each restart of a method.
        probes: Number of Hutchinson probes for each estimate.
        hutchinson: Variant of the Hutchinson methods.
        alpha: Weight of the Hessian distance of the methods that have one.
        gamma: Weight of the flatness of the methods that have it; ``2 / probes`` where it is None.

    Returns:
        One spec for each seed and method.

    Examples:
        >>> from hessalign.experiments.colored_mnist import Setting, plan_restarts
        >>> specs = plan_restarts(Setting(), ["erm", "hgp"], seeds=range(2), probes=100)
        >>> [(spec.method, spec.seed) for spec in specs]
        [('erm', 0), ('hgp', 0), ('erm', 1), ('hgp', 1)]
    """
    names = list(methods)
    weight = implied_gamma(probes) if gamma is None else gamma
    return [
        RestartSpec(
            **dict(setting),
            method=name,
            seed=seed,
            probes=probes if METHODS[name].uses_probes else None,
            hutchinson=hutchinson if METHODS[name].uses_probes else "expected",
            alpha=alpha if METHODS[name].uses_alpha else 1.0,
            gamma=weight if METHODS[name].uses_gamma else None,
        )
        for seed in seeds
        for name in names
    ]


def implied_gamma(probes: int) -> float:
    """Weight of the off-diagonal flatness that ``k`` probes amount to where Hessians agree, ``2/k``.

    Two, because both a domain's estimate and that of the mean are noisy
    (see ``hessalign.alignment.flatness``).

    Returns:
        The weight.

    Examples:
        >>> from hessalign.experiments.colored_mnist import implied_gamma
        >>> implied_gamma(100)
        0.02
    """
    return 2 / probes
