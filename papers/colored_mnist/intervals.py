"""Intervals by which restarts are compared: with each other, and with a row of the paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

from scipy import stats

LEVEL = 0.95
PAPER_RESTARTS = 10


@dataclass(frozen=True)
class Interval:
    """A mean or a difference in points of accuracy, with its 95 % interval.

    Attributes:
        value: The mean, or the difference of means.
        low: Lower end; NaN of a single restart, which has no interval.
        high: Upper end, likewise.
    """

    value: float
    low: float
    high: float

    @property
    def judges(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    def above(self, level: float) -> str:
        """What the interval says of the claim that the value is above a level.

        Args:
            level: In points.

        Returns:
            ``"holds"``, ``"refuted"`` or, where the interval holds the level, ``"open"``.
        """
        return "holds" if self.low > level else "refuted" if self.high < level else "open"


def mean_of(values: Sequence[float]) -> Interval:
    """A mean and its t interval."""
    half = _t(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values), fmean(values) - half, fmean(values) + half)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Ours minus theirs, of the same seeds in the same order: the mean difference, and its t interval."""
    return mean_of([one - other for one, other in zip(ours, theirs, strict=True)])


def welch(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Ours minus theirs, of different seeds: Welch's interval."""
    return _welch(ours, fmean(theirs), variance(theirs), len(theirs))


def against_paper(ours: Sequence[float], mean: float, deviation: float) -> Interval:
    """Ours minus a row of the paper: Welch's interval.

    Args:
        ours: Of our restarts.
        mean: The paper's.
        deviation: The paper's ±, read as a population standard deviation over ten restarts.

    Returns:
        The difference; without an interval where there is one restart of ours.
    """
    if len(ours) == 1:
        return Interval(ours[0] - mean, math.nan, math.nan)
    return _welch(ours, mean, deviation**2 * PAPER_RESTARTS / (PAPER_RESTARTS - 1), PAPER_RESTARTS)


def _welch(ours: Sequence[float], mean: float, their_variance: float, their_number: int) -> Interval:
    shares = variance(ours) / len(ours), their_variance / their_number
    freedom = sum(shares) ** 2 / (shares[0] ** 2 / (len(ours) - 1) + shares[1] ** 2 / (their_number - 1))
    value, half = fmean(ours) - mean, _t(freedom) * math.sqrt(sum(shares))
    return Interval(value, value - half, value + half)


def _t(freedom: float) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))
