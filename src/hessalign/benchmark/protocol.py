"""DomainBed's protocol: which runs make a sweep (Gulrajani and Lopez-Paz, ICLR 2021, and their code)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hessalign.algorithms import Algorithm, algorithm_names, get_algorithm
from hessalign.algorithms.hparams import Value
from hessalign.algorithms.registry import registered_name
from hessalign.backbones import BackboneSpec
from hessalign.checks import did_you_mean
from hessalign.datasets import DomainDataset, seed_hash
from hessalign.datasets.base import SearchSpace, held_out_count
from hessalign.runs.records import check_evaluations
from hessalign.training import Recipe, RunSpec, check_algorithm, check_recipe, choose_backbone
from hessalign.training.batches import check_sizes

Targets = Literal["singles", "pairs", "both"]


class RunConfig(BaseModel):
    """What all runs of a sweep share, so that one table may hold them.

    Attributes:
        steps: Number of updates; None (default) for the dataset's.
        evaluate_every: Steps between evaluations; None (default) for the dataset's.
        evaluation_samples: Most samples of each split of each domain that are evaluated; None (default) for
            all.
        backbone: Its name; None (default) for the dataset's.
        weights: Its weights; None (default) as [choose_backbone][hessalign.training.choose_backbone] chooses.
        train_batch_norm: Let running statistics move even with pretrained weights.
        normalization: Whose mean and deviation photographs are normalised by, ``"imagenet"`` or
            ``"weights"``; None (default) for the backbone's default.
        holdout_fraction: Share of each domain that is kept out of training, default 0.2.
        validation_images: Whether source domains are evaluated on ``"plain"`` (default) or ``"augmented"``
            images, as DomainBed does.
        fixed: Hyper-parameters that are not drawn, by name; algorithms without one ignore it.
        recipe: How runs start, step and average beside their algorithms' rules; None (default) for the plain
            way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int | None = Field(None, ge=1)
    evaluate_every: int | None = Field(None, ge=1)
    evaluation_samples: int | None = Field(None, ge=1)
    backbone: str | None = None
    weights: str | None = None
    train_batch_norm: bool = False
    normalization: str | None = None
    holdout_fraction: float = Field(0.2, gt=0, lt=1)
    validation_images: Literal["plain", "augmented"] = "plain"
    fixed: dict[str, bool | int | float | str] = Field(default_factory=dict)
    recipe: Recipe | None = None


RunSettings = RunConfig
"""Its former name."""


