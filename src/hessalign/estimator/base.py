# ruff: noqa: N803 (scikit-learn's names)
r"""What both estimators share: checks, choice of the weights, the fit, and what it leaves behind."""

import math
import warnings
from abc import abstractmethod
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator  # type: ignore[import-untyped]
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
from sklearn.utils.validation import check_is_fitted, validate_data  # type: ignore[import-untyped]

from hessalign.alignment import HessianAlignment
from hessalign.alignment.penalty import Method as PenaltyMethod
from hessalign.estimator.auto import Head, choose_weights
from hessalign.estimator.objective import HeadData, Objective
from hessalign.estimator.persistence import load_estimator, save_estimator
from hessalign.estimator.solver import Solution, solve
from hessalign.head import HeadLoss
from hessalign.head.statistics import Centre
from hessalign.inputs import Domains, read_domains

Method = PenaltyMethod | Literal["none"]
Weight = float | Literal["auto"]
METHODS = ("none", *get_args(PenaltyMethod))


class HeadEstimator(BaseEstimator):  # type: ignore[misc]
    """A linear head on fixed features, fitted with an alignment penalty; see the two public estimators."""

    # Pipelines and searches pass domain ids on without being asked for it one by one.
    __metadata_request__fit: ClassVar = {"sample_domain": True}

    method: Method
    alpha: Weight
    beta: Weight
    probes: int
    centre: Centre
    fit_intercept: bool
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
    def _decay(self, samples: int) -> float:
        """Weight of ``½ ‖W‖²`` beside the mean loss over so many samples."""

    @abstractmethod
    def _score_head(self, head: Head, data: HeadData) -> float:
        """How well a head does on held-out data, the higher the better."""

    def _check_settings(self) -> None:
        """Check every parameter that both estimators have, before any work is done.

        Raises:
            ValueError: Naming the first that is wrong.
        """
        if self.method not in METHODS:
            raise ValueError(
                f"method: {self.method!r} is not known; allowed are {', '.join(map(repr, METHODS))}"
            )
        for name, weight in (("alpha", self.alpha), ("beta", self.beta)):
            require_number(name, 0 if weight == "auto" else weight, allowed="'auto' or a finite number")
        require_number("tol", self.tol)
        if not isinstance(self.max_iter, int | np.integer) or self.max_iter < 1:
            raise ValueError(f"max_iter: must be a whole number of at least 1, got {self.max_iter!r}")
        if self.dtype not in {"float64", "float32"}:
            raise ValueError(f"dtype: {self.dtype!r} is not known; allowed are 'float64' and 'float32'")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device: PyTorch has no device {self.device!r} here") from error
        self._penalty(0.0, 0.0, outputs=1)

    def _fit_head(
        self,
        features: NDArray[Any],
        targets: NDArray[Any],
        outputs: int,
        sample_domain: ArrayLike | None,
    ) -> Head:
        """Fit the head and set the attributes that both estimators have.

        Args:
            features: ``(n, d)``, of the type to compute in.
            targets: As the loss takes them.
            outputs: ``C``.
            sample_domain: As the user gave it.

        Returns:
            ``[W | b]``, ``(C, d+1)``.
        """
        self.__dict__.pop("auto_results_", None)  # of an earlier fit
        given = np.zeros(len(features), dtype=np.intp) if sample_domain is None else sample_domain
        domains = read_domains("sample_domain", given, len(features))
        alpha, beta = self._effective_weights()
        self._check_domains(domains, sample_domain is not None, alpha, beta)
        data = HeadData.from_arrays(
            features, targets, domains.codes, outputs, self._loss(outputs), self.device
        )
        if alpha == "auto" or beta == "auto":
            choice = choose_weights(data, alpha, beta, self._solve, self._score_head)
            alpha, beta, self.auto_results_ = choice.alpha, choice.beta, choice.results
        solution = self._solve(data, alpha, beta, self._previous_head(outputs, features.shape[1]))
        self.alpha_, self.beta_, self.domains_ = float(alpha), float(beta), domains.names
        self._describe(self._objective(data, alpha, beta), solution)
        return solution.theta

    def _effective_weights(self) -> tuple[Weight, Weight]:
        """Alpha and beta, 0 where the method has no use for them."""
        if self.method == "none":
            return 0.0, 0.0
        return (0.0 if self.method == "gradient" else self.alpha), self.beta

    def _check_domains(self, domains: Domains, given: bool, alpha: Weight, beta: Weight) -> None:
        count = len(domains.names)
        if "auto" in (alpha, beta) and count < 3:
            raise ValueError(
                "sample_domain: alpha or beta 'auto' needs at least 3 domains, so that leaving one out "
                f"leaves something to align, got {count}"
            )
        if given and count == 1 and (alpha != 0 or beta != 0):
            raise ValueError(
                f"sample_domain: alignment needs at least 2 domains, got only {domains.names[0]!s}; "
                "without alignment leave sample_domain out or set method='none'"
            )

    def _penalty(self, alpha: float, beta: float, outputs: int) -> HessianAlignment:
        loss = self._loss(outputs)
        if self.method == "none":
            return HessianAlignment("gradient", 0.0, 0.0, loss=loss)
        make = partial(
            HessianAlignment, self.method, alpha, beta, centre=self.centre, detach_centre=False, loss=loss
        )
        return make(probes=self.probes, expected=True) if self.method == "hutchinson" else make()

    def _objective(self, data: HeadData, alpha: float, beta: float) -> Objective:
        samples, outputs = data.targets.shape
        return Objective(data, self._penalty(alpha, beta, outputs), self._decay(samples), self.fit_intercept)

    def _solve(self, data: HeadData, alpha: float, beta: float, start: Head | None) -> Solution:
        """Fit from a start; without one from the solution without alignment, itself found from zero.

        The penalty is not convex, so the start matters: where plain training ends is a good one, and the
        same for all weights.
        """
        if start is not None:
            return solve(self._objective(data, alpha, beta), start, self.tol, self.max_iter)
        plain = self._objective(data, 0.0, 0.0)
        unaligned = solve(plain, np.zeros(plain.shape), self.tol, self.max_iter)
        objective = self._objective(data, alpha, beta)
        if not objective.aligns:
            return unaligned
        aligned = solve(objective, unaligned.theta, self.tol, self.max_iter)
        return replace(aligned, iterations=unaligned.iterations + aligned.iterations)

    def _previous_head(self, outputs: int, width: int) -> Head | None:
        """The head of the last fit, if it is to be the start and has the right shape."""
        if not self.warm_start or not hasattr(self, "coef_"):
            return None
        head = self._head()
        if not self.fit_intercept:
            head[:, -1] = 0
        return head if head.shape == (outputs, width + 1) else None

    def _head(self) -> Head:
        """``[W | b]`` of the fitted attributes, ``(C, d+1)``."""
        return np.column_stack([np.atleast_2d(self.coef_), np.atleast_1d(self.intercept_)])

    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        """``W z + b`` of new samples, ``(n, C)``."""
        check_is_fitted(self)
        features = validate_data(self, X, dtype=np.float64, reset=False)
        head = self._head()
        logits: NDArray[np.float64] = features @ head[:, :-1].T + head[:, -1]
        return logits

    def _describe(self, objective: Objective, solution: Solution) -> None:
        """Set the attributes that tell how the fit went, and warn if it did not converge."""
        terms = objective.terms(torch.from_numpy(solution.theta).to(objective.data.features))
        self.loss_, self.penalty_ = float(terms[0]), float(terms[1])
        self.objective_ = float(sum(terms))
        self.n_iter_ = solution.iterations
        self.converged_ = solution.converged
        self.gradient_norm_ = solution.gradient_norm
        if not solution.converged:
            warnings.warn(
                f"{type(self).__name__} did not converge: after {solution.iterations} iterations the largest "
                f"element of the objective's gradient is {solution.gradient_norm:.1e}, tolerance "
                f"{solution.tolerance:.1e}; {self._remedy(solution)}",
                ConvergenceWarning,
                stacklevel=4,
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


def require_number(name: str, value: object, *, allowed: str = "a finite number") -> None:
    """Raise a ValueError unless a parameter is a finite number of at least 0."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and value >= 0):  # type: ignore[arg-type,operator]
        raise ValueError(f"{name}: must be {allowed} of at least 0, got {value!r}")
