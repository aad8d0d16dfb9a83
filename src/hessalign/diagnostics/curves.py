"""How a training run went: its objective, the penalty and what that is made of, and accuracies."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hessalign.diagnostics.plots import COLOURS, MARKERS, save_figure
from hessalign.training import RunSpec, read_records
from hessalign.training.trainer import SPEC

NOT_CURVES = {"step", "accuracies", "step_seconds"}
OBJECTIVE = ("loss", "risk")
OBJECTIVE_TITLE = "loss (objective) and risk"
TITLES = {
    "gradient": "gradient distance",
    "hessian": "Hessian distance",
    "hessian_size": "size of the Hessian",
}
# Where values of all sizes share a panel, a linear axis would show the largest alone.
SPAN_OF_LINEAR_AXIS = 30


@dataclass(frozen=True)
class TrainingHistory:
    """What a run has reported so far.

    Attributes:
        title: Of the figure: what was trained on which data.
        records: Lines of metrics.jsonl, at least one.
        domains: Names of all domains.
        targets: Indices of those that are never trained on.
    """

    title: str
    records: Sequence[Mapping[str, Any]]
    domains: tuple[str, ...]
    targets: tuple[int, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the source domains, in the order in which their metrics are numbered."""
        return tuple(name for index, name in enumerate(self.domains) if index not in self.targets)


def read_history(run: Path) -> TrainingHistory | None:
    """What there is to draw of a run.

    Args:
        run: Folder of the run.

    Returns:
        Its history; None where the folder holds no run that was evaluated.
    """
    records = read_records(run)
    if not records or not (run / SPEC).is_file():
        return None
    spec = RunSpec.model_validate_json((run / SPEC).read_text(encoding="utf-8"))
    return TrainingHistory(
        f"{spec.algorithm} on {spec.dataset}", records, tuple(records[0]["accuracies"]), spec.target_domains
    )


def save_training_curves(run: Path, path: Path) -> None:
    """Draw what a run's metrics.jsonl reports: loss, penalty and its parts by domain, and accuracies.

    Args:
        run: Folder of the run.
        path: Of the figure; its ending tells the format.

    Raises:
        ValueError: If the folder holds no run that was evaluated, or the format is not known.
        OSError: If the figure cannot be written.
    """
    history = read_history(run)
    if history is None:
        raise ValueError(f"run: {run} holds no run that was evaluated; there is nothing to draw")
    save_figure(draw_training_curves(history), path)


def draw_training_curves(history: TrainingHistory) -> Figure:
    """A panel for the objective, one for each quantity reported besides, and one for accuracies.

    A metric whose name ends in ``_0``, ``_1`` ... belongs to that source domain and is drawn with the others
    of its name. A point is the mean over the steps since the last evaluation.
    """
    panels = _panels(history.records)
    count = len(panels) + 1
    columns = 2 if count in (2, 4) else 3
    rows = -(-count // columns)
    figure = Figure(figsize=(3.3 * columns, 2.6 * rows), layout="constrained")
    figure.suptitle(f"{history.title}; means between evaluations", fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, names) in zip(grid, panels.items(), strict=False):
        axes.set_title(TITLES.get(title, title.replace("_", " ")), fontsize=9)
        for name in names:
            _draw_metric(axes, history, name)
        _choose_scale(axes)
    _draw_accuracies(grid[len(panels)], history)
    for axes in grid[:count]:
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(which="both", labelsize=8)
        axes.grid(alpha=0.25)
        if len(axes.lines) > 1:
            axes.legend(fontsize=7, frameon=False)
    for axes in grid[count:]:
        axes.remove()
    return figure


def _panels(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names of metrics by panel."""
    panels: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        if name not in NOT_CURVES:
            panel = OBJECTIVE_TITLE if name in OBJECTIVE else re.sub(r"_\d+$", "", name)
            panels.setdefault(panel, []).append(name)
    return panels


def _draw_metric(axes: Axes, history: TrainingHistory, name: str) -> None:
    """One line: of a source domain in its colour, of all together in black."""
    steps, values = zip(
        *((record["step"], record[name]) for record in history.records if name in record), strict=True
    )
    numbered = re.search(r"_(\d+)$", name)
    if name == "risk":
        axes.plot(steps, values, color=COLOURS[0], linestyle="--", linewidth=1.2, label="risk")
    elif numbered is None:
        label = "loss" if name == "loss" else "mean"
        axes.plot(steps, values, color="black", linewidth=1.2, label=label)
    else:
        number = int(numbered[1])
        domain = history.domains.index(history.sources[number])
        axes.plot(steps, values, label=history.sources[number], **_style(domain, len(steps)))


def _draw_accuracies(axes: Axes, history: TrainingHistory) -> None:
    """On the held-out part of source domains, and on the larger part of the targets."""
    steps = [record["step"] for record in history.records]
    for index, name in enumerate(history.domains):
        target = index in history.targets
        values = [100 * record["accuracies"][name]["in" if target else "out"] for record in history.records]
        style = _style(index, len(steps)) | ({"linestyle": "--"} if target else {})
        axes.plot(steps, values, label=f"{name} (target)" if target else name, **style)
    axes.set_title("accuracy [%], sources held out", fontsize=9)


def _style(domain: int, points: int) -> dict[str, Any]:
    """Colour and marker of a domain; about ten markers on a line."""
    return {
        "color": COLOURS[domain % len(COLOURS)],
        "marker": MARKERS[domain % len(MARKERS)],
        "markersize": 3,
        "markevery": max(1, points // 10),
        "linewidth": 1.0,
    }


def _choose_scale(axes: Axes) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    if values.min() > 0 and values.max() > SPAN_OF_LINEAR_AXIS * values.min():
        axes.set_yscale("log")
