r"""Sweeps that explain the table: one question each, on the published setting or a reduced one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

from hessalign.experiments.colored_mnist import (
    PUBLISHED_ANNEAL_STEP,
    PUBLISHED_STEPS,
    Hutchinson,
    RestartSpec,
    Setting,
    Split,
    fast_setting,
    implied_gamma,
    plan_restarts,
)

PROBE_FACTORS = (1 / 10, 1 / 3, 1, 10 / 3)
"""Times the number of probes of the table: 15, 50, 150 and 500 for Table 7."""

ALPHAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
STRONGER_ALPHA = 10.0
PENALTY_WEIGHT_DIVISORS = (1, 3, 10)
"""Of the published weight, with an optimizer that starts afresh."""


@dataclass(frozen=True)
class Study:
    """One sweep.

    Attributes:
        question: What it answers.
        plan: The configurations in a setting with the table's number of probes, as restarts with seed 0.
    """

    question: str
    plan: Callable[[Setting, int], list[RestartSpec]]


def reduced_setting(split: Split) -> Setting:
    """The network of ``hessalign cmnist --fast``, over as many steps as published."""
    schedule = {"steps": PUBLISHED_STEPS, "anneal_step": PUBLISHED_ANNEAL_STEP}
    return fast_setting(split).model_copy(update=schedule)


def plan_study(name: str, setting: Setting, probes: int, seeds: Iterable[int]) -> list[RestartSpec]:
    """The restarts of a study, seed by seed, so that an unfinished one has all configurations.

    Args:
        name: A key of ``STUDIES``.
        setting: What the study starts from.
        probes: Number of Hutchinson probes in the table that the study explains.
        seeds: One for each restart of a configuration.

    Returns:
        One spec for each configuration and seed.
    """
    configurations = STUDIES[name].plan(setting, probes)
    return [spec.model_copy(update={"seed": seed}) for seed in seeds for spec in configurations]


def _variants(setting: Setting, probes: int) -> list[RestartSpec]:
    """The table's number of probes drawn, in expectation, and as the penalties that they amount to."""
    methods = ["hutchinson", "gradient", "diagonal", "gradient-flat-off", "diagonal-flat-off"]
    return [
        *plan_restarts(setting, ["hutchinson"], [0], probes, "sampled"),
        *plan_restarts(setting, methods, [0], probes),
    ]


def _steps(setting: Setting, probes: int) -> list[RestartSpec]:
    """Drawn probes and their expectation, each in steps that its own gradient sizes, or the other's."""
    return [
        spec
        for variant in get_args(Hutchinson)
        for spec in plan_restarts(setting, ["hutchinson"], [0], probes, variant)
    ]


def _probes(setting: Setting, probes: int) -> list[RestartSpec]:
    """The expectation over fewer and more probes, and over infinitely many."""
    specs = [spec for k in _around(probes) for spec in plan_restarts(setting, ["hutchinson"], [0], k)]
    return [*specs, *plan_restarts(setting, ["diagonal"], [0], probes)]


def _alpha(setting: Setting, probes: int) -> list[RestartSpec]:
    """The Hessian distances alone, with other weights than the gradient distance has in the table."""
    methods = ["hgp-beta0", "hutchinson-beta0", "diagonal-beta0", "frobenius-beta0"]
    return [spec for a in ALPHAS for spec in plan_restarts(setting, methods, [0], probes, alpha=a)]


def _flatness(setting: Setting, probes: int) -> list[RestartSpec]:
    """Aligned gradients and a flat head, of the weights that the probes of the other study amount to."""
    methods = ["gradient-flat", "gradient-flat-off"]
    flat = [
        spec
        for k in reversed(_around(probes))
        for spec in plan_restarts(setting, methods, [0], k, gamma=implied_gamma(k))
    ]
    return [*plan_restarts(setting, ["gradient"], [0], probes), *flat]


def _exact(setting: Setting, probes: int) -> list[RestartSpec]:
    """The exact penalties, one of them stronger and one beside a flat head, each with four schedules."""
    afresh = [
        {"fresh_optimizer": True, "penalty_weight": setting.penalty_weight / divisor}
        for divisor in PENALTY_WEIGHT_DIVISORS
    ]
    specs = []
    for schedule in ({}, *afresh):
        scheduled = setting.model_copy(update=schedule)
        specs += plan_restarts(scheduled, ["gradient", "diagonal", "frobenius", "spectral"], [0], probes)
        specs += plan_restarts(scheduled, ["diagonal"], [0], probes, alpha=STRONGER_ALPHA)
        specs += plan_restarts(
            scheduled, ["diagonal-flat-off"], [0], probes, gamma=implied_gamma(_around(probes)[-1])
        )
    return specs


def _around(probes: int) -> list[int]:
    return [max(1, round(factor * probes)) for factor in PROBE_FACTORS]


STUDIES: dict[str, Study] = {
    "variants": Study(
        "Which variant of Hutchinson gives the paper's row, and what is it made of?", _variants
    ),
    "steps": Study("Does the probes' noise act by the way taken, or by Adam's step sizes?", _steps),
    "probes": Study("Is the probes' noise a regulariser of weight 1/k?", _probes),
    "alpha": Study("Do the β = 0 rows fail because α was tuned for another loss?", _alpha),
    "flatness": Study("What does a flat head do, with a weight of its own?", _flatness),
    "exact": Study("Which exact penalty and schedule is best, chosen without the target domain?", _exact),
}
