# ruff: noqa: N803 (scikit-learn's names)
r"""What both estimators share: checks, weights of samples, choice of the weights, the fit, what it leaves."""

import copy
import math
import sys
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from hessalign.alignment import HessianAlignment
from hessalign.alignment.penalty import Method as PenaltyMethod
from hessalign.checks import require_choice, require_flag, require_number, require_whole
from hessalign.estimator.auto import AUTO_GRID, STRENGTH_DECADES, Fold, Head, HeldOutScore, Search
from hessalign.estimator.objective import HeadData, Samples
from hessalign.estimator.persistence import load_estimator, save_estimator
from hessalign.estimator.problem import Plain, Problem
from hessalign.estimator.solver import Solution
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from hessalign.head import HeadLoss
from hessalign.head.statistics import Centre
from hessalign.inputs import Domains, read_domains

Method = PenaltyMethod | Literal["none"]
Weight = float | Literal["auto"]
Strength = float | Literal["auto"] | None
DomainWeight = Literal["size", "equal"]
METHODS = ("none", *get_args(PenaltyMethod))
OF_CURVATURE_ALONE = ("diagonal", "hutchinson", "frobenius", "spectral")

HOW_TO_PASS = (
    "pass fit(..., sample_domain=ids); through cross_val_score, cross_validate and searches "
    "params={'sample_domain': ids} (groups= reaches the splitter only), and through pipelines "
    "sklearn.set_config(enable_metadata_routing=True)"
)


@dataclass(frozen=True)
class _Settings:
    """What a fit does, the methods' peculiarities taken into account.

    Attributes:
        alpha: Weight of the Hessian distance, 0 where the method has none.
        beta: Weight of the gradient distance.
        strength: ``C`` or ``l2``.
    """

    alpha: Weight
    beta: Weight
    strength: Weight

    @property
    def is_auto(self) -> bool:
        return "auto" in (self.alpha, self.beta, self.strength)

    @property
    def aligns(self) -> bool:
        return self.alpha != 0 or self.beta != 0


