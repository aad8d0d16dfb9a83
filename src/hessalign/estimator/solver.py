"""Full-batch L-BFGS ended by Newton steps, or one system of equations; and whether it converged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import (
    LinAlgError,
    cho_factor,
    cho_solve,
    cholesky,
    lstsq,
    solve_triangular,
)
from scipy.optimize import OptimizeResult, minimize
from scipy.sparse.linalg import LinearOperator, minres

from hessalign.estimator.objective import ROWS_PER_COLUMN, Objective

# Pairs of steps and gradients that L-BFGS remembers. Penalties are worse conditioned than losses.
MEMORY = 20
LINE_SEARCH_STEPS = 50
# Newton steps are taken from next to the solution, where each squares the error.
NEWTON_STEPS = 5
PRODUCTS_PER_NEWTON_STEP = 200
# Wider rows than this are not decorrelated: factorising their second moments would cost more than it saves.
WIDEST_METRIC = 2500
# How much faster a processor multiplies large matrices than narrow ones.
PRODUCTS_SPEEDUP = 4
FEWEST_STEPS = 3
# Bytes of heads that a memory holds.
MOST_REMEMBERED = 2**28

Vector: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Solution:
    """A head and how well it solves the problem.

    Attributes:
        theta: The head on the scaled features, ``(C, p)``.
        gradient_norm: Largest absolute element of the objective's gradient at ``theta``.
        tolerance: What it was to reach.
        iterations: Steps made.
        is_complete: False where another solver was stopped before its end.
    """

    theta: NDArray[np.float64]
    gradient_norm: float
    tolerance: float
    iterations: int
    is_complete: bool = True

    @property
    def converged(self) -> bool:
        """Whether the gradient is within the tolerance."""
        return self.is_complete and self.gradient_norm <= self.tolerance


class Metric:
    """Coordinates in which the plain objective is about as steep in every direction.

    With ``metric`` ``M = L Lᵀ`` they are ``θ L``.
    """

    def __init__(self, objective: Objective, theta: Vector) -> None:
        moments = objective.metric(theta)
        diagonal = np.diag_indices_from(moments)
        moments[diagonal] += 1e-8 * moments[diagonal].mean() + np.finfo(float).tiny
        self._factor = cholesky(moments, lower=True, overwrite_a=True, check_finite=False)

    def inside(self, theta: Vector) -> Vector:
        """Coordinates of a head ``(C, p)``."""
        return np.asarray(theta @ self._factor)

    def outside(self, coordinates: Vector) -> Vector:
        """The head of coordinates ``(C, p)``."""
        return self._solve(coordinates, "T")

    def gradient(self, gradient: Vector) -> Vector:
        """The gradient by the coordinates of one by the head, ``(C, p)``."""
        return self._solve(gradient, "N")

    def _solve(self, rows: Vector, transposed: str) -> Vector:
        solved: Vector = solve_triangular(
            self._factor, rows.T, lower=True, trans=transposed, check_finite=False
        ).T
        return solved


class Coordinates:
    """The metric of one data set, made when a search turns out to be long enough to be worth it.

    Where it costs as much as so many steps, so many steps are made without it first: then no search costs
    more than twice what the better of both ways would have.

    Args:
        objective: Whose curvature makes the metric.
        theta: The head where it is made; None (default): where a search first asks for it.
    """

    def __init__(self, objective: Objective, theta: Vector | None = None) -> None:
        self._objective = objective
        self._theta = theta
        self._metric: Metric | None = None
        rows, width = objective.data.rows.shape
        moments = min(rows, ROWS_PER_COLUMN * width) * width**2 / PRODUCTS_SPEEDUP
        self._cost = moments / (2 * rows * width * objective.shape[0])

    def steps_without(self, objective: Objective) -> int | None:
        """Steps to make in plain coordinates first; None for all of them."""
        if self._metric is not None:
            return 0
        if self._objective.shape[1] > WIDEST_METRIC:
            return None
        return 0 if objective.is_penalised or self._cost < FEWEST_STEPS else int(self._cost)

    def metric(self, theta: Vector) -> Metric:
        """The metric, made at the head that was given, or else that of the first call."""
        if self._metric is None:
            self._metric = Metric(self._objective, theta if self._theta is None else self._theta)
        return self._metric

    @property
    def key(self) -> tuple[Any, ...] | None:
        """Equal for two whose metrics are the same; None once others may have made it elsewhere."""
        own = self._objective.key
        if own is None or (self._theta is None and self._metric is not None):
            return None
        return own, None if self._theta is None else self._theta.tobytes()


class Memory:
    """Solutions of the same objective from the same start, which several heads ask for.

    What is remembered is what would be computed anew, to the last bit.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], Solution] = {}
        self._size = 0

    def solve(self, key: tuple[Any, ...], compute: Callable[[], Solution]) -> Solution:
        """The solution of a key, computed when it is asked for first."""
        if key not in self._found:
            solution = compute()
            self._size += solution.theta.nbytes
            if self._size > MOST_REMEMBERED:
                self._found.clear()
                self._size = solution.theta.nbytes
            self._found[key] = solution
        return self._found[key]


