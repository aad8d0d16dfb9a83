"""How a training run went: its objective, the penalty and what that is made of, and accuracies."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hessalign.figures import COLOURS, domain_mark, figure_text, save_figure, save_figures
from hessalign.runs import (
    METRICS,
    METRICS_FIELD,
    PREDICTIONS_FIELD,
    SPEC,
    UNDEFINED,
    divergence,
    read_as,
    read_records,
)
from hessalign.training import RunSpec

NOT_CURVES = {"step", "accuracies", METRICS_FIELD, UNDEFINED, PREDICTIONS_FIELD, "step_seconds", "diverged"}
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

    Raises:
        ValueError: If spec or records are damaged, naming the file.
        OSError: If a file cannot be read.
    """
    records = read_records(run)
    if not records or not (run / SPEC).is_file():
        return None
    spec = read_as(RunSpec, run / SPEC)
    domains = tuple(records[0].get("accuracies", ()))
    if not domains or any(tuple(record.get("accuracies", ())) != domains for record in records):
        raise ValueError(f"{run / METRICS}: the records do not tell accuracies of the same domains")
    title = f"{spec.algorithm} on {spec.dataset}"
    if divergence(records) is not None:
        title += f", diverged at step {records[-1]['step']}"
    return TrainingHistory(title, records, domains, spec.target_domains)


def save_training_curves(run: Path, path: Path) -> None:
    """Draw what a run's metrics.jsonl reports: loss, penalty and its parts by domain, and accuracies.

    Args:
        run: Folder of the run.
        path: Output path; the suffix selects the format (.png, .pdf, .svg).

    Raises:
        ValueError: If the folder holds no run that was evaluated, or the format is not known.
        OSError: If the figure cannot be written.
    """
    history = read_history(run)
    if history is None:
        raise ValueError(f"run: {run} holds no run that was evaluated; there is nothing to draw")
    save_figure(draw_training_curves(history), path)


def save_all_curves(runs: Sequence[Path], folder: Path) -> list[Path]:
    """Draw the training curves of whatever is a run that was evaluated, as PNG and PDF.

    Args:
        runs: Folders of runs; others are passed over.
        folder: Where the figures go.

    Returns:
        The PNGs' paths.

    Raises:
        ValueError: If spec or records of a run are damaged, naming the file.
        OSError: If a file cannot be read or written.
    """
    histories = [history for run in runs if (history := read_history(run)) is not None]
    names = (
        ["training"] if len(histories) == 1 else [f"training-{count + 1}" for count in range(len(histories))]
    )
    return save_figures(dict(zip(names, map(draw_training_curves, histories), strict=True)), folder)


def draw_training_curves(history: TrainingHistory) -> Figure:
    """A panel for the objective, one for each quantity reported besides, and one for accuracies.

    Metrics of one name that end in ``_0``, ``_1`` ..., one for each source domain, are drawn together, each
    in its domain's colour. All others have a panel of their own. A point is the mean over the steps since the
    last evaluation; where that was not finite there is none.

    Returns:
        The figure, not yet written.
    """
    panels = _panels(history)
    count = len(panels) + 1
    columns = 2 if count in (2, 4) else 3
    rows = -(-count // columns)
    figure = Figure(figsize=(3.3 * columns, 2.6 * rows), layout="constrained")
    figure.suptitle(f"{figure_text(history.title)}; means between evaluations", fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, names) in zip(grid, panels.items(), strict=False):
        axes.set_title(TITLES.get(title, figure_text(title.replace("_", " "))), fontsize=9)
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


def _panels(history: TrainingHistory) -> dict[str, list[str]]:
    """Names of metrics by panel."""
    panels: dict[str, list[str]] = {}
    numbers = _numbers(history)
    for name in dict.fromkeys(name for record in history.records for name in record):
        if name not in NOT_CURVES:
            own = name.rpartition("_")[0] if name in numbers else name
            panels.setdefault(OBJECTIVE_TITLE if name in OBJECTIVE else own, []).append(name)
    return panels


def _numbers(history: TrainingHistory) -> dict[str, int]:
    """Which source domain a metric belongs to, for those that there is one of for each source domain."""
    names = {name for record in history.records for name in record}
    stems = {name.rpartition("_")[0] for name in names}
    found: dict[str, int] = {}
    for stem in stems:
        numbered = {name for name in names if re.fullmatch(rf"{re.escape(stem)}_\d+", name)}
        expected = {f"{stem}_{number}": number for number in range(len(history.sources))}
        if numbered == expected.keys():
            found |= expected
    return found


def _draw_metric(axes: Axes, history: TrainingHistory, name: str) -> None:
    """One line: of a source domain in its colour, of all together in black."""
    steps = [record["step"] for record in history.records if name in record]
    values = [_value(record[name]) for record in history.records if name in record]
    number = _numbers(history).get(name)
    if name == "risk":
        axes.plot(steps, values, color=COLOURS[0], linestyle="--", linewidth=1.2, label="risk")
    elif number is None:
        label = "loss" if name == "loss" else "mean"
        axes.plot(steps, values, color=COLOURS[0], linewidth=1.2, label=label)
    else:
        domain = history.domains.index(history.sources[number])
        axes.plot(steps, values, label=figure_text(history.sources[number]), **_style(domain, len(steps)))


def _draw_accuracies(axes: Axes, history: TrainingHistory) -> None:
    """On the held-out part of source domains, and on the larger part of the targets."""
    steps = [record["step"] for record in history.records]
    for index, name in enumerate(history.domains):
        target = index in history.targets
        part = "in" if target else "out"
        values = [100 * _value(record["accuracies"][name][part]) for record in history.records]
        style = _style(index, len(steps)) | ({"linestyle": "--"} if target else {})
        axes.plot(steps, values, label=figure_text(f"{name} (target)" if target else name), **style)
    axes.set_title("accuracy [%], sources held out", fontsize=9)


def _value(value: float | None) -> float:
    """A value that was not finite, or not measured, is a gap."""
    return float("nan") if value is None else value


def _style(domain: int, points: int) -> dict[str, Any]:
    """Colour and marker of a domain; about ten markers on a line."""
    colour, marker = domain_mark(domain)
    return {
        "color": colour,
        "marker": marker,
        "markersize": 3,
        "markevery": max(1, points // 10),
        "linewidth": 1.0,
    }


def _choose_scale(axes: Axes) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > SPAN_OF_LINEAR_AXIS * values.min():
        axes.set_yscale("log")
