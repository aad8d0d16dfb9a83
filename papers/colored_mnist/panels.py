"""Curves in panels, stamped with what they were drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hessalign.experiments.colored_mnist.figure import fingerprint
from hessalign.figures import COLOURS, save_figure
from papers.colored_mnist.intervals import Interval

LINES = ("-", "--", ":")
PANELS_IN_A_ROW = 3


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        label: For the legend.
        x: Positions.
        y: Values, as many.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Level:
    """A value that curves are to be compared with, as a horizontal line.

    Attributes:
        label: For the legend.
        y: Where.
    """

    label: str
    y: float


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        title: Above it.
        x_label: Below it.
        curves: At least one; curves at the same place in different panels share a colour.
        log_x: Whether positions are on a logarithmic scale.
        log_y: Whether values are.
        marks: Whether each value has a mark, and its position a number below it.
        levels: For comparison.
    """

    title: str
    x_label: str
    curves: tuple[Curve, ...]
    log_x: bool = False
    log_y: bool = False
    marks: bool = False
    levels: tuple[Level, ...] = ()


def save_panels(panels: Sequence[Panel], path: Path) -> None:
    """Draw panels, three in a row, with the legend of the first.

    Args:
        panels: At least one.
        path: Output path of the PNG, whose folder must exist; its description is the panels' fingerprint.
    """
    columns = min(len(panels), PANELS_IN_A_ROW)
    rows = ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns, 0.6 + 3.6 * rows), layout="constrained")
    for position, panel in enumerate(panels, 1):
        _draw(panel, figure.add_subplot(rows, columns, position))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8)
    save_figure(figure, path, dpi=110, description=fingerprint(tuple(panels)))


@dataclass(frozen=True)
class Compared:
    """A row of a table against the paper's.

    Attributes:
        label: Beside it.
        train: Ours minus the paper's.
        target: Likewise.
    """

    label: str
    train: Interval
    target: Interval


def save_differences(rows: Sequence[Compared], title: str, path: Path) -> None:
    """Draw how far each row lies from the paper's, with intervals, for train and target accuracy.

    Args:
        rows: At least one, from the top.
        title: Above both panels.
        path: Output path of the PNG, whose folder must exist; its description is the rows' fingerprint.
    """
    figure = Figure(figsize=(9.6, 1.2 + 0.32 * len(rows)), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("train", "target"), strict=True):
        for place, row in enumerate(rows):
            found: Interval = getattr(row, name)
            agrees = not found.judges or found.above(0) == "open"
            colour = COLOURS[4] if agrees else COLOURS[5]
            axes.plot((found.low, found.high), (place, place), color=colour, linewidth=1.6)
            axes.plot(found.value, place, "o" if agrees else "s", color=colour, markersize=5)
        axes.axvline(0, color="grey", linewidth=1)
        axes.set(title=f"{name} accuracy", xlabel="points, 95 % interval")
        axes.grid(alpha=0.25, axis="x")
    panels[0].set_yticks(range(len(rows)), [row.label for row in rows])
    panels[0].invert_yaxis()
    save_figure(figure, path, dpi=110, description=fingerprint(tuple(rows)))


def _draw(panel: Panel, axes: Axes) -> None:
    for number, curve in enumerate(panel.curves):
        axes.plot(
            curve.x,
            curve.y,
            LINES[number // len(COLOURS) % len(LINES)],
            marker="o" if panel.marks else None,
            color=COLOURS[number % len(COLOURS)],
            linewidth=1.4,
            label=curve.label,
        )
    for number, level in enumerate(panel.levels):
        axes.axhline(
            level.y,
            color="grey",
            linestyle=LINES[(1 + number) % len(LINES)],
            linewidth=1.2,
            label=level.label,
        )
    axes.set(title=panel.title, xlabel=panel.x_label)
    axes.set_xscale("log" if panel.log_x else "linear")
    axes.set_yscale("log" if panel.log_y else "linear")
    axes.grid(alpha=0.25)
    if panel.marks:
        positions = sorted({x for curve in panel.curves for x in curve.x})
        axes.set_xticks(positions, [f"{x:.4g}" for x in positions])
        axes.minorticks_off()