_memory: ContextVar[Memory | None] = ContextVar("memory of solutions", default=None)


@contextmanager
def remembering(memory: Memory) -> Iterator[None]:
    """Take from a memory what was solved before, and keep there what is solved, within the block."""
    before = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(before)


def solve(
    objective: Objective, start: Vector, tol: float, max_iter: int, coordinates: Coordinates
) -> Solution:
    """Minimise an objective from a given head.

    Args:
        objective: What to minimise.
        start: ``(C, p)``.
        tol: Largest absolute element of the gradient that counts as zero, in units of
            ``gradient_scale``.
        max_iter: Most L-BFGS steps.
        coordinates: Of all objectives on the same data.

    Returns:
        The head, and whether it is where the gradient vanishes.

    Raises:
        ValueError: If the objective overflows at the start.
    """
    memory = _memory.get()
    keys = (None, None) if memory is None else (objective.key, coordinates.key)
    if memory is None or None in keys:
        return _solve(objective, start, tol, max_iter, coordinates)
    key = (*keys, start.tobytes(), tol, max_iter)
    return memory.solve(key, lambda: _solve(objective, start, tol, max_iter, coordinates))


def _solve(
    objective: Objective, start: Vector, tol: float, max_iter: int, coordinates: Coordinates
) -> Solution:
    tolerance = tol * objective.gradient_scale()
    value, gradient = objective.value_and_gradient(start.ravel())
    if not (np.isfinite(value) and np.isfinite(gradient).all() and np.isfinite(tolerance)):
        raise ValueError(
            "X, y: the objective is not finite at the start; standardise both, for instance with "
            "sklearn.preprocessing.StandardScaler"
        )
    if objective.is_quadratic:
        return _solve_directly(objective, start.ravel(), gradient, tolerance)
    search = _Search(objective, start, value, gradient, tolerance)
    plain_steps = coordinates.steps_without(objective)
    if plain_steps is None or plain_steps > 0:
        search.go_on(max_iter if plain_steps is None else min(plain_steps, max_iter), None)
    if not search.is_flat and search.iterations < max_iter and plain_steps is not None:
        search.go_on(max_iter - search.iterations, coordinates.metric(search.theta))
    theta, gradient, steepest = search.theta.ravel(), search.gradient, objective.data.steepest
    if search.iterations < max_iter and not search.is_flat:
        metric = None if plain_steps is None else coordinates.metric(search.theta)
        theta, gradient = _newton(objective, theta, gradient, tolerance, metric)
    return Solution(theta.reshape(objective.shape), steepest(gradient), tolerance, search.iterations)


