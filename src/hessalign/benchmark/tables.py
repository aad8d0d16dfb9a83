"""Tables as data: what their cells say, and how it is computed, whatever they will look like."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from hessalign.benchmark.paper import Published
from hessalign.benchmark.selection import Rule
from hessalign.runs import MEASURED

AVERAGE = "average"
"""Key of the column of means over all others."""

Rank = Literal["best", "second"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Column(_Frozen):
    """A column of cells.

    Attributes:
        key: Index of a target domain, name of a dataset, or ``"average"``.
        label: As printed.
    """

    key: str
    label: str


class Cell(_Frozen):
    """One figure, in percent; of differences, in percentage points; of log-losses, in hundredths of a nat.

    Attributes:
        mean: None where there is no result.
        standard_error: Of accuracies the standard error (population, DomainBed), ``std(ddof=0)/√n``, which
            is 0 for one value. Of paired differences the standard error (sample), ``std(ddof=1)/√n``, None
            for one value. None for an average.
        sample_deviation: ``std(ddof=1)``; None for one value, and for an average.
        n: Number of values that the mean is over; None for an average.
        runs: Number of runs that these values were selected from; None for an average or a difference.
        fewer_runs: Whether another cell of the column rests on more runs.
        every_target: False where some trial lacks a target domain, so that the mean is over fewer.
        rank: Whether it is the best or second best of its column, to the printed decimal.
        published: What others report.
        published_source: Where they do.
    """

    mean: float | None = None
    standard_error: float | None = None
    sample_deviation: float | None = None
    n: int | None = None
    runs: int | None = None
    fewer_runs: bool = False
    every_target: bool = True
    rank: Rank | None = None
    published: float | None = None
    published_source: str | None = None

    def beside(self, published: Published | None) -> "Cell":
        """This cell and what others report."""
        if published is None:
            return self
        cited = {"published": published.accuracy, "published_source": published.source}
        return self.model_copy(update=cited)


class Row(_Frozen):
    """An algorithm's cells, one for each column.

    Attributes:
        algorithm: Its name.
        label: As printed.
        cells: In the order of the columns.
    """

    algorithm: str
    label: str
    cells: tuple[Cell, ...]


class Table(_Frozen):
    """One table.

    Attributes:
        kind: ``"targets"``: a dataset by target domain; ``"summary"``: over datasets; ``"differences"``: a
            dataset's paired differences from the baseline by target domain.
        rule: How models were selected.
        dataset: Its name; None for a summary.
        setting: What sets these runs apart from others; ``""`` if nothing does.
        shared: All that the runs of a dataset share; empty for a summary.
        baseline: Of differences: what was subtracted.
        metric: What the figures are.
        title: As printed.
        columns: Of cells.
        rows: In the order of tables of the field.
        explanations: Sentences that a reader needs.
    """

    kind: Literal["targets", "summary", "differences"]
    rule: Rule
    dataset: str | None = None
    setting: str = ""
    shared: dict[str, Any] = {}
    baseline: str | None = None
    metric: str = "accuracy"
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    explanations: tuple[str, ...]


class Line(_Frozen):
    """How well source accuracies foretell target accuracies, over all draws with one target domain.

    Attributes:
        dataset: Its name.
        label: As printed.
        setting: What sets these runs apart from others; ``""`` if nothing does.
        target: Name of the target domain.
        draws: Number of runs.
        algorithms: How many algorithms they are of.
        slope: Of the probit of target accuracy on that of source accuracy; None where it cannot be told.
        correlation: Of the two probits.
        low: Lower end of its interval.
        high: Upper end of its interval.
        forgone: Target accuracy of the best draw minus that of the one with the best source accuracy, in
            percentage points.
    """

    dataset: str
    label: str
    setting: str = ""
    target: str
    draws: int
    algorithms: int
    slope: float | None = None
    correlation: float | None = None
    low: float | None = None
    high: float | None = None
    forgone: float


class Report(_Frozen):
    """All tables of a sweep.

    Attributes:
        tables: In the order of reading.
        notes: What was left out, repeated or told apart.
        lines: How well source accuracies foretell target accuracies; empty where nobody asked.
    """

    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    lines: tuple[Line, ...] = ()


def describe_accuracies(
    accuracies: Sequence[float], runs: int | None = None, every_target: bool = True
) -> Cell:
    """Mean and standard error as DomainBed prints them.

    Args:
        accuracies: At least one, 0 to 1.
        runs: Number of runs that they were selected from.
        every_target: Whether each trial has every target domain.

    Returns:
        In percent.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    return Cell(
        mean=float(100 * values.mean()),
        standard_error=float(100 * np.std(values / np.sqrt(len(values)))),
        sample_deviation=_sample_deviation(values),
        n=len(values),
        runs=runs,
        every_target=every_target,
    )


def describe_differences(differences: Sequence[float]) -> Cell:
    """Mean of paired differences and its usual standard error.

    Args:
        differences: At least one, of accuracies from 0 to 1.

    Returns:
        In percentage points.
    """
    values = np.asarray(differences, dtype=np.float64)
    deviation = _sample_deviation(values)
    return Cell(
        mean=float(100 * values.mean()),
        standard_error=None if deviation is None else deviation / len(values) ** 0.5,
        sample_deviation=deviation,
        n=len(values),
    )


def paired_differences(selected: pl.DataFrame, baseline: str) -> pl.DataFrame:
    """Test accuracy minus the baseline's in the same dataset, setting, target domain and trial.

    Args:
        selected: As ``select`` returns it.
        baseline: Name of an algorithm.

    Returns:
        The rows of other algorithms that have a partner, with a column ``difference``.
    """
    pair = ["dataset", "setting", "target", "trial_seed"]
    partners = selected.filter(pl.col("algorithm") == baseline).select(*pair, baseline_test="test")
    others = selected.filter(pl.col("algorithm") != baseline).join(partners, on=pair, maintain_order="left")
    return others.with_columns(difference=pl.col("test") - pl.col("baseline_test")).drop("baseline_test")


def finished_rows(rows: Iterable[Row], metric: str = "accuracy") -> tuple[Row, ...]:
    """Rows whose cells are ranked by column and know whether another cell rests on more runs."""
    listed = list(rows)
    larger_is_better = MEASURED.get(metric, True)
    columns = [
        _compared(cells, larger_is_better) for cells in zip(*(row.cells for row in listed), strict=True)
    ]
    return tuple(
        row.model_copy(update={"cells": cells})
        for row, cells in zip(listed, zip(*columns, strict=True), strict=True)
    )


def _compared(cells: Sequence[Cell], larger_is_better: bool) -> list[Cell]:
    """The cells of one column; equal ones, as printed, share a rank."""
    printed = [_printed(cell) for cell in cells]
    levels = sorted({value for value in printed if value is not None}, reverse=larger_is_better)
    ranks: dict[float, Rank] = dict(zip(levels, ("best", "second"), strict=False)) if len(cells) > 1 else {}
    most = max((cell.runs or 0 for cell in cells), default=0)
    return [
        cell.model_copy(
            update={
                "rank": None if value is None else ranks.get(value),
                "fewer_runs": cell.runs is not None and cell.runs < most,
            }
        )
        for cell, value in zip(cells, printed, strict=True)
    ]


def _printed(cell: Cell) -> float | None:
    """The mean to the printed decimal; None where it cannot be ranked."""
    if cell.mean is None or cell.mean != cell.mean or not cell.every_target:
        return None
    return float(f"{cell.mean:.1f}")


def _sample_deviation(values: np.ndarray) -> float | None:
    return float(100 * np.std(values, ddof=1)) if len(values) > 1 else None
