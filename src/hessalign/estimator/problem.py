"""Fits of one data set, each from the one before: plain ones, and aligned ones in the plain fit's units."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hessalign.estimator.objective import HeadData, MakePenalty, Objective, Units
from hessalign.estimator.solver import Coordinates, Solution, solve
from hessalign.head import HeadLoss

# Weights that add up to more are reached in steps of this factor from at most 1, where no head can collapse.
PATH_FACTOR = 10.0
# What lies on the way to a fit need not be found as exactly as its end.
PATH_TOLERANCE = 1e-3
# A loss this much above that of a constant prediction is not rounding.
MARGIN = 1e-3


@dataclass(frozen=True, eq=False)
class Plain:
    """The fit without alignment, which all aligned ones of the same strength start from.

    Attributes:
        objective: What it minimises.
        solution: The head.
        units: What weights of 1 stand for.
        coordinates: To search in.
    """

    objective: Objective
    solution: Solution
    units: Units
    coordinates: Coordinates


@dataclass(frozen=True, eq=False)
class Problem:
    """One data set with its loss.

    Attributes:
        data: The samples.
        loss: The head's loss.
        make_penalty: From weights of the Hessian and gradient distances to the penalty.
        constant_loss: Mean loss of the best constant prediction that the head can make.
        max_iter: Most L-BFGS steps of a fit.
        has_alpha: Whether the Hessian distance is ever weighed.
        has_beta: Whether the gradient distance is.
    """

    data: HeadData
    loss: HeadLoss
    make_penalty: MakePenalty
    constant_loss: float
    max_iter: int
    has_alpha: bool
    has_beta: bool

    def plain(self, decay: float, tol: float, start: NDArray[np.float64] | None = None) -> Plain:
        """Fit without alignment.

        Args:
            decay: Weight of ``½ ‖W‖²`` beside the mean loss, on the features as they were.
            tol: See [solve][hessalign.estimator.solver.solve].
            start: A head on the scaled features; zeros by default.
        """
        objective = Objective(self.data, self.loss, decay / self.data.scale**2)
        first = np.zeros(objective.shape) if start is None else start
        solution = solve(objective, first, tol, self.max_iter, Coordinates(objective))
        aligns = len(self.data.sizes) > 1
        units = Units.at(
            objective, solution.theta, self.make_penalty, aligns and self.has_alpha, aligns and self.has_beta
        )
        return Plain(objective, solution, units, Coordinates(objective))

    def objective(self, plain: Plain, alpha: float, beta: float) -> Objective:
        """The objective with weights in the plain fit's units; the plain one where they weigh nothing."""
        weights = plain.units.weigh(alpha, beta)
        if not any(weights):
            return plain.objective
        return replace(plain.objective, penalty=self.make_penalty(*weights), size=1 + alpha + beta)

    def aligned(
        self,
        plain: Plain,
        alpha: float,
        beta: float,
        tol: float,
        start: NDArray[np.float64] | None = None,
    ) -> Solution:
        """Fit with alignment.

        Without a start, from the plain head along growing weights: heavy weights at once may lead to a head
        that predicts one class whatever the features, which has neither gradients nor curvature to align.

        Args:
            plain: Fit of the same strength.
            alpha: Weight of the Hessian distance.
            beta: Weight of the gradient distance.
            tol: See [solve][hessalign.estimator.solver.solve].
            start: A head on the scaled features.
        """
        objective = self.objective(plain, alpha, beta)
        if objective.penalty is None:
            return plain.solution
        theta, iterations = start, 0
        if theta is None:
            theta = plain.solution.theta
            for share in _path(alpha + beta):
                stage = self.objective(plain, share * alpha, share * beta)
                step = solve(stage, theta, max(tol, PATH_TOLERANCE), self.max_iter, plain.coordinates)
                theta, iterations = step.theta, iterations + step.iterations
        end = solve(objective, theta, tol, self.max_iter, plain.coordinates)
        return replace(end, iterations=iterations + end.iterations)

    def collapsed(self, plain: Plain, theta: NDArray[np.float64]) -> bool:
        """Whether a head does worse on its own data than the best constant prediction."""
        return plain.objective.terms(theta)[0] > (1 + MARGIN) * self.constant_loss


def _path(total: float) -> list[float]:
    """Shares of the weights on the way to weights that add up to so much."""
    steps = max(0, int(np.ceil(np.log10(max(total, 1.0)) / np.log10(PATH_FACTOR) - 1e-9)))
    return [PATH_FACTOR**-step for step in range(steps, 0, -1)]