def _solve_directly(objective: Objective, theta: Vector, gradient: Vector, tolerance: float) -> Solution:
    """The minimum of a quadratic objective; a second step takes off what rounding left of the first."""
    shape, steps, steepest = objective.shape, 0, objective.data.steepest
    matrix = objective.normal_matrix()
    try:
        factor = cho_factor(matrix, check_finite=False)

        def solved(rows: Vector) -> Vector:
            return np.asarray(cho_solve(factor, rows.T, check_finite=False).T)
    except LinAlgError:  # columns that depend on each other, and no decay: the smallest step of all

        def solved(rows: Vector) -> Vector:
            return np.asarray(lstsq(matrix, rows.T, check_finite=False)[0].T)

    while steps < NEWTON_STEPS and (steps == 0 or steepest(gradient) > tolerance):
        closer = theta - solved(gradient.reshape(shape)).ravel()
        _, next_gradient = objective.value_and_gradient(closer)
        if steps and not steepest(next_gradient) < steepest(gradient):
            break
        theta, gradient, steps = closer, next_gradient, steps + 1
    return Solution(theta.reshape(shape), steepest(gradient), tolerance, steps)


class _Search:
    """L-BFGS from where it is, in any coordinates."""

    def __init__(
        self, objective: Objective, theta: Vector, value: float, gradient: Vector, tolerance: float
    ) -> None:
        self._objective = objective
        self._tolerance = tolerance
        self.theta, self.value, self.gradient = theta, value, gradient
        self.iterations = 0

    @property
    def is_flat(self) -> bool:
        return self._objective.data.is_flat(self.gradient, self._tolerance)

    def go_on(self, steps: int, metric: Metric | None) -> None:
        """Make at most so many steps."""
        shape = self._objective.shape
        first = (metric.inside(self.theta) if metric else self.theta).ravel()
        # SciPy asks for the start once more, and the callback for what was computed last.
        last: dict[str, Any] = {
            "at": first.copy(),
            "theta": self.theta,
            "value": self.value,
            "gradient": self.gradient,
        }

        def evaluate(at: Vector) -> None:
            if np.array_equal(at, last["at"]):
                return
            theta = at.reshape(shape)
            theta = metric.outside(theta) if metric else theta.copy()
            value, gradient = self._objective.value_and_gradient(theta.ravel())
            last.update(at=at.copy(), theta=theta, value=value, gradient=gradient)

        def value_and_gradient(at: Vector) -> tuple[float, Vector]:
            evaluate(at)
            gradient = last["gradient"]
            return last["value"], metric.gradient(gradient.reshape(shape)).ravel() if metric else gradient

        def stop_when_flat(intermediate_result: OptimizeResult) -> None:
            evaluate(intermediate_result.x)
            if self._objective.data.is_flat(last["gradient"], self._tolerance):
                raise StopIteration

        if self.is_flat:
            return
        result = minimize(
            value_and_gradient,
            first,
            jac=True,
            method="L-BFGS-B",
            callback=stop_when_flat,
            options={
                "maxiter": steps,
                "maxfun": steps * LINE_SEARCH_STEPS,
                "maxls": LINE_SEARCH_STEPS,
                "maxcor": MEMORY,
                "gtol": 0.0,  # the gradient by the head decides
                "ftol": 0.0,
            },
        )
        evaluate(result.x)
        self.theta, self.value, self.gradient = last["theta"], last["value"], last["gradient"]
        self.iterations += int(result.nit)


def _newton(
    objective: Objective, theta: Vector, gradient: Vector, tolerance: float, metric: Metric | None
) -> tuple[Vector, Vector]:
    """Go on from where L-BFGS stops short of the tolerance, without comparing values.

    Its line search compares values, and near a minimum their rounding hides what gradients still show.

    Returns:
        The head and its gradient.
    """
    preconditioner = None
    if metric:
        size = len(theta)
        preconditioner = LinearOperator(
            (size, size),
            matvec=lambda v: metric.outside(metric.gradient(v.reshape(objective.shape))).ravel(),
            dtype=np.float64,
        )
    for _ in range(NEWTON_STEPS):
        if objective.data.is_flat(gradient, tolerance):
            break
        step, _ = minres(
            objective.hessian(theta), gradient, maxiter=PRODUCTS_PER_NEWTON_STEP, M=preconditioner
        )
        _, next_gradient = objective.value_and_gradient(theta - step)
        if not objective.data.steepest(next_gradient) < objective.data.steepest(gradient):
            break
        theta, gradient = theta - step, next_gradient
    return theta, gradient
