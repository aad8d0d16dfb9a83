"""Full-batch L-BFGS on the objective, ended by Newton steps, which says whether it converged."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.sparse.linalg import minres  # type: ignore[import-untyped]

from hessalign.estimator.objective import Objective

# Pairs of steps and gradients that L-BFGS remembers. Penalties are worse conditioned than losses.
MEMORY = 20
LINE_SEARCH_STEPS = 50
# Newton steps are taken from next to the solution, where each squares the error.
NEWTON_STEPS = 5
PRODUCTS_PER_NEWTON_STEP = 200

Vector: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Solution:
    """A head and how well it solves the problem.

    Attributes:
        theta: ``[W | b]``, ``(C, d+1)``.
        gradient_norm: Largest absolute element of the objective's gradient at ``theta``.
        tolerance: What it was to reach.
        iterations: L-BFGS steps.
    """

    theta: NDArray[np.float64]
    gradient_norm: float
    tolerance: float
    iterations: int

    @property
    def converged(self) -> bool:
        """Whether the gradient is within the tolerance."""
        return self.gradient_norm <= self.tolerance


def solve(objective: Objective, start: NDArray[np.float64], tol: float, max_iter: int) -> Solution:
    """Minimise an objective from a given head.

    Args:
        objective: What to minimise.
        start: ``(C, d+1)``.
        tol: Largest absolute element of the gradient that counts as zero, in units of
            [gradient_scale][hessalign.estimator.objective.Objective.gradient_scale].
        max_iter: Most L-BFGS steps.

    Raises:
        ValueError: If the objective overflows at the start.
    """
    tolerance = tol * objective.gradient_scale()
    value, _ = objective.value_and_gradient(start.ravel())
    if not (np.isfinite(value) and np.isfinite(tolerance)):
        raise ValueError(
            "X: the objective overflows for features this large; standardise them, for instance with "
            "sklearn.preprocessing.StandardScaler"
        )
    result = minimize(
        objective.value_and_gradient,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": max_iter,
            "maxfun": max_iter * LINE_SEARCH_STEPS,
            "maxls": LINE_SEARCH_STEPS,
            "maxcor": MEMORY,
            "gtol": tolerance,
            "ftol": 0.0,  # the gradient alone decides
        },
    )
    theta, gradient = result.x, result.jac
    if result.nit < max_iter:
        theta, gradient = _newton(objective, theta, gradient, tolerance)
    return Solution(
        theta=theta.reshape(objective.shape),
        gradient_norm=_largest(gradient),
        tolerance=tolerance,
        iterations=int(result.nit),
    )


def _newton(objective: Objective, theta: Vector, gradient: Vector, tolerance: float) -> tuple[Vector, Vector]:
    """Go on from where L-BFGS stops short of the tolerance, without comparing values.

    Its line search compares values, and near a minimum their rounding hides what gradients still show.
    """
    for _ in range(NEWTON_STEPS):
        if _largest(gradient) <= tolerance:
            break
        step, _ = minres(objective.hessian(theta), gradient, maxiter=PRODUCTS_PER_NEWTON_STEP)
        _, next_gradient = objective.value_and_gradient(theta - step)
        if not _largest(next_gradient) < _largest(gradient):
            break
        theta, gradient = theta - step, next_gradient
    return theta, gradient


def _largest(gradient: Vector) -> float:
    return float(np.abs(gradient).max())