class SweepSpec(BaseModel):
    """A sweep: every algorithm on every dataset, for every choice of target domains, trial and draw.

    Attributes:
        algorithms: Their names.
        trials: Number of trials; each splits the domains, and draws hyper-parameters, anew.
        hparams: Number of choices of hyper-parameters: the defaults, then random draws.
        targets: ``"singles"`` leaves out each domain in turn, ``"pairs"`` each pair, ``"both"`` (default)
            does both, which selection by leave-one-domain-out needs.
        config: What all runs share; also taken by its former name, ``settings``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithms: tuple[str, ...] = Field(min_length=1)
    trials: int = Field(3, ge=1)
    hparams: int = Field(20, ge=1)
    targets: Targets = "both"
    config: RunConfig = RunConfig()

    @model_validator(mode="before")
    @classmethod
    def _former_name(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "settings" not in values or "config" in values:
            return values
        return {"config" if name == "settings" else name: value for name, value in values.items()}

    @field_validator("algorithms")
    @classmethod
    def _one_spelling(cls, algorithms: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(registered_name, algorithms))

    def plan(self, dataset: DomainDataset) -> list[RunSpec]:
        """The runs on a dataset, trial by trial, in DomainBed's order.

        Args:
            dataset: All of its domains.

        Returns:
            What each run is.

        Raises:
            ValueError: If a name or a value is not allowed, an algorithm does not work on such data, or a
                domain is too small for a drawn batch size.
            OSError: If a weights file is missing.
        """
        algorithms = [get_algorithm(name) for name in self.algorithms]
        _check_fixed(self.config.fixed, algorithms)
        target_sets = choose_targets(len(dataset.domains), self.targets, dataset.name)
        backbone = cache(partial(self._backbone, dataset))  # a weights file is read once
        hparams = cache(partial(self._hparams, dataset))  # all target domains share them
        specs = [
            self._run(
                dataset,
                algorithm,
                targets,
                hparams_seed,
                trial_seed,
                hparams(algorithm, hparams_seed, trial_seed),
                backbone,
            )
            for trial_seed in range(self.trials)
            for algorithm in algorithms
            for targets in target_sets
            for hparams_seed in range(self.hparams)
        ]
        for spec in specs:
            spec.backbone.check_takes(dataset.input_shape)
            check_algorithm(spec.algorithm, spec.backbone.name, dataset.input_shape)
            if spec.recipe is not None:
                sources = len(dataset.domains) - len(spec.target_domains)
                check_recipe(spec.recipe, get_algorithm(spec.algorithm), sources)
            _check_batches(spec, dataset)
        check_evaluations(self.config.evaluate_every, specs[0].steps)
        for algorithm in algorithms:
            algorithm.hparams_class.check_read(algorithm.name, dataset.search_space, self.config.fixed)
        return specs

    def _backbone(self, dataset: DomainDataset, dropout: float) -> BackboneSpec:
        config = self.config
        return choose_backbone(
            dataset,
            config.backbone,
            config.weights,
            config.train_batch_norm,
            dropout,
            normalization=config.normalization,
        )

    def _hparams(
        self, dataset: DomainDataset, algorithm: type[Algorithm], hparams_seed: int, trial_seed: int
    ) -> dict[str, Any]:
        known = algorithm.hparams_class.model_fields
        fixed = {name: value for name, value in self.config.fixed.items() if name in known}
        return draw_hparams(algorithm, dataset.search_space, hparams_seed, trial_seed, fixed)

    def _run(
        self,
        dataset: DomainDataset,
        algorithm: type[Algorithm],
        targets: tuple[int, ...],
        hparams_seed: int,
        trial_seed: int,
        hparams: dict[str, Any],
        backbone: Callable[[float], BackboneSpec],
    ) -> RunSpec:
        config = self.config
        return RunSpec(
            dataset=dataset.name,
            data=dataset.fingerprint,
            algorithm=algorithm.name,
            target_domains=targets,
            backbone=backbone(hparams["dropout"]),
            hparams=hparams,
            hparams_seed=hparams_seed,
            seed=run_seed(type(dataset), algorithm, targets, hparams_seed, trial_seed),
            trial_seed=trial_seed,
            steps=config.steps or dataset.steps,
            evaluate_every=config.evaluate_every or dataset.checkpoint_every,
            holdout_fraction=config.holdout_fraction,
            validation_images=config.validation_images,
            evaluation_samples=config.evaluation_samples,
            recipe=config.recipe,
        )


def applicable_algorithms(dataset: DomainDataset, backbone: str | None = None) -> list[str]:
    """Names of all algorithms that work on a dataset.

    Args:
        dataset: All of its domains.
        backbone: Name of the network; None (default) for the dataset's.

    Returns:
        Names in alphabetical order.
    """
    chosen = backbone or dataset.default_backbone
    names = []
    for name in algorithm_names():
        with suppress(ValueError):
            check_algorithm(name, chosen, dataset.input_shape)
            names.append(name)
    return names


def choose_targets(domains: int, targets: Targets, dataset: str = "the dataset") -> list[tuple[int, ...]]:
    """Sets of target domains: each domain ``i``, followed by its pairs with every ``j > i``.

    Args:
        domains: Number of domains.
        targets: Which sets: ``"singles"``, ``"pairs"`` or ``"both"``.
        dataset: Its name, for the error.

    Returns:
        Indices of the target domains of each set.

    Raises:
        ValueError: If a set would leave no domain to train on.

    Examples:
        >>> choose_targets(3, "both")
        [(0,), (0, 1), (0, 2), (1,), (1, 2), (2,)]
    """
    needed = 2 if targets == "singles" else 3
    if domains < needed:
        hint = "; choose targets 'singles'" if domains == 2 else ""
        raise ValueError(
            f"targets: {targets!r} needs at least {needed} domains and {dataset} has {domains}{hint}"
        )
    return list(_target_sets(domains, targets))


def _target_sets(domains: int, targets: Targets) -> Iterator[tuple[int, ...]]:
    for first in range(domains):
        if targets != "pairs":
            yield (first,)
        if targets != "singles":
            yield from ((first, second) for second in range(first + 1, domains))


def draw_hparams(
    algorithm: type[Algorithm],
    search_space: SearchSpace,
    hparams_seed: int,
    trial_seed: int,
    fixed: Mapping[str, Value | str] | None = None,
) -> dict[str, Any]:
    """Every hyper-parameter of a run.

    Each is drawn from a generator of its own, seeded by both seeds and DomainBed's name for it, so that one
    more hyper-parameter changes no other draw (Gulrajani and Lopez-Paz, ICLR 2021, and their code).

    Args:
        algorithm: Its ``hparams_class`` has the search distributions.
        search_space: Of the dataset.
        hparams_seed: 0 for the defaults, at least 1 for a draw.
        trial_seed: Of the trial; each has draws of its own.
        fixed: Values that are not drawn, by name.

    Returns:
        Values by name.

    Raises:
        ValueError: Naming the fixed hyper-parameter that is unknown or out of range.
    """
    hparams_class = algorithm.hparams_class
    drawn: dict[str, Value] = {}
    if hparams_seed > 0:
        seed = seed_hash(hparams_seed, trial_seed)
        names = hparams_class.reference_names()
        generator = np.random.RandomState()  # made once: it is seeded in a fraction of that time
        for name, space in hparams_class.spaces(search_space).items():
            generator.seed(seed_hash(seed, names[name]))
            drawn[name] = space.search.draw(generator)
    return hparams_class.with_defaults(search_space, {**drawn, **(fixed or {})}).model_dump()


def run_seed(
    dataset: type[DomainDataset],
    algorithm: type[Algorithm],
    targets: Sequence[int],
    hparams_seed: int,
    trial_seed: int,
) -> int:
    """DomainBed's seed of a run, from its spelling of the names."""
    return seed_hash(
        dataset.reference_name, algorithm.reference_name, list(targets), hparams_seed, trial_seed
    )


