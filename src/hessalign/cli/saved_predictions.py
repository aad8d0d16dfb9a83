"""What ``hessalign metrics`` measures: the predictions that a run has saved, by domain and by group."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hessalign.datasets.tables import TABLES, read_table
from hessalign.files import shown
from hessalign.grid import NOTHING, Grid
from hessalign.metrics import OF_ONE_CLASS, Evaluation, Slices, evaluate
from hessalign.runs import SPEC, read_as, read_predictions, read_records
from hessalign.training import RunSpec

GROUP = "group"
KEYS = (("file",), ("domain", "sample"))
"""Columns of a table of groups that tell which sample a row is of."""
SHOWN_GROUPS = 10
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "log_loss": "log-loss",
    "ece": "ECE",
}
IN_PERCENT = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")


@dataclass(frozen=True, eq=False)
class Measured:
    """Metrics of an evaluation's predictions.

    Attributes:
        run: Its folder.
        step: Of the evaluation.
        part: ``"in"``, ``"out"`` or ``"both"``.
        roles: ``"source"`` or ``"target"`` by domain.
        found: The metrics.
    """

    run: Path
    step: int
    part: str
    roles: dict[str, str]
    found: Evaluation

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as JSON has them; null where one is not defined."""
        assert self.found.domains is not None
        assert self.found.groups is not None
        return {
            "run": str(self.run),
            "step": self.step,
            "part": self.part,
            "samples": self.found.samples,
            "summary": {name: _or_none(value) for name, value in self.found.summary().items()},
            "domains": [{**row, "role": self.roles[row["domain"]]} for row in _rows(self.found.domains)],
            "groups": _rows(self.found.groups),
        }

    def grids(self) -> list[Grid]:
        """A table of the domains, and one of the worst groups."""
        domains, groups = self.found.domains, self.found.groups
        assert domains is not None
        assert groups is not None
        order = [list(domains.names).index(name) for name in self.roles]
        rows = [
            [
                str(domains.names[place]),
                self.roles[str(domains.names[place])],
                f"{domains.counts[place]:,}",
                *(_cell(name, domains.values[name][place]) for name in TITLES),
            ]
            for place in order
        ]
        totals = [
            ["all samples", "", f"{self.found.samples:,}", *_cells(self.found.overall)],
            ["worst domain", "", "", *_cells({name: domains.worst(name) for name in TITLES})],
            ["mean domain", "", "", *_cells({name: domains.mean(name) for name in TITLES})],
        ]
        notes = ["in percent but for log-loss"]
        if self.part != "out":
            notes.append("source domains were trained on their part in")
        parts = "both parts" if self.part == "both" else f"part {self.part}"
        title = f"{self.run}, step {self.step}, {parts}"
        headers = ("Domain", "role", "samples", *TITLES.values())
        return [
            Grid(headers, rows, shown(title), notes, "ll" + "r" * (len(headers) - 2), totals),
            self._worst_groups(groups),
        ]

    def _worst_groups(self, groups: Slices) -> Grid:
        accuracies = groups.values["accuracy"]
        order = np.argsort(accuracies, kind="stable")[:SHOWN_GROUPS]
        rows = [
            [
                _group_name(groups.names[place]),
                f"{groups.counts[place]:,}",
                *(_cell(name, groups.values[name][place]) for name in OF_ONE_CLASS),
            ]
            for place in order
        ]
        totals = [["mean group", "", *(_cell(name, groups.mean(name)) for name in OF_ONE_CLASS)]]
        headers = ("Group", "samples", *(TITLES[name] for name in OF_ONE_CLASS))
        count = len(groups.names)
        title = f"The worst {SHOWN_GROUPS} of {count:,} groups" if count > SHOWN_GROUPS else "Groups"
        return Grid(headers, rows, title, (), "", totals)


def measure_saved(run: Path, step: int | None, part: str, groups: Path | None, bins: int) -> Measured:
    """Measure the predictions that a run has saved.

    Args:
        run: Its folder.
        step: Of the evaluation; None for the last one.
        part: ``"in"``, ``"out"`` or ``"both"``.
        groups: A table with the group of each sample; None for domain and class.
        bins: Of the calibration error.

    Returns:
        The metrics.

    Raises:
        ValueError: If there are no predictions, or the table of groups does not tell that of every sample.
        OSError: If a file cannot be read.
    """
    table = read_predictions(run, step)
    if part != "both":
        table = table.filter(split=part)
        if table.is_empty():
            raise ValueError(f"part: no sample of {run} is in the part {part!r}; allowed is the other one")
    names = _categories(table["domain"])
    spec = read_as(RunSpec, run / SPEC)
    present = set(table["domain"])
    found = evaluate(
        table["target"].cast(pl.String),
        logits=table["logits"].to_numpy(),
        domains=table["domain"].cast(pl.String),
        groups=None if groups is None else _group_of_each(groups, table),
        classes=_categories(table["target"]),
        bins=bins,
    )
    return Measured(
        run,
        read_records(run)[-1]["step"] if step is None else step,
        part,
        {
            name: "target" if index in spec.target_domains else "source"
            for index, name in enumerate(names)
            if name in present
        },
        found,
    )


def _group_of_each(path: Path, table: pl.DataFrame) -> pl.Series:
    """The group of each sample, in the order of the table."""
    start = f"groups: {shown(path)}"
    if path.suffix.lower() not in TABLES:
        raise ValueError(f"groups: must be a table ({', '.join(TABLES)}), got {shown(path)}")
    told = read_table("groups", path, (GROUP, *KEYS[0], *KEYS[1]))
    keys = next((key for key in KEYS if {*key, GROUP} <= set(told.columns)), None)
    if keys is None:
        raise ValueError(
            f"{start} has the columns {', '.join(map(repr, told.columns))}; needed are 'group', and 'file', "
            "or 'domain' and 'sample'"
        )
    if keys == KEYS[0] and table["file"].null_count():
        raise ValueError(f"{start} names files, but the samples have none; give 'domain' and 'sample'")
    told = told.select(pl.col(*keys, GROUP).cast(pl.String)).unique()
    if told.select(keys).is_duplicated().any():
        twice = told.filter(told.select(keys).is_duplicated()).sort(keys)[0]
        raise ValueError(f"{start} gives more than one group to {_sample_name(twice, keys)}")
    samples = table.select(pl.col(*keys).cast(pl.String))
    joined = samples.join(told, on=list(keys), how="left", maintain_order="left")
    missing = joined.filter(pl.col(GROUP).is_null())
    if len(missing):
        raise ValueError(
            f"{start} gives no group to {len(missing):,} of {len(table):,} samples, such as "
            f"{_sample_name(missing[0], keys)}"
        )
    return joined[GROUP]


def _categories(column: pl.Series) -> list[str]:
    """Names in their order, those without a sample among them."""
    assert isinstance(column.dtype, pl.Enum)  # as they were written
    return column.dtype.categories.to_list()


def _sample_name(row: pl.DataFrame, keys: tuple[str, ...]) -> str:
    return ", ".join(f"{key} {row[key].item()!r}" for key in keys)


def _rows(slices: Slices) -> list[dict[str, Any]]:
    return [
        {name: _or_none(value) for name, value in row.items()}
        for row in slices.to_frame().iter_rows(named=True)
    ]


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _cells(values: Any) -> list[str]:
    return [_cell(name, values[name]) for name in TITLES]


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return NOTHING
    return f"{100 * value:.1f}" if name in IN_PERCENT else f"{value:.3f}"


def _group_name(name: object) -> str:
    return " × ".join(map(str, name)) if isinstance(name, tuple) else str(name)
