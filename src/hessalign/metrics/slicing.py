"""The metrics, each of any slices of the samples at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "auroc": True,
    "log_loss": False,
    "ece": False,
}
"""The metrics, and whether the larger value is the better one."""

OF_ONE_CLASS = ("accuracy", "log_loss", "ece")
"""Those that tell something of samples of a single class, as the groups of a domain are."""

ENTRIES_AT_ONCE = 2**22
"""Scores that are sorted at once, which bounds memory where there are many classes."""


@dataclass(frozen=True, eq=False)
class Measure:
    """Predictions, measured in slices. One pass for each metric, however many slices there are."""

    labels: NDArray[np.intp]
    log_probabilities: NDArray[np.float64]
    predicted: NDArray[np.intp]
    weight: NDArray[np.float64]
    bins: int

    def slices(self, codes: NDArray[np.intp], count: int) -> dict[str, NDArray[np.float64]]:
        """Each metric of each slice, ``(m,)``."""
        classes = self.log_probabilities.shape[1]
        true = self._table(codes, count, self.labels, classes, self.weight)
        hits = self._table(codes, count, self.labels, classes, self.right)
        guessed = self._table(codes, count, self.predicted, classes, self.weight)
        with np.errstate(divide="ignore", invalid="ignore"):  # classes without weight are NaN
            found = {
                **self.of_one_class(codes, count),
                "balanced_accuracy": _mean_present(hits / true, true),
                "macro_f1": _mean_present(2 * hits / (true + guessed), true),
                "auroc": self._auroc(codes, true),
            }
        return {metric: found[metric] for metric in HIGHER_IS_BETTER}

    def of_one_class(self, codes: NDArray[np.intp], count: int) -> dict[str, NDArray[np.float64]]:
        """Those that need no second class, of each slice, ``(m,)``."""
        weight, right = self.weight, self.right
        rows = np.arange(len(weight))
        confidence = np.exp(self.log_probabilities[rows, self.predicted])
        places = np.clip(np.ceil(confidence * self.bins).astype(np.intp) - 1, 0, self.bins - 1)
        gaps = self._table(codes, count, places, self.bins, right - weight * confidence)
        losses = -weight * self.log_probabilities[rows, self.labels]
        total = np.bincount(codes, weight, count)
        with np.errstate(divide="ignore", invalid="ignore"):  # slices without weight are NaN
            return {
                "accuracy": np.bincount(codes, right, count) / total,
                "log_loss": np.bincount(codes, losses, count) / total,
                "ece": np.abs(gaps).sum(1) / total,
            }

    @cached_property
    def right(self) -> NDArray[np.float64]:
        """Weight of each sample whose class is found, else 0, ``(n,)``."""
        right: NDArray[np.float64] = self.weight * (self.predicted == self.labels)
        return right

    @staticmethod
    def _table(
        codes: NDArray[np.intp],
        count: int,
        columns: NDArray[np.intp],
        width: int,
        values: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Sums of values by slice and column, ``(m, width)``."""
        sums: NDArray[Any] = np.bincount(codes * width + columns, values, minlength=count * width)
        return sums.reshape(count, width)

    def _auroc(self, codes: NDArray[np.intp], true: NDArray[np.float64]) -> NDArray[np.float64]:
        areas = np.full(len(true), np.nan)
        chosen = np.flatnonzero((true > 0).sum(1) > 1)
        if not len(chosen):
            return areas
        order = np.argsort(codes, kind="stable")
        ends = np.searchsorted(codes[order], np.arange(len(true) + 1))
        for position in chosen:
            rows = order[ends[position] : ends[position + 1]]
            rows = rows[self.weight[rows] > 0]
            present = np.flatnonzero(true[position] > 0)
            if true.shape[1] == 2:
                present = present[1:]
            areas[position] = self._mean_area(rows, present)
        return areas

    def _mean_area(self, rows: NDArray[np.intp], classes: NDArray[np.intp]) -> float:
        """Mean over classes of the area of each against the rest."""
        width = max(1, ENTRIES_AT_ONCE // len(rows))
        parts = np.split(classes, range(width, len(classes), width))
        return float(np.concatenate([self._areas(rows, part) for part in parts]).mean())

    def _areas(self, rows: NDArray[np.intp], classes: NDArray[np.intp]) -> NDArray[np.float64]:
        """Of each class against the rest, from the ranks of its samples (Mann and Whitney)."""
        scores = self.log_probabilities[np.ix_(rows, classes)].T
        orders = np.argsort(scores, axis=1)
        weight, labels = self.weight[rows], self.labels[rows]
        total = weight.sum()
        areas = np.empty(len(classes))
        for place, (c, order) in enumerate(zip(classes, orders, strict=True)):
            known = scores[place, order]
            below = np.concatenate([[0.0], np.cumsum(weight[order])])
            own = labels == c
            first = np.searchsorted(known, scores[place, own], "left")
            last = np.searchsorted(known, scores[place, own], "right")
            size = weight[own].sum()
            # Weight of the pairs of an own sample and any that it outranks, a draw counting half; of those
            # among its own half are won.
            won = weight[own] @ (below[first] + below[last]) / 2 - size**2 / 2
            areas[place] = won / (size * (total - size))
        return areas


def _mean_present(values: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the classes that a slice has."""
    present = true > 0
    mean: NDArray[np.float64] = np.where(present, values, 0.0).sum(1) / present.sum(1)
    return mean
