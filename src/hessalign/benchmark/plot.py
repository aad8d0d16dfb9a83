"""A figure of a sweep: accuracies with their errors, and how far source-validation tells target accuracy."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hessalign.benchmark.names import (
    algorithm_label,
    dataset_label,
    metric_label,
    metric_unit,
    sorted_algorithms,
    sorted_datasets,
)
from hessalign.benchmark.readers import Records
from hessalign.benchmark.selection import RULE_LABELS, Rule, candidates
from hessalign.benchmark.tables import Report, Table
from hessalign.figures import COLOURS, MARKERS, figure_text, save_figure

PANEL_HEIGHT = 3.9
RULE_GAP = 0.2
"""Between the marks of two rules for one algorithm; algorithms are 1 apart."""


def save_plot(records: Records, report: Report, rules: Sequence[Rule], path: Path) -> None:
    """Draw a row for each dataset and setting.

    On the left, of each algorithm the mean over target domains, with its standard error over trials, for each
    rule. On the right, each draw's accuracy on held-out source samples against that on its target domain, at
    the checkpoint with the best source-validation.

    Args:
        records: Of the sweep.
        report: Of the same records and rules.
        rules: Rules of selection.
        path: Output path; the suffix selects the format (.png, .pdf, .svg).

    Raises:
        ValueError: If the format is not known, or there is a folder.
        OSError: If it cannot be written; what was at the path then stays.
    """
    draws = candidates(records.accuracies, "source-validation")
    keys = sorted(draws.select("dataset", "setting").unique().rows())
    rows = [
        (name, setting) for name in sorted_datasets(draws["dataset"]) for key, setting in keys if key == name
    ]
    figure = Figure(figsize=(12.5, PANEL_HEIGHT * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False, width_ratios=(1.25, 1))
    for (left, right), (dataset, setting) in zip(axes, rows, strict=True):
        here = draws.filter(dataset=dataset, setting=setting)
        algorithms = sorted_algorithms(here["algorithm"])
        _draw_accuracies(left, report, algorithms, dataset, setting, rules)
        _draw_draws(right, here, algorithms)
        unit = metric_unit(records.metric).replace("percent", "%")
        name = metric_label(records.metric)
        left.set_ylabel(f"{name}, mean over targets [{unit}]\n± standard error over trials")
        right.set_ylabel(f"target {name} [{unit}]")
        title = " ".join(filter(None, (dataset_label(dataset), f"[{setting}]" * bool(setting))))
        left.set_title(figure_text(title))
    axes[0, 0].legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.1))
    save_figure(figure, path, dpi=150)


def _draw_accuracies(
    axes: Axes, report: Report, algorithms: Sequence[str], dataset: str, setting: str, rules: Sequence[Rule]
) -> None:
    summaries = [table for table in report.tables if table.kind == "summary" and table.setting == setting]
    for place, rule in enumerate(rules):
        cells = _cells(summaries, rule, dataset)
        shown = [name for name in algorithms if name in cells]
        shift = RULE_GAP * (place - (len(rules) - 1) / 2)
        axes.errorbar(
            [algorithms.index(name) + shift for name in shown],
            [cells[name][0] for name in shown],
            yerr=[cells[name][1] for name in shown],
            fmt=MARKERS[place],
            color=COLOURS[place],
            capsize=3,
            label=RULE_LABELS[rule],
        )
    labels = [figure_text(algorithm_label(name)) for name in algorithms]
    axes.set_xticks(range(len(algorithms)), labels, rotation=40, ha="right")
    axes.margins(y=0.12)
    axes.grid(axis="y", alpha=0.25)


def _cells(summaries: Sequence[Table], rule: Rule, dataset: str) -> dict[str, tuple[float, float]]:
    """Mean and standard error of each algorithm that has them."""
    found = {}
    for table in summaries:
        for row in table.rows if table.rule == rule else ():
            for column, cell in zip(table.columns, row.cells, strict=True):
                if column.key == dataset and cell.mean is not None:
                    found[row.algorithm] = (cell.mean, cell.standard_error or 0.0)
    return found


def _draw_draws(axes: Axes, draws: pl.DataFrame, algorithms: Sequence[str]) -> None:
    for place, name in enumerate(algorithms):
        own = draws.filter(algorithm=name)
        axes.scatter(
            100 * own["validation"].to_numpy(),
            100 * own["test"].to_numpy(),
            s=16,
            alpha=0.65,
            linewidths=0,
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            label=figure_text(algorithm_label(name)),
        )
    axes.set_title("each draw, at its best source-validation", fontsize=10)
    axes.set_xlabel("source-validation accuracy [%]")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
