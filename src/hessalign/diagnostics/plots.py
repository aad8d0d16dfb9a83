"""Figures of a report, for print: readable in grey and by colour-blind readers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hessalign.diagnostics.report import AlignmentReport, Plot
from hessalign.figures import check_figure_path, figure_text, save_figure

__all__ = ["check_figure_path", "draw", "legend_columns", "save_figure", "save_plots", "shown_name"]

# Those of hessalign.figures, in an order that leaves black to what all domains share.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HEAT_QUANTITIES = ("gradient", "Hessian diagonal", "Hessian Frobenius", "Hessian spectral")
MOST_PAIRS = 10
MOST_SIGNS = 30
"""Of a name in a figure; the tables have all of it."""
Reports = Mapping[str, AlignmentReport]


def draw(reports: Reports, kind: Plot) -> Figure:
    """A figure of one report, or of several side by side on common scales.

    Args:
        reports: By title; a single one may have an empty title.
        kind: As [AlignmentReport.plot][hessalign.diagnostics.AlignmentReport.plot] takes it.

    Raises:
        ValueError: If there is no such plot.
    """
    drawings = {
        "distances": _draw_distances,
        "eigenvalues": _draw_eigenvalues,
        "attributes": _draw_attributes,
        "plane": _draw_plane,
    }
    if kind not in drawings:
        raise ValueError(f"kind: {kind!r} is not known; allowed are {', '.join(map(repr, get_args(Plot)))}")
    return drawings[kind](reports)


def save_plots(reports: Reports, folder: Path) -> list[Path]:
    """Write every figure as PNG and as PDF.

    Returns:
        The PNGs' paths.

    Raises:
        OSError: If they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind in get_args(Plot):
        figure = draw(reports, kind)
        paths.append(folder / f"{kind}.png")
        for path in (paths[-1], paths[-1].with_suffix(".pdf")):
            save_figure(figure, path)
    return paths


def shown_name(name: str) -> str:
    """A name as figures have it; the middle of a long one is left out."""
    half = MOST_SIGNS // 2
    return figure_text(name if len(name) <= MOST_SIGNS else f"{name[: half - 1]}…{name[-half:]}")


def legend_columns(width: float, labels: Sequence[str]) -> int:
    """How many columns of a legend in 8 points fit side by side.

    Args:
        width: Of the figure, in inches.
        labels: All of the legend.
    """
    widest = 0.5 + 0.07 * max(map(len, labels))
    return max(1, min(len(labels), int(width / widest)))


def _draw_distances(reports: Reports) -> Figure:
    count = max(len(report.names) for report in reports.values())
    longest = max(len(shown_name(name)) for report in reports.values() for name in report.names)
    side, labels = max(2.0, 0.55 * count + 0.4), 0.075 * longest + 0.2  # inches; letters in 8 points
    figure = Figure(
        figsize=(
            (side + 0.8) * len(HEAT_QUANTITIES) + labels + 0.3,
            (side + 0.8 * labels) * len(reports) + 0.4,
        ),
        layout="constrained",
    )
    grid = figure.subplots(len(reports), len(HEAT_QUANTITIES), squeeze=False)
    for place, (title, report) in enumerate(reports.items()):
        row = grid[place]
        for axes, quantity in zip(row, HEAT_QUANTITIES, strict=True):
            matrix = distance_matrix(report, quantity)
            image = axes.imshow(matrix, cmap="cividis", norm=Normalize(0, _highest(reports, quantity)))
            if place == 0:
                axes.set_title(quantity, fontsize=9)
            _name_axes(axes, report.names, labelled=axes is row[0])
            _write_values(axes, matrix, _highest(reports, quantity))
            figure.colorbar(image, ax=axes, shrink=0.75, label="distance" if axes is row[-1] else None)
        row[0].set_ylabel(shown_name(title), fontsize=9, fontweight="bold")
    return figure


def distance_matrix(report: AlignmentReport, quantity: str) -> np.ndarray:
    """A quantity's distances between all domains, ``(m, m)``."""
    place = {name: index for index, name in enumerate(report.names)}
    matrix = np.zeros((len(place), len(place)))
    rows = report.to_frame("distances").filter(pl.col("quantity") == quantity)
    for first, second, distance in rows.select("first", "second", "distance").iter_rows():
        matrix[place[first], place[second]] = matrix[place[second], place[first]] = distance
    return matrix


def _highest(reports: Reports, quantity: str) -> float:
    return max(1e-12, *(float(distance_matrix(report, quantity).max()) for report in reports.values()))


def _name_axes(axes: Axes, names: tuple[str, ...], *, labelled: bool) -> None:
    shown = list(map(shown_name, names))
    axes.set_xticks(range(len(names)), shown, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), shown if labelled else [""] * len(names), fontsize=8)