def too_late(specs: Sequence[RunSpec]) -> list[str]:
    """What sets in after the end of more than half of an algorithm's runs, and so is hardly measured by them.

    Published defaults count thousands of steps; runs on frozen features have some hundred.

    Args:
        specs: Of a sweep.

    Returns:
        A part of a sentence for each algorithm and hyper-parameter.
    """
    runs: dict[tuple[str, str], list[bool]] = {}
    for spec in specs:
        for name, _ in get_algorithm(spec.algorithm).sets_in:
            late = float(spec.hparams[name]) >= spec.steps
            runs.setdefault((spec.algorithm, name), []).append(late)
    return [
        f"{algorithm} ({name}, {sum(late)} of {len(late)} runs)"
        for (algorithm, name), late in sorted(runs.items())
        if 2 * sum(late) > len(late)
    ]


def _check_fixed(fixed: Mapping[str, Value | str], algorithms: Sequence[type[Algorithm]]) -> None:
    known: dict[str, Any] = {}
    for algorithm in algorithms:
        known |= algorithm.hparams_class.model_fields
    for name in fixed:
        if name not in known:
            raise ValueError(
                f"set: {name!r} is no hyper-parameter of any algorithm of the sweep; allowed are "
                f"{', '.join(known)}{did_you_mean(name, [*known])}"
            )


def _check_batches(spec: RunSpec, dataset: DomainDataset) -> None:
    """A batch size is drawn whatever the size of the domains, and must not fail a run hours later."""
    sources = [domain for index, domain in enumerate(dataset.domains) if index not in spec.target_domains]
    sizes = [len(domain) - held_out_count(len(domain), spec.holdout_fraction) for domain in sources]
    check_sizes([domain.name for domain in sources], sizes, int(spec.hparams["batch_size"]))
