"""Which restarts a table needs."""

from collections.abc import Iterable

from hessalign.experiments import colored_mnist
from hessalign.experiments.colored_mnist.config import (
    PUBLISHED_PROBES,
    SOURCE_IMAGES,
    Hutchinson,
    RestartSpec,
    Setting,
    Split,
)

# All images and the published schedule, with a sixth of the hidden units: a restart takes a tenth of the
# time, and the network still cannot memorise the label noise, which fewer images would let it do. A narrow
# network needs larger steps to get as far, and more Hutchinson probes: with 150 their noise term keeps its
# few features from growing at all (50 % target accuracy).
FAST_HIDDEN = 64
FAST_LEARNING_RATE_FACTOR = 4.0
FAST_PROBES = 2000
FAST_METHODS = ("erm", "hgp", "hutchinson", "diagonal", "frobenius")
TABLE_METHODS = ("erm", "irm", "vrex", "fishr", "hgp", "hutchinson")


def fast_setting(split: Split) -> Setting:
    """A reduced setting that keeps the ranking of the methods."""
    published = Setting(split=split)
    learning_rate = FAST_LEARNING_RATE_FACTOR * published.learning_rate
    return published.model_copy(update={"hidden": FAST_HIDDEN, "learning_rate": learning_rate})


def describe_reduction(setting: Setting, probes: int | None = None) -> str | None:
    """How a setting differs from the published one, in words; None where it does not.

    Args:
        setting: What all restarts share.
        probes: Of the Hutchinson methods; None where they are no part of it.
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
        probes: Of the Hutchinson methods.
        hutchinson: Form of the Hutchinson methods.
        alpha: Weight of the Hessian distance of the methods that have one.
        gamma: Weight of the flatness of the methods that have it; ``2 / probes`` where it is None.
    """
    names = list(methods)
    weight = implied_gamma(probes) if gamma is None else gamma
    return [
        RestartSpec(
            **dict(setting),
            method=name,
            seed=seed,
            probes=probes if colored_mnist.METHODS[name].uses_probes else None,
            hutchinson=hutchinson if colored_mnist.METHODS[name].uses_probes else "expected",
            alpha=alpha if colored_mnist.METHODS[name].uses_alpha else 1.0,
            gamma=weight if colored_mnist.METHODS[name].uses_gamma else None,
        )
        for seed in seeds
        for name in names
    ]


def implied_gamma(probes: int) -> float:
    """Weight of the off-diagonal flatness that ``k`` probes amount to where Hessians agree, ``2/k``.

    Two, because both a domain's estimate and that of the mean are noisy
    (see [hessalign.alignment.flatness][]).
    """
    return 2 / probes
