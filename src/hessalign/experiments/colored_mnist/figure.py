"""Source against target accuracy, one mark for each method."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hessalign.experiments.colored_mnist.summary import Row

INVARIANT_CEILING = 75.0  # a quarter of all labels is flipped


def save_figure(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw ours (filled, with standard deviations) and the paper's (hollow), joined by a line.

    Args:
        rows: At least one.
        title: What the figure shows.
        path: Of the PNG; its folder must exist.
    """
    figure = Figure(figsize=(7.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    palette = colormaps["tab20"].colors  # type: ignore[attr-defined]
    for number, row in enumerate(rows):
        _draw(axes, row, palette[number % len(palette)])
    axes.axhline(INVARIANT_CEILING, color="0.6", linestyle=":", linewidth=1)
    axes.annotate(
        "ceiling of a classifier that ignores colour",
        (0.01, INVARIANT_CEILING),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        color="0.4",
        fontsize=8,
    )
    axes.set(xlabel="source (training) accuracy [%]", ylabel="target accuracy [%]", ylim=(0, 85))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _draw(axes: Axes, row: Row, colour: tuple[float, float, float]) -> None:
    axes.errorbar(
        row.source_accuracy,
        row.target_accuracy,
        xerr=row.source_accuracy_std,
        yerr=row.target_accuracy_std,
        fmt="o",
        color=colour,
        capsize=2,
        label=f"{row.label} (n = {row.restarts})",
    )
    if row.paper_source_accuracy is not None and row.paper_target_accuracy is not None:
        axes.plot(
            [row.source_accuracy, row.paper_source_accuracy],
            [row.target_accuracy, row.paper_target_accuracy],
            color=colour,
            linewidth=0.8,
            alpha=0.6,
        )
        axes.plot(
            row.paper_source_accuracy, row.paper_target_accuracy, "o", mfc="none", color=colour, markersize=9
        )
