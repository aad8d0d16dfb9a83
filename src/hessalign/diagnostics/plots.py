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

from hessalign.diagnostics.data import DomainReport, Plot
from hessalign.figures import COLOURS, HEAT, domain_mark, figure_text, save_figures

HEAT_QUANTITIES = ("gradient", "Hessian diagonal", "Hessian Frobenius", "Hessian spectral")
MOST_PAIRS = 10

MOST_DOMAINS = 12
"""Domains that a figure tells one by one; of more, their range and those that stand out."""

MOST_NAMED = 40
"""Domains whose names fit beside a heat map."""

LARGEST_MAP = 4.0
"""Inches."""

STANDING_OUT = 6

MOST_SIGNS = 30
"""Of a name in a figure; the tables have all of it."""
Reports = Mapping[str, DomainReport]


def draw(reports: Reports, kind: Plot) -> Figure:
    """A figure of one report, or of several side by side on common scales.

    Args:
        reports: By title; a single one may have an empty title.
        kind: As [AlignmentReport.plot][hessalign.diagnostics.AlignmentReport.plot] takes it.

    Returns:
        The figure, not yet written.

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
    return save_figures({kind: draw(reports, kind) for kind in get_args(Plot)}, folder)


def shown_name(name: str) -> str:
    """A name as figures have it; the middle of a long one is left out."""
    half = MOST_SIGNS // 2
    return figure_text(name if len(name) <= MOST_SIGNS else f"{name[: half - 1]}…{name[-half:]}")


def legend_columns(width: float, labels: Sequence[str]) -> int:
    """How many columns of a legend in 8 points fit side by side.

    Args:
        width: Of the figure, in inches.
        labels: All of the legend.

    Returns:
        At least 1, at most one for each label.
    """
    widest = 0.5 + 0.07 * max(map(len, labels))
    return max(1, min(len(labels), int(width / widest)))


def _draw_distances(reports: Reports) -> Figure:
    count = max(len(report.names) for report in reports.values())
    named = count <= MOST_NAMED
    longest = max(len(shown_name(name)) for report in reports.values() for name in report.names)
    # In inches; letters in 8 points.
    side, labels = min(max(2.0, 0.55 * count + 0.4), LARGEST_MAP), (0.075 * longest if named else 0.2) + 0.2
    quantities = [quantity for quantity in HEAT_QUANTITIES if _is_whole(reports, quantity)]
    figure = Figure(
        figsize=((side + 0.8) * len(quantities) + labels + 0.3, (side + 0.8 * labels) * len(reports) + 0.4),
        layout="constrained",
    )
    grid = figure.subplots(len(reports), len(quantities), squeeze=False)
    highest = {
        quantity: max(1e-12, *(float(distance_matrix(report, quantity).max()) for report in reports.values()))
        for quantity in quantities
    }
    for place, (title, report) in enumerate(reports.items()):
        row = grid[place]
        order = _like_together(report)
        names = [report.names[index] for index in order]
        for axes, quantity in zip(row, quantities, strict=True):
            matrix = distance_matrix(report, quantity)[np.ix_(order, order)]
            image = axes.imshow(matrix, cmap=HEAT, norm=Normalize(0, highest[quantity]))
            if place == 0:
                axes.set_title(quantity, fontsize=9)
            if named:
                _name_axes(axes, names, min(8.0, 60 * side / len(names)), labelled=axes is row[0])
            else:
                axes.set_xlabel(f"{len(names)} domains, like ones together", fontsize=8)
                axes.tick_params(labelsize=7)
            if len(names) <= MOST_DOMAINS:
                _write_values(axes, matrix, highest[quantity])
            figure.colorbar(image, ax=axes, shrink=0.75, label="distance" if axes is row[-1] else None)
        row[0].set_ylabel(shown_name(title), fontsize=9, fontweight="bold")
    return figure


def distance_matrix(report: DomainReport, quantity: str) -> np.ndarray:
    """A quantity's distances between all domains, ``(m, m)``; NaN for pairs that have none."""
    matrix = np.full((len(report.names), len(report.names)), np.nan)
    np.fill_diagonal(matrix, 0.0)
    places = {name: index for index, name in enumerate(report.names)}
    rows = report.to_frame("distances").filter(pl.col("quantity") == quantity)
    first, second = (
        rows[column].replace_strict(places, return_dtype=pl.Int64).to_numpy()
        for column in ("first", "second")
    )
    matrix[first, second] = matrix[second, first] = rows["distance"].to_numpy()
    return matrix


def _is_whole(reports: Reports, quantity: str) -> bool:
    """Whether all pairs of all reports have the quantity."""
    return not any(np.isnan(distance_matrix(report, quantity)).any() for report in reports.values())


def _like_together(report: DomainReport) -> list[int]:
    """Order of domains: as given, or, where there are many, like ones together."""
    if len(report.names) <= MOST_DOMAINS:
        return list(range(len(report.names)))
    order: list[int] = np.argsort(report.to_frame("domains")["place"].to_numpy()).tolist()
    return order


