# ruff: noqa: N803 (scikit-learn's names)
r"""What the estimators share: checks, weights, choice of hyper-parameters, the fit, what it leaves."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.validation import check_is_fitted

from hessalign.checks import require_choice, require_flag, require_number, require_whole
from hessalign.estimator.auto import (
    AUTO_GRID,
    MOST_FOLDS,
    STRENGTH_DECADES,
    Fold,
    HeldOutScore,
    Search,
    deal,
)
from hessalign.estimator.data import Head, HeadData, Samples
from hessalign.estimator.inputs import HOW_TO_PASS, as_plain, checked, read_views, read_weight, warn
from hessalign.estimator.penalties import Penalty
from hessalign.estimator.persistence import Persistent
from hessalign.estimator.problem import Plain, Problem
from hessalign.estimator.solver import Solution
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from hessalign.head import HeadLoss
from hessalign.inputs import Domains, read_domains

Weight = float | Literal["auto"]
Strength = float | Literal["auto"] | None
DomainWeight = Literal["size", "equal"]


@dataclass(frozen=True)
class Hyper:
    """A hyper-parameter that ``"auto"`` can choose.

    Attributes:
        grid: What is tried, ascending.
        neutral: The value at which the head is the plain one; None if there is none.
        limits: As require_number takes them.
    """

    grid: tuple[float, ...]
    neutral: float | None
    limits: Mapping[str, float] = field(default_factory=lambda: {"least": 0})


TERM = Hyper((0.0, *AUTO_GRID), 0.0)
"""The weight of a penalty's term."""


@dataclass(frozen=True)
class Settings:
    """What a fit does.

    Attributes:
        values: The hyper-parameters, in the order in which ``"auto"`` chooses them.
        strength: ``C`` or ``l2``.
        is_plain: Whether the plain head was chosen, whatever the values.
    """

    values: Mapping[str, Weight]
    strength: Weight
    is_plain: bool = False

    @property
    def is_auto(self) -> bool:
        """Whether anything is to be chosen."""
        return "auto" in (*self.values.values(), self.strength)

    def numbers(self) -> dict[str, float]:
        """The hyper-parameters, once chosen."""
        return {name: float(value) for name, value in self.values.items()}