class HeadEstimator(BaseEstimator):  # type: ignore[misc]
    """A linear head on fixed features, fitted with an alignment penalty; see the two public estimators."""

    # Pipelines and searches pass domain ids on without being asked for it one by one.
    __metadata_request__fit: ClassVar = {"sample_domain": True}
    _strength_name: ClassVar[str]

    method: Method
    alpha: Weight
    beta: Weight
    probes: int
    centre: Centre
    fit_intercept: bool
    domain_weight: DomainWeight
    scoring: Any
    tol: float
    max_iter: int
    warm_start: bool
    dtype: Literal["float64", "float32"]
    device: str
    coef_: NDArray[np.float64]
    intercept_: Any

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one safetensors file, atomically; nothing in it can be executed.

        Args:
            path: The file; one that exists is replaced.

        Raises:
            NotFittedError: If the estimator is not fitted.
            ValueError: If a parameter is a function, or a class or domain id is neither number nor string.
            OSError: If the file cannot be written; one that was there stays as it was.
        """
        check_is_fitted(self)
        save_estimator(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an estimator that [save][hessalign.estimator.base.HeadEstimator.save] wrote.

        Raises:
            ValueError: If the file is damaged, was changed, or holds an estimator of another class.
            OSError: If it cannot be opened.
        """
        return load_estimator(cls, Path(path))

    @abstractmethod
    def _loss(self, outputs: int) -> HeadLoss:
        """The head's loss for a number of logits."""

    @abstractmethod
    def _decay(self, strength: float, total: float) -> float:
        """Weight of ``½ ‖W‖²`` beside the mean loss, for a ``C`` or ``l2`` and the samples' total weight."""

    @abstractmethod
    def _strengths(self, scale: float) -> list[float]:
        """What ``"auto"`` tries for ``C`` or ``l2``, the weakest head first."""

    @abstractmethod
    def _constant_loss(self, data: HeadData) -> float:
        """Mean loss of the best constant prediction that the head can make."""

    @abstractmethod
    def _set_head(self, head: Head) -> None:
        """Set ``coef_`` and ``intercept_``."""

    @abstractmethod
    def _labels(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Targets as the user gave them."""

    @abstractmethod
    def _sample_scores(self, head: Head, samples: Samples, scoring: str) -> NDArray[np.float64] | None:
        """Each sample's score, the higher the better; None where a scoring is no mean over samples."""

    @property
    @abstractmethod
    def _default_scoring(self) -> str:
        """Scoring by which ``"auto"`` chooses if none is named."""

    def _class_factors(self, samples: Samples) -> NDArray[np.float64]:
        """Factors of the samples' weights by their classes, ``(n,)``."""
        return np.ones(len(samples.weight))

    def _check_settings(self) -> _Settings:
        """Check every parameter that both estimators have, before any work is done.

        Raises:
            ValueError: Naming the first that is wrong.
        """
        require_choice("method", self.method, METHODS)
        alpha, beta = (
            weight if _is_auto(weight) else require_number(name, weight, least=0, otherwise="'auto' or ")
            for name, weight in (("alpha", self.alpha), ("beta", self.beta))
        )
        strength = self._check_strength("auto" in (alpha, beta) and self.method != "none")
        require_number("tol", self.tol, least=0)
        require_whole("max_iter", self.max_iter, least=1)
        require_choice("centre", self.centre, get_args(Centre))
        require_choice("dtype", self.dtype, ("float64", "float32"))
        require_choice("domain_weight", self.domain_weight, get_args(DomainWeight))
        require_flag("fit_intercept", self.fit_intercept)
        require_flag("warm_start", self.warm_start)
        if self.method == "hutchinson":
            require_whole("probes", self.probes, least=1)
        if self.scoring is not None and not callable(self.scoring):
            try:
                get_scorer(self.scoring)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"scoring: {self.scoring!r} is not known; allowed are None, a name of scikit-learn's "
                    "(sklearn.metrics.get_scorer_names()) or a scorer"
                ) from error
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(f"device: PyTorch has no device {self.device!r} here") from error
        self._penalty(1, 0.0, 0.0)
        if self.method == "none":
            alpha = beta = 0.0
        return _Settings(0.0 if self.method == "gradient" else alpha, beta, strength)

    def _check_strength(self, with_weights: bool) -> Weight:
        """``C`` or ``l2`` to use; chosen as well where it is not given and weights are to be chosen."""
        name = self._strength_name
        given: Strength = getattr(self, name)
        if given is None:
            return "auto" if with_weights else 1.0
        if _is_auto(given):
            return "auto"
        return require_number(name, given, otherwise="None, 'auto' or ", **self._strength_limits)

    @property
    @abstractmethod
    def _strength_limits(self) -> Mapping[str, float]:
        """Limits of ``C`` or ``l2``, as require_number takes them."""

    def _read(
        self, X: Any, targets: NDArray[Any], sample_weight: Any, sample_domain: Any, settings: _Settings
    ) -> tuple[Samples, Domains, _Settings]:
        """Weights and domains of checked features and targets, and what there is to align."""
        weight = self._check_weight(sample_weight, X)
        given = np.zeros(len(X), dtype=np.intp) if sample_domain is None else sample_domain
        domains = read_domains("sample_domain", given, len(X))
        features = X
        if not (weight > 0).all():
            kept = weight > 0
            features, targets, weight = X[kept], targets[kept], weight[kept]
            domains = read_domains("sample_domain", domains.names[domains.codes[kept]], len(weight))
        samples = Samples(features, targets, domains.codes, weight)
        return samples, domains, self._check_domains(domains, sample_domain, sample_weight, settings)

    def _check_weight(self, sample_weight: Any, X: NDArray[Any]) -> NDArray[np.float64]:
        if sample_weight is None:
            return np.ones(len(X))
        array = np.asarray(as_plain(sample_weight))
        if array.dtype.kind in "OT" and all(
            isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in array.flat
        ):
            array = array.astype(np.float64)
        if array.dtype.kind not in "iufb":
            raise ValueError(
                f"sample_weight: must be numbers, got dtype {array.dtype}; domain ids go under sample_domain="
            )
        if array.ndim == 0:
            array = np.full(len(X), array)
        try:
            weight: NDArray[np.float64] = _check_sample_weight(array, X, dtype=np.float64)
        except ValueError as error:
            raise ValueError(f"sample_weight: {error}") from error
        if (weight < 0).any() or not (weight > 0).any() or not np.isfinite(weight.sum()):
            raise ValueError(
                "sample_weight: weights must be at least 0, and not all 0, "
                f"got values from {weight.min():g} to {weight.max():g}"
            )
        return weight / weight.max() if weight.max() > 1e100 or weight.max() < 1e-100 else weight

    def _check_domains(
        self, domains: Domains, sample_domain: Any, sample_weight: Any, settings: _Settings
    ) -> _Settings:
        count, weights = len(domains.names), (settings.alpha, settings.beta)
        if "auto" in weights and count < 3:
            raise ValueError(
                "sample_domain: alpha or beta 'auto' needs at least 3 domains, so that leaving one out "
                f"leaves something to align, got {count if sample_domain is not None else 'none'}"
                f"{'' if sample_domain is not None else '; ' + HOW_TO_PASS}"
            )
        if settings.strength == "auto" and count < 2:
            raise ValueError(
                f"sample_domain: {self._strength_name} 'auto' needs at least 2 domains, each held out in "
                f"turn, got {count if sample_domain is not None else 'none; ' + HOW_TO_PASS}"
            )
        if sample_domain is not None and count == 1 and settings.aligns:
            raise ValueError(
                f"sample_domain: alignment needs at least 2 domains, got only {domains.names[0]!s}; "
                "without alignment leave sample_domain out or set method='none'"
            )
        if sample_domain is None and settings.aligns:
            integers = sample_weight is not None and np.asarray(as_plain(sample_weight)).dtype.kind in "iu"
            hint = " (sample_weight holds integers: are they domain ids?)" if integers else ""
            self._warn(
                f"alpha and beta above 0 have no effect without sample_domain{hint}: the fit is plain; "
                f"{HOW_TO_PASS}; or set method='none'",
                NoEffectWarning,
            )
        return settings

    def _warn(self, message: str, category: type[Warning]) -> None:
        # The caller of fit is told, however deep in this package the warning arose.
        depth, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
            depth, frame = depth + 1, frame.f_back
        warnings.warn(f"{type(self).__name__}: {message}", category, stacklevel=depth)

    def _penalty(self, outputs: int, alpha: float, beta: float) -> HessianAlignment:
        loss = self._loss(outputs)
        if self.method == "none":
            return HessianAlignment("gradient", 0.0, 0.0, loss=loss)
        make = partial(
            HessianAlignment, self.method, alpha, beta, centre=self.centre, detach_centre=False, loss=loss
        )
        return make(probes=int(self.probes), expected=True) if self.method == "hutchinson" else make()

    def _problem(self, samples: Samples, outputs: int, settings: _Settings) -> Problem:
        """The samples with all their weights, and what is to be minimised on them."""
        weight = samples.weight * self._class_factors(samples)
        if self.domain_weight == "equal":
            totals = np.bincount(samples.codes, weight)
            weight = weight * (weight.sum() / len(totals) / totals)[samples.codes]
        loss = self._loss(outputs)
        data = HeadData.of(
            samples,
            weight,
            loss,
            outputs,
            fit_intercept=self.fit_intercept,
            dtype=self.dtype,
            device=self.device,
        )
        return Problem(
            data,
            loss,
            partial(self._penalty, outputs),
            self._constant_loss(data),
            self.max_iter,
            has_alpha=settings.alpha != 0,
            has_beta=settings.beta != 0,
        )

    def _fit_head(self, samples: Samples, outputs: int, domains: Domains, settings: _Settings) -> None:
        """Fit the head and set the attributes that both estimators have.

        Args:
            samples: Checked.
            outputs: ``C``.
            domains: Theirs.
            settings: What to do.
        """
        self.__dict__.pop("auto_results_", None)  # of an earlier fit
        if self.__dict__.pop("_units_changed", False) and settings.aligns:
            self._warn(
                "alpha and beta of the saved estimator were chosen in another unit; since then they are "
                "shares of the plain fit's loss, whatever the features' scale: choose them anew",
                UntrustworthyWarning,
            )
        problem = self._problem(samples, outputs, settings)
        if settings.is_auto:
            settings = self._choose(samples, outputs, settings, problem.data.scale)
        alpha, beta, strength = float(settings.alpha), float(settings.beta), float(settings.strength)
        start = self._start(problem.data)
        decay = self._decay(strength, problem.data.total)
        plain = problem.plain(decay, self.tol, None if start is None else start[0])
        solution = problem.aligned(plain, alpha, beta, self.tol, None if start is None else start[1])
        self._set_head(problem.data.head(solution.theta))
        self.alpha_, self.beta_, self.domains_ = alpha, beta, domains.names
        setattr(self, f"{self._strength_name}_", strength)
        self.scale_ = problem.data.scale
        self._describe(problem, plain, solution, alpha, beta)
        self.__dict__.pop("_plain_head", None)
        if self.warm_start:
            self._plain_head = problem.data.head(plain.solution.theta)

    def _choose(self, samples: Samples, outputs: int, settings: _Settings, scale: float) -> _Settings:
        """Settings with every ``"auto"`` replaced by a number."""
        count = int(samples.codes.max()) + 1
        folds = [
            Fold(
                self._problem(samples.rows(samples.codes != code), outputs, settings),
                partial(self._score_head, samples=samples.rows(samples.codes == code)),
            )
            for code in range(count)
        ]
        strengths = self._strengths(scale) if settings.strength == "auto" else [float(settings.strength)]
        alphas, betas = (
            (0.0, *AUTO_GRID) if weight == "auto" else (float(weight),)
            for weight in (settings.alpha, settings.beta)
        )
        choice = Search(folds, self._decay, self.tol).run(strengths, alphas, betas, self._strength_name)
        self.auto_results_ = choice.results
        chosen = choice.candidate
        return _Settings(chosen.alpha, chosen.beta, chosen.strength)

    def _score_head(self, head: Head, samples: Samples) -> HeldOutScore:
        """Score of a head on held-out samples."""
        scoring = self._default_scoring if self.scoring is None else self.scoring
        scores = self._sample_scores(head, samples, scoring) if isinstance(scoring, str) else None
        weight = samples.weight / samples.weight.sum()
        if scores is not None:
            return HeldOutScore(float(scores @ weight), scores, weight)
        fitted = copy.copy(self)
        fitted.__dict__.pop("feature_names_in_", None)  # the samples here have lost their names
        fitted._set_head(head)
        passed = {} if np.ptp(samples.weight) == 0 else {"sample_weight": samples.weight}
        return HeldOutScore(
            float(get_scorer(scoring)(fitted, samples.features, self._labels(samples.targets), **passed))
        )

    def _start(self, data: HeadData) -> tuple[Head | None, Head] | None:
        """Heads of the last fit, plain and aligned, if they are to be the start and have the right shape."""
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
        self, problem: Problem, plain: Plain, solution: Solution, alpha: float, beta: float
    ) -> None:
        """Set the attributes that tell how the fit went, and warn of what is not as it should be."""
        objective = problem.objective(plain, alpha, beta)
        self.loss_, self.penalty_, size = objective.terms(solution.theta)
        self.objective_ = self.loss_ + self.penalty_ + size
        self.n_iter_ = plain.solution.iterations + (
            solution.iterations if solution is not plain.solution else 0
        )
        self.converged_ = plain.solution.converged and solution.converged
        self.gradient_norm_ = solution.gradient_norm
        if len(problem.data.sizes) > 1:
            self._warn_of_nothing_to_align(plain, alpha, beta)
        if objective.penalty is not None and problem.collapsed(plain, solution.theta):
            self._warn(
                f"the penalty swamps the loss, {self.loss_:.3g}, which is above the "
                f"{problem.constant_loss:.3g} of the best constant prediction: a prediction that does not "
                "depend on the features is perfectly aligned; lower alpha and beta",
                UntrustworthyWarning,
            )
        if not self.converged_:
            failed = solution if not solution.converged else plain.solution
            self._warn(
                f"did not converge: after {self.n_iter_} iterations the largest element of the objective's "
                f"gradient is {failed.gradient_norm:.1e}, tolerance {failed.tolerance:.1e}; "
                f"{self._remedy(failed)}",
                ConvergenceWarning,
            )

    def _warn_of_nothing_to_align(self, plain: Plain, alpha: float, beta: float) -> None:
        of_no_use = [
            name
            for name, weight, distance in (
                ("alpha", alpha, plain.units.hessian),
                ("beta", beta, plain.units.gradient),
            )
            if weight > 0 and distance == 0
        ]
        if of_no_use:
            self._warn(
                f"{' and '.join(of_no_use)} above 0 have no effect: the domains agree already where the fit "
                "without alignment ends",
                NoEffectWarning,
            )

    def _remedy(self, solution: Solution) -> str:
        if solution.iterations >= self.max_iter:
            return "raise max_iter, standardise the features (StandardScaler) or lower alpha and beta"
        advice = "rounding allows no further step: raise tol or standardise the features (StandardScaler)"
        if self.dtype == "float32":
            return f"{advice}, or set dtype='float64'"
        if self.method == "spectral":
            return f"{advice}; the spectral norm has kinks, where no gradient vanishes"
        return advice


_HERE = str(Path(__file__).parent)


def as_plain(values: Any) -> Any:
    """A tensor as an array, which scikit-learn's checks take; anything else as it is."""
    if not isinstance(values, Tensor):
        return values
    plain = values.detach().cpu()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def checked(estimator: BaseEstimator, *arrays: Any, **kind: Any) -> Any:
    """What scikit-learn's validate_data returns; its errors name the arguments where it does not."""
    try:
        return validate_data(estimator, *map(as_plain, arrays), **kind)
    except (TypeError, ValueError) as error:
        if any(word in str(error) for word in (" X", "X ", " y ", "eature", "sample", "abel")):
            raise
        kind_of_error = TypeError if isinstance(error, TypeError) else ValueError
        raise kind_of_error(f"{' or '.join(('X', 'y')[: len(arrays)])}: {error}") from error


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