def _name_axes(axes: Axes, names: Sequence[str], size: float, *, labelled: bool) -> None:
    shown = list(map(shown_name, names))
    axes.set_xticks(range(len(names)), shown, rotation=45, ha="right", fontsize=size)
    axes.set_yticks(range(len(names)), shown if labelled else [""] * len(names), fontsize=size)


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
        names = list(report.names)
        if len(names) > MOST_DOMAINS:
            leading = table.filter(pl.col("number") == 1).sort("eigenvalue", descending=True)["domain"]
            names = [*leading.head(STANDING_OUT // 2), *leading.tail(STANDING_OUT // 2)]
            _draw_range(axes, table)
        for number, name in enumerate(names):
            values = table.filter(pl.col("domain") == name)
            colour, marker = domain_mark(number)
            axes.plot(
                values["number"],
                values["eigenvalue"],
                color=colour,
                marker=marker,
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


def _draw_range(axes: Axes, table: pl.DataFrame) -> None:
    """Median of all domains, and what lies between their 5 % and their 95 %."""
    column = pl.col("eigenvalue")
    ends = table.group_by("number", maintain_order=True).agg(
        middle=column.median(), low=column.quantile(0.05), high=column.quantile(0.95)
    )
    axes.fill_between(ends["number"], ends["low"], ends["high"], color="0.85", label="90 % of all domains")
    axes.plot(ends["number"], ends["middle"], color=COLOURS[0], linewidth=1.2, label="median")


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
                color=domain_mark(number)[0],
            )
            for bar, pair in zip(bars, pairs[title], strict=True):
                if not found[pair]:
                    bar.set(alpha=0.3, hatch="////", edgecolor=domain_mark(number)[0])
            for position in positions[~np.array(told)]:
                axes.text(
                    0, position, " too few samples", va="center", fontsize=6, color=domain_mark(number)[0]
                )
        labels = [f"{shown_name(first)} – {shown_name(second)}" for first, second in pairs[title]]
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel="difference [nats a sample]", title=shown_name(title))
        axes.grid(axis="x", alpha=0.25)
    row[0].set_xlim(left=0)
    handles = [
        Patch(color=domain_mark(number)[0], label=name)
        for number, name in enumerate(next(iter(reports.values())).attributes)
    ]
    handles.append(Patch(facecolor="0.85", edgecolor="0.5", hatch="////", label="may be chance"))
    columns = legend_columns(figure.get_figwidth(), [str(handle.get_label()) for handle in handles])
    figure.legend(handles=handles, ncols=columns, fontsize=8, frameon=False, loc="outside lower center")
    return figure


def _pairs_to_draw(report: DomainReport) -> list[tuple[str, str]]:
    """All pairs; where there are many, those that differ most, by Hessian where the effects are alike."""
    pairs = report.extremes(MOST_PAIRS)
    if len(report.to_frame("pairs")) > MOST_PAIRS:
        sums = report.to_frame("attributes").group_by("first", "second").agg(pl.col("effect").sum())
        every = report.to_frame("pairs").select("first", "second")
        summed = every.join(sums, on=["first", "second"], maintain_order="left")
        pairs = summed.sort("effect", descending=True, maintain_order=True).head(MOST_PAIRS)
    return list(pairs.select("first", "second").iter_rows())


def _draw_plane(reports: Reports) -> Figure:
    figure = Figure(figsize=(3.6 * len(reports) + 0.8, 4.1), layout="constrained")
    coordinates = [report.to_frame("plane")[:, 1:3].to_numpy() for report in reports.values()]
    reach = 1.2 * max(1e-12, *(float(np.abs(values).max()) for values in coordinates))
    row = figure.subplots(1, len(reports), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (title, report) in zip(row, reports.items(), strict=True):
        table = report.to_frame("plane")
        places = table.select("domain", "first direction", "second direction").rows()
        if len(places) > MOST_DOMAINS:
            axes.scatter(
                table["first direction"], table["second direction"], s=9, color="0.6", label="others"
            )
            places = sorted(places, key=lambda place: -float(np.hypot(*place[1:])))[:STANDING_OUT]
        for number, (name, across, up) in enumerate(places):
            colour, marker = domain_mark(number)
            axes.scatter(
                across,
                up,
                s=70,
                facecolors="none",  # domains that coincide must not hide each other
                edgecolors=colour,
                marker=marker,
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
    # Where domains are many, those that stand out differ from report to report.
    told = [axes.get_legend_handles_labels() for axes in row]
    shown = {label: handle for pair in reversed(told) for handle, label in zip(*pair, strict=True)}
    if max(len(report.names) for report in reports.values()) > MOST_DOMAINS:
        for axes in row:
            axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
        return figure
    handles, labels = list(shown.values()), list(shown)
    columns = legend_columns(figure.get_figwidth(), labels)
    figure.legend(handles, labels, ncols=columns, fontsize=8, frameon=False, loc="outside lower center")
    return figure