def _write_values(axes: Axes, matrix: np.ndarray, highest: float) -> None:
    for row in range(len(matrix)):
        for column in range(len(matrix)):
            if row != column:
                colour = "black" if matrix[row, column] > 0.6 * highest else "white"
                text = f"{matrix[row, column]:.2g}"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def _draw_eigenvalues(reports: Reports) -> Figure:
    figure = Figure(figsize=(4.2 * len(reports) + 0.4, 3.4), layout="constrained")
    row = figure.subplots(1, len(reports), squeeze=False, sharey=True)[0]
    for axes, (title, report) in zip(row, reports.items(), strict=True):
        table = report.to_frame("eigenvalues")
        for number, name in enumerate(report.names):
            values = table.filter(pl.col("domain") == name)
            axes.plot(
                values["number"],
                values["eigenvalue"],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                linewidth=1,
                label=shown_name(name),
            )
        axes.set(xlabel="number", title=shown_name(title))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        if bool((table["eigenvalue"] > 0).all()):
            axes.set_yscale("log")
            axes.tick_params(which="both", labelsize=8)
    row[0].set_ylabel("eigenvalue of the head's Hessian\n[loss / weight²]")
    row[-1].legend(fontsize=8, frameon=False)
    return figure


def _draw_attributes(reports: Reports) -> Figure:
    pairs = {title: _pairs_to_draw(report) for title, report in reports.items()}
    height = 0.5 + 0.62 * max(map(len, pairs.values()))
    figure = Figure(figsize=(4.6 * len(reports) + 1.6, height + 1.1), layout="constrained")
    row = figure.subplots(1, len(reports), squeeze=False, sharex=True)[0]
    for axes, (title, report) in zip(row, reports.items(), strict=True):
        table = report.to_frame("attributes")
        for number, attribute in enumerate(report.attributes):
            values = table.filter(pl.col("attribute") == attribute)
            effects = {
                (first, second): effect
                for first, second, effect in values.select("first", "second", "effect").iter_rows()
            }
            found = {
                (first, second): sure
                for first, second, sure in values.select("first", "second", "found").iter_rows()
            }
            positions = np.arange(len(pairs[title])) + 0.2 * (number - 1.5)
            told = [effects[pair] is not None for pair in pairs[title]]
            bars = axes.barh(
                positions,
                [effects[pair] or 0.0 for pair in pairs[title]],
                height=0.18,
                color=COLOURS[number],
            )
            for bar, pair in zip(bars, pairs[title], strict=True):
                if not found[pair]:
                    bar.set(alpha=0.3, hatch="////", edgecolor=COLOURS[number])
            for position in positions[~np.array(told)]:
                axes.text(0, position, " too few samples", va="center", fontsize=6, color=COLOURS[number])
        labels = [f"{shown_name(first)} – {shown_name(second)}" for first, second in pairs[title]]
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel="difference [nats a sample]", title=shown_name(title))
        axes.grid(axis="x", alpha=0.25)
    handles = [
        Patch(color=COLOURS[number], label=name)
        for number, name in enumerate(next(iter(reports.values())).attributes)
    ]
    handles.append(Patch(facecolor="0.85", edgecolor="0.5", hatch="////", label="may be chance"))
    columns = legend_columns(figure.get_figwidth(), [str(handle.get_label()) for handle in handles])
    figure.legend(handles=handles, ncols=columns, fontsize=8, frameon=False, loc="outside lower center")
    return figure


def _pairs_to_draw(report: AlignmentReport) -> list[tuple[str, str]]:
    """All pairs, or those that differ most where there are many."""
    table = (
        report.to_frame("attributes")
        .group_by("first", "second", maintain_order=True)
        .agg(pl.col("effect").sum())
    )
    if len(table) > MOST_PAIRS:
        table = table.sort("effect", descending=True).head(MOST_PAIRS)
    return list(table.select("first", "second").iter_rows())


def _draw_plane(reports: Reports) -> Figure:
    figure = Figure(figsize=(3.6 * len(reports) + 0.8, 4.1), layout="constrained")
    places = [report.to_frame("plane")[:, 1:3].to_numpy() for report in reports.values()]
    reach = 1.2 * max(1e-12, *(float(np.abs(place).max()) for place in places))
    row = figure.subplots(1, len(reports), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (title, report) in zip(row, reports.items(), strict=True):
        table = report.to_frame("plane")
        for number, (name, across, up) in enumerate(
            table.select("domain", "first direction", "second direction").iter_rows()
        ):
            axes.scatter(
                across,
                up,
                s=70,
                facecolors="none",  # domains that coincide must not hide each other
                edgecolors=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                linewidths=1.8,
                zorder=3,
                label=shown_name(name),
            )
        first, second = table["first share"][0], table["second share"][0]
        axes.set(
            xlabel=f"first direction [{100 * first:.0f} % of the spread]",
            ylabel=f"second direction [{100 * second:.0f} %]",
            title=shown_name(title),
        )
        axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.grid(alpha=0.25)
    handles, labels = row[0].get_legend_handles_labels()
    columns = legend_columns(figure.get_figwidth(), labels)
    figure.legend(handles, labels, ncols=columns, fontsize=8, frameon=False, loc="outside lower center")
    return figure
