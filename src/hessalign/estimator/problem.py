"""Fits of one data set, each from the one before: plain ones, and penalised ones in the plain fit's units."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hessalign.estimator.data import Head, HeadData
from hessalign.estimator.objective import Objective
from hessalign.estimator.penalties import Penalty
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
    """The fit without penalty, which all penalised ones of the same strength start from.

    Attributes:
        objective: What it minimises.
        solution: The head.
        loss: Its mean loss.
        distances: What the terms that may be weighed are there; 0 for a term that is 0 already.
        coordinates: To search in.
    """

    objective: Objective
    solution: Solution
    loss: float
    distances: Mapping[str, float]
    coordinates: Coordinates


@dataclass(frozen=True, eq=False)
class Problem:
    """One data set with its loss.

    Attributes:
        data: The samples.
        loss: The head's loss.
        penalty: What may be added to it; None for nothing.
        names: Terms of the penalty that may be weighed.
        constant_loss: Mean loss of the best constant prediction that the head can make.
        max_iter: Most L-BFGS steps of a fit.
    """

    data: HeadData
    loss: HeadLoss
    penalty: Penalty | None
    names: list[str]
    constant_loss: float
    max_iter: int

    def plain(self, decay: float, tol: float, start: Head | None = None) -> Plain:
        """Fit without penalty.

        Args:
            decay: Weight of ``½ ‖W‖²`` beside the mean loss, on the features as they were.
            tol: Largest element of the gradient that counts as zero, in ``solve``'s units.
            start: A head on the scaled features; zeros by default.

        Returns:
            The fit and what is known of it.
        """
        objective = Objective(self.data, self.loss, decay / self.data.scale**2)
        first = np.zeros(objective.shape) if start is None else start
        solution = solve(objective, first, tol, self.max_iter, Coordinates(objective))
        distances = dict.fromkeys(self.names, 0.0)
        if self.penalty is not None and len(self.data.sizes) > 1:
            distances |= objective.distances(self.penalty, self.names, solution.theta)
        loss = objective.terms(solution.theta)[0]
        return Plain(objective, solution, loss, distances, Coordinates(objective, solution.theta))

    def objective(self, plain: Plain, values: Mapping[str, float]) -> Objective:
        """The objective with weights in the plain fit's units; the plain one where they weigh nothing."""
        if self.penalty is None:
            return plain.objective
        weights = {name: value for name, value in values.items() if value > 0 and plain.distances[name] > 0}
        if not weights:
            return plain.objective
        size = 1 + sum(values.values())
        if self.penalty.in_units_of_the_loss:
            weights = {name: value * plain.loss / plain.distances[name] for name, value in weights.items()}
        return replace(plain.objective, penalty=self.penalty, weights=weights, size=size)

    def penalised(
        self, plain: Plain, values: Mapping[str, float], tol: float, start: Head | None = None
    ) -> Solution:
        """Fit with the penalty.

        Without a start, from the plain head along growing weights: heavy weights at once may lead to a head
        that predicts one class whatever the features, which has nothing to compare across domains.

        Args:
            plain: Fit of the same strength.
            values: Weight of each term, in the plain fit's units.
            tol: Largest element of the gradient that counts as zero, in ``solve``'s units.
            start: A head on the scaled features.

        Returns:
            The head; the plain one where nothing is weighed.
        """
        objective = self.objective(plain, values)
        if not objective.is_penalised:
            return plain.solution
        theta, iterations = plain.solution.theta if start is None else start, 0
        if start is None and not objective.is_quadratic:
            for share in _path(sum(values.values())):
                stage = self.objective(plain, {name: share * value for name, value in values.items()})
                step = solve(stage, theta, max(tol, PATH_TOLERANCE), self.max_iter, plain.coordinates)
                theta, iterations = step.theta, iterations + step.iterations
        end = solve(objective, theta, tol, self.max_iter, plain.coordinates)
        return replace(end, iterations=iterations + end.iterations)

    def collapsed(self, plain: Plain, theta: Head) -> bool:
        """Whether a penalty led to a head that does worse on its own data than the best constant prediction.

        What is convex ends where it should: the worst group's head may well do worse on average.

        Returns:
            Whether it did.
        """
        can = self.penalty is not None and self.penalty.in_units_of_the_loss
        return can and plain.objective.terms(theta)[0] > (1 + MARGIN) * self.constant_loss


def _path(total: float) -> list[float]:
    """Shares of the weights on the way to weights that add up to so much."""
    steps = max(0, int(np.ceil(np.log10(max(total, 1.0)) / np.log10(PATH_FACTOR) - 1e-9)))
    return [PATH_FACTOR**-step for step in range(steps, 0, -1)]