class HeadEstimator(Persistent):
    """A linear head on fixed features; see the public estimators."""

    # Pipelines and searches pass domain and group ids on without being asked for it one by one.
    __metadata_request__fit: ClassVar = {"sample_domain": True, "sample_id": True}
    _strength_name: ClassVar[str]
    _hyper: ClassVar[Mapping[str, Hyper]]
    # What compares domains, so that two are needed and three where one is held out; None for nothing.
    _compares: ClassVar[str | None] = None
    _plain_by: ClassVar[str] = ""
    # Whether C or l2 is of any but the plain head.
    _own_strength: ClassVar[bool] = True
    # Whether groups change the fit, beside the scores.
    _uses_groups: ClassVar[bool] = False
    # Whether the head is where one objective is flat; else it comes of several steps.
    _has_objective: ClassVar[bool] = True
    # Whether the head is a function of the samples' logits and ‖W‖ alone; L1 is not, it knows the axes.
    _has_no_axes: ClassVar[bool] = True

    fit_intercept: bool
    domain_weight: DomainWeight
    scoring: Any
    tol: float
    max_iter: int
    warm_start: bool = False
    dtype: Literal["float64", "float32"] = "float64"
    device: str = "cpu"
    coef_: NDArray[np.float64]
    intercept_: Any
    plain_: bool

    @abstractmethod
    def _loss(self, outputs: int) -> HeadLoss:
        """The head's loss for a number of logits."""

    @abstractmethod
    def _decay(self, strength: float, total: float) -> float:
        """Weight of ``½ ‖W‖²`` beside the mean loss, for a ``C`` or ``l2`` and the samples' total weight."""

    @abstractmethod
    def _strengths(self, scale: float) -> list[float]:
        """What ``"auto"`` tries for ``C`` or ``l2``, the weakest head first."""

    @property
    @abstractmethod
    def _strength_limits(self) -> Mapping[str, float]:
        """Limits of ``C`` or ``l2``, as require_number takes them."""

    @abstractmethod
    def _constant_loss(self, data: HeadData) -> float:
        """Mean loss of the best constant prediction that the head can make."""

    @abstractmethod
    def _set_head(self, head: Head) -> None:
        """Set ``coef_`` and ``intercept_``."""

    @abstractmethod
    def _score_of(self, head: Head, samples: Samples, is_plain: bool) -> HeldOutScore:
        """Score of a head on held-out samples."""

    def _class_factors(self, samples: Samples) -> NDArray[np.float64]:
        """Factors of the samples' weights by their classes, ``(n,)``."""
        return np.ones(len(samples.weight))

    def _codes(self, samples: Samples) -> NDArray[np.intp]:
        """What the samples are sorted by and the penalty compares, ``(n,)``: their domains."""
        return samples.domains

    def _penalty(self) -> Penalty | None:
        """What is added to the mean loss."""
        return None

    def _solve(
        self, problem: Problem, plain: Plain, values: Mapping[str, float], tol: float, start: Head | None
    ) -> Solution:
        """The head with these hyper-parameters."""
        return problem.penalised(plain, values, tol, start)

    def _remark(
        self, problem: Problem, plain: Plain, solution: Solution, values: Mapping[str, float]
    ) -> None:
        """Set attributes of one kind of head, and warn of what only it can go wrong with."""

    def _check_settings(self) -> Settings:
        """Check every parameter that the estimators share, before any work is done.

        Returns:
            What is to be done.

        Raises:
            ValueError: Naming the first that is wrong.
        """
        values: dict[str, Weight] = {}
        for name, hyper in self._hyper.items():
            given = getattr(self, name)
            values[name] = (
                given
                if _is_auto(given)
                else require_number(name, given, otherwise="'auto' or ", **hyper.limits)
            )
        strength = self._check_strength("auto" in values.values())
        require_number("tol", self.tol, least=0)
        require_whole("max_iter", self.max_iter, least=1)
        require_choice("dtype", self.dtype, ("float64", "float32"))
        require_choice("domain_weight", self.domain_weight, get_args(DomainWeight))
        require_flag("fit_intercept", self.fit_intercept)
        require_flag("warm_start", self.warm_start)
        self._check_scoring()
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(f"device: PyTorch has no device {self.device!r} here") from error
        self._loss(1)
        return Settings(values, strength)

    def _check_scoring(self) -> None:
        if self.scoring is not None and not callable(self.scoring):
            try:
                get_scorer(self.scoring)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"scoring: {self.scoring!r} is not known; allowed are None, a name of scikit-learn's "
                    "(sklearn.metrics.get_scorer_names()), for classifiers one of hessalign.metrics "
                    "('worst_group_accuracy', ...), or a scorer"
                ) from error

    def _check_strength(self, with_values: bool) -> Weight:
        """``C`` or ``l2`` to use; ``"auto"`` where it is not given and hyper-parameters are to be chosen."""
        name = self._strength_name
        given: Strength = getattr(self, name)
        if given is None:
            return "auto" if with_values else 1.0
        if _is_auto(given):
            return "auto"
        return require_number(name, given, otherwise="None, 'auto' or ", **self._strength_limits)

    def _read(
        self,
        X: Any,
        targets: NDArray[Any],
        sample_weight: Any,
        sample_domain: Any,
        sample_group: Any,
        sample_id: Any,
        settings: Settings,
    ) -> tuple[Samples, Domains]:
        """Weights, domains and groups of checked features and targets; and whether they are enough."""
        weight = read_weight(sample_weight, X)
        given = np.zeros(len(X), dtype=np.intp) if sample_domain is None else sample_domain
        domains = read_domains("sample_domain", given, len(X))
        groups = None if sample_group is None else read_domains("sample_group", sample_group, len(X), "group")
        features, ids = X, None
        if sample_id is not None:
            same = {"y": targets, "sample_weight": weight, "sample_domain": domains.codes}
            same |= {} if groups is None else {"sample_group": groups.codes}
            ids = read_views(sample_id, same)
            weight = weight if ids is None else weight / np.bincount(ids)[ids]
        if not (weight > 0).all():
            kept = weight > 0
            features, targets, weight = X[kept], targets[kept], weight[kept]
            ids = None if ids is None else np.unique(ids[kept], return_inverse=True)[1]
            domains = read_domains("sample_domain", domains.names[domains.codes[kept]], len(weight))
            if groups is not None:
                groups = read_domains("sample_group", groups.names[groups.codes[kept]], len(weight))
        samples = Samples(
            features, targets, domains.codes, None if groups is None else groups.codes, weight, ids
        )
        integers = sample_weight is not None and np.asarray(as_plain(sample_weight)).dtype.kind in "iu"
        self._check_domains(domains, samples, sample_domain is not None, integers, settings)
        return samples, domains

    def _check_domains(
        self, domains: Domains, samples: Samples, given: bool, integers: bool, settings: Settings
    ) -> None:
        """Refuse too few domains for what is to be done; warn where there is nothing to compare."""
        count = len(domains.names)
        found = str(count) if given else f"none; {HOW_TO_PASS}"
        by_group = samples.groups is not None and (self._uses_groups or not given)
        chosen = [name for name, value in settings.values.items() if value == "auto"]
        if chosen and self._compares and not by_group and count < 3:
            raise ValueError(
                f"sample_domain: {' or '.join(sorted(self._hyper))} 'auto' needs at least 3 domains, so that "
                f"leaving one out leaves something to compare, got {found}"
            )
        if settings.is_auto and count < 2 and samples.groups is None:
            what = " or ".join(chosen) or self._strength_name
            raise ValueError(
                f"sample_domain: {what} 'auto' needs at least 2 domains, each held out in turn, got {found}"
            )
        if self._compares is None or all(value == 0 for value in settings.values.values()):
            return
        compared = len(np.unique(self._codes(samples)))
        if given and compared == 1:
            raise ValueError(
                f"sample_domain: {self._compares} needs at least 2 domains, got only {domains.names[0]!s}; "
                f"without {self._compares} leave sample_domain out or set {self._plain_by}"
            )
        if not given and compared == 1:
            hint = " (sample_weight holds integers: are they domain ids?)" if integers else ""
            warn(
                self,
                f"{self._weights} above 0 have no effect without sample_domain{hint}: the "
                f"fit is plain; {HOW_TO_PASS}; or set {self._plain_by}",
                NoEffectWarning,
            )

    def _problem(self, samples: Samples, outputs: int, settings: Settings) -> Problem:
        """The samples with all their weights, and what is to be minimised on them."""
        weight = samples.weight * self._class_factors(samples)
        if self.domain_weight == "equal":
            totals = np.bincount(samples.domains, weight)
            weight = weight * (weight.sum() / len(totals) / totals)[samples.domains]
        loss = self._loss(outputs)
        data = HeadData.of(
            samples,
            self._codes(samples),
            weight,
            loss,
            outputs,
            fit_intercept=self.fit_intercept,
            dtype=self.dtype,
            device=self.device,
        )
        penalty = self._penalty()
        names = [] if penalty is None else [n for n in penalty.names if settings.values.get(n, 0) != 0]
        return Problem(data, loss, penalty, names, self._constant_loss(data), self.max_iter)

    def _fit_head(self, samples: Samples, outputs: int, domains: Domains, settings: Settings) -> None:
        """Fit the head and set the attributes that all estimators have.

        Args:
            samples: Checked.
            outputs: ``C``.
            domains: Their names.
            settings: What to do.
        """
        self.__dict__.pop("auto_results_", None)  # of an earlier fit
        if self.__dict__.pop("_units_changed", False) and any(v != 0 for v in settings.values.values()):
            warn(
                self,
                "alpha and beta of the saved estimator were chosen in another unit; since then they are "
                "shares of the plain fit's loss, whatever the features' scale: choose them anew",
                UntrustworthyWarning,
            )
        problem = self._problem(samples, outputs, settings)
        if settings.is_auto:
            settings = self._choose(samples, outputs, settings, problem.data.scale)
        values, strength = settings.numbers(), float(settings.strength)
        start = self._start(problem.data)
        decay = self._decay(strength, problem.data.total)
        plain = problem.plain(decay, self.tol, None if start is None else start[0])
        solution = plain.solution
        self.plain_ = settings.is_plain
        if not settings.is_plain:
            solution = self._solve(problem, plain, values, self.tol, None if start is None else start[1])
        self._set_head(problem.data.head(solution.theta))
        self.domains_ = domains.names
        for name, value in (*values.items(), (self._strength_name, strength)):
            setattr(self, f"{name}_", value)
        self.scale_ = problem.data.scale
        self._describe(problem, plain, solution, values)
        self.__dict__.pop("_plain_head", None)
        if self.warm_start:
            self._plain_head = problem.data.head(plain.solution.theta)

    def _choose(self, samples: Samples, outputs: int, settings: Settings, scale: float) -> Settings:
        """Settings with every ``"auto"`` replaced by a number."""
        units, dealt = self._folds(samples)
        folds = []
        for fold in dealt:
            scores: dict[int, Callable[[Head, bool], HeldOutScore]] = {}
            for unit in fold:
                held_out = samples.rows(units == unit).without_views()
                scores[unit] = partial(self._score_held_out, samples=held_out)
            rest = samples.rows(~np.isin(units, fold))
            problem = self._problem(rest, outputs, settings)
            if self._has_no_axes:
                problem = replace(problem, data=problem.data.rotated())
            folds.append(Fold(problem, scores))
        strengths = self._strengths(scale) if settings.strength == "auto" else [float(settings.strength)]
        grids = {
            name: self._hyper[name].grid if value == "auto" else (float(value),)
            for name, value in settings.values.items()
        }
        neutral = {name: hyper.neutral for name, hyper in self._hyper.items()}
        search = Search(folds, self._decay, self._solve, neutral, self.tol, self._own_strength)
        choice = search.run(strengths, grids, self._strength_name)
        self.auto_results_ = choice.results
        if choice.values is not None:
            return Settings(choice.values, choice.strength)
        plain = {name: float("nan") if value is None else value for name, value in neutral.items()}
        return Settings(plain, choice.strength, is_plain=True)

    def _folds(self, samples: Samples) -> tuple[NDArray[np.intp], list[list[int]]]:
        """The unit of each sample, and the units that are held out together.

        Units are domains; where there are none, parts of the samples that hold every group alike.

        Returns:
            The unit of each sample, ``(n,)``, and the units of each fold.

        Raises:
            ValueError: If there are neither domains nor two samples of each group.
        """
        count, first = int(samples.domains.max()) + 1, samples.of_each()
        if count > 1 or samples.groups is None:
            return samples.domains, deal(np.bincount(samples.domains[first]))
        groups = samples.groups[first]
        parts = min(MOST_FOLDS, int(np.bincount(groups).min()))
        if parts < 2:
            raise ValueError(
                "sample_group: 'auto' without domains holds out a part of each group in turn, which needs "
                "at least 2 samples of each group, got a group of 1"
            )
        units = np.empty(len(groups), dtype=np.intp)
        splitter = StratifiedKFold(parts, shuffle=True, random_state=0)
        for unit, (_, chosen) in enumerate(splitter.split(groups, groups)):
            units[chosen] = unit
        units = units if samples.ids is None else units[samples.ids]
        return units, [[unit] for unit in range(parts)]

    def _score_held_out(self, head: Head, is_plain: bool, samples: Samples) -> HeldOutScore:
        return self._score_of(head, samples, is_plain)

    def _score_by_scorer(
        self, head: Head, samples: Samples, is_plain: bool, labels: NDArray[Any]
    ) -> HeldOutScore:
        """Score by any of scikit-learn's scorers."""
        fitted = copy.copy(self)
        fitted.__dict__.pop("feature_names_in_", None)  # the samples here have lost their names
        fitted.plain_ = is_plain
        fitted._set_head(head)
        passed = {} if np.ptp(samples.weight) == 0 else {"sample_weight": samples.weight}
        return HeldOutScore(float(get_scorer(self.scoring)(fitted, samples.features, labels, **passed)))

    def _start(self, data: HeadData) -> tuple[Head | None, Head] | None:
        """Heads of the last fit, plain and other, if they are to be the start and have the right shape."""
        if not self.warm_start or not hasattr(self, "coef_"):
            return None
        head = self._head()
        if head.shape != (data.shape[0], data.width + 1):
            return None
        plain = getattr(self, "_plain_head", None)
        return None if plain is None else data.theta(plain), data.theta(head)

    def _head(self) -> Head:
        """``[W | b]`` of the fitted attributes, ``(C, d+1)``."""
        return np.column_stack([np.atleast_2d(self.coef_), np.atleast_1d(self.intercept_)])

    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        """``W z + b`` of new samples, ``(n, C)``."""
        check_is_fitted(self)
        return logits_of(self._head(), checked(self, X, dtype=np.float64, reset=False))

    def _describe(
        self, problem: Problem, plain: Plain, solution: Solution, values: Mapping[str, float]
    ) -> None:
        """Set the attributes that tell how the fit went, and warn of what is not as it should be."""
        objective = plain.objective if self.plain_ else problem.objective(plain, values)
        self.loss_, penalty, size = objective.terms(solution.theta)
        self.n_iter_ = plain.solution.iterations + (
            solution.iterations if solution is not plain.solution else 0
        )
        self.converged_ = plain.solution.converged and solution.converged
        if self._has_objective:
            self.penalty_, self.objective_ = penalty, self.loss_ + penalty + size
            self.gradient_norm_ = solution.gradient_norm
            if len(problem.data.sizes) > 1:
                self._warn_of_nothing_to_compare(plain, values)
            if objective.is_penalised and problem.collapsed(plain, solution.theta):
                warn(
                    self,
                    f"the penalty swamps the loss, {self.loss_:.3g}, which is above the "
                    f"{problem.constant_loss:.3g} of the best constant prediction: a prediction that does "
                    f"not depend on the features leaves nothing to compare; lower {self._weights}",
                    UntrustworthyWarning,
                )
        self._remark(problem, plain, solution, values)
        if not self.converged_:
            failed = solution if not solution.converged else plain.solution
            what = f"the largest element of the objective's gradient is {failed.gradient_norm:.1e}"
            warn(
                self,
                f"did not converge: after {self.n_iter_} iterations {what}, tolerance "
                f"{failed.tolerance:.1e}; {self._remedy(failed)}",
                ConvergenceWarning,
            )

    def _warn_of_nothing_to_compare(self, plain: Plain, values: Mapping[str, float]) -> None:
        of_no_use = [
            name
            for name, distance in sorted(plain.distances.items())
            if values[name] > 0 and distance == 0 and not self.plain_
        ]
        if of_no_use:
            warn(
                self,
                f"{' and '.join(of_no_use)} above 0 have no effect: the domains agree already where the fit "
                f"without {self._compares} ends",
                NoEffectWarning,
            )

    @property
    def _weights(self) -> str:
        """Names of the hyper-parameters, for messages."""
        return " and ".join(sorted(self._hyper))

    def _remedy(self, solution: Solution) -> str:
        if solution.iterations >= self.max_iter or not solution.is_complete:
            weights = f" or lower {self._weights}" if self._compares else ""
            return f"raise max_iter, standardise the features (StandardScaler){weights}"
        advice = "rounding allows no further step: raise tol or standardise the features (StandardScaler)"
        return f"{advice}, or set dtype='float64'" if self.dtype == "float32" else advice


def without(settings: Settings, *names: str) -> Settings:
    """The settings with some weights 0."""
    return replace(settings, values=dict(settings.values) | dict.fromkeys(names, 0.0))


def logits_of(head: Head, features: NDArray[Any]) -> NDArray[np.float64]:
    """``W z + b``, ``(n, C)``, of a head ``[W | b]``."""
    logits: NDArray[np.float64] = features @ head[:, :-1].T + head[:, -1]
    return logits


def decades(scale: float) -> list[float]:
    """Powers of ten around one that fits features of this root mean square, ascending."""
    middle = -round(2 * math.log10(scale))
    return [10.0 ** (power + middle) for power in STRENGTH_DECADES]


def _is_auto(value: object) -> bool:
    return isinstance(value, str) and value == "auto"
