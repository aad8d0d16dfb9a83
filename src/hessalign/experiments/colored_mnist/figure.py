"""Source against target accuracy, one mark for each method."""

import hashlib
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hessalign.experiments.colored_mnist.table import Row
from hessalign.figures import COLOURS
from hessalign.figures import save_figure as write_figure

INVARIANT_CEILING = 75.0  # a quarter of all labels is flipped
MARKERS = ("o", "s", "^", "D")
LEGEND_WIDTH = 32  # characters: longer names go on below, lest the legend leave no room for the marks


def fingerprint(drawn: object) -> str:
    """Short hash of what a figure shows, written into it: it tells whether the figure is up to date."""
    return hashlib.sha256(repr(drawn).encode()).hexdigest()[:16]


def save_figure(rows: Sequence[Row], title: str, note: str | None, path: Path) -> None:
    """Write the figure of the rows as PNG, with their ``fingerprint`` as its description.

    Args:
        rows: At least one.
        title: What the figure shows.
        note: A caveat to print below the title.
        path: Output path of the PNG; its folder must exist.
    """
    figure = draw_figure(rows, title, note)
    write_figure(figure, path, dpi=150, description=fingerprint(tuple(rows)))


def draw_figure(rows: Sequence[Row], title: str, note: str | None) -> Figure:
    """Ours (filled, with standard deviations) and the paper's (hollow), joined by a line.

    Args:
        rows: At least one.
        title: What the figure shows.
        note: A caveat to print below the title.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for number, row in enumerate(rows):
        marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        _draw(axes, row, COLOURS[number % len(COLOURS)], marker)
    axes.axhline(INVARIANT_CEILING, color="0.6", linestyle=":", linewidth=1)
    axes.annotate(
        "ceiling of a classifier that ignores colour",
        (0.99, INVARIANT_CEILING),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        horizontalalignment="right",
        textcoords="offset points",
        color="0.4",
        fontsize=8,
    )
    axes.set(xlabel="source (training) accuracy [%]", ylabel="target accuracy [%]", ylim=(0, 85))
    figure.suptitle(title, fontsize=11)
    if note is not None:
        axes.set_title(textwrap.fill(note, 95), fontsize=8, color="0.3")
    axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    if any(row.paper_target_accuracy is not None for row in rows):
        handles.append(Line2D([], [], marker="o", linestyle="", mfc="none", color="0.4", markersize=9))
        labels.append("hollow: the paper's figure")
    axes.legend(
        handles,
        [textwrap.fill(label, LEGEND_WIDTH, break_on_hyphens=False) for label in labels],
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
    )
    return figure


def _draw(axes: Axes, row: Row, colour: str, marker: str) -> None:
    axes.errorbar(
        row.source_accuracy,
        row.target_accuracy,
        xerr=row.source_accuracy_std,
        yerr=row.target_accuracy_std,
        fmt=marker,
        color=colour,
        capsize=2,
        label=f"{row.label} (n = {row.restarts})",
    )
    if row.paper_source_accuracy is not None and row.paper_target_accuracy is not None:
        joined = (
            [row.source_accuracy, row.paper_source_accuracy],
            [row.target_accuracy, row.paper_target_accuracy],
        )
        axes.plot(*joined, color=colour, linewidth=0.8, alpha=0.6)
        axes.plot(joined[0][1], joined[1][1], marker, mfc="none", color=colour, markersize=9)
