"""What a comparison of heads found: tables, a page, a figure, and what the evidence supports."""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hessalign.checks import require_choice, require_path
from hessalign.estimator.auto import standard_error
from hessalign.figures import domain_mark, figure_text, png_bytes, save_figure
from hessalign.files import write_atomically
from hessalign.grid import NOTHING, Grid, Mark
from hessalign.markup import counted
from hessalign.pages import render

BASELINE = "logistic regression"
BEST_ON_SOURCES = "best on the sources"
"""For each target, the head that did best on its sources, of those that were chosen over the baseline."""
CLEAR = 2.0
"""Standard errors from which a difference is told."""
BEYOND = 0.02275
"""Share of heads without any difference that lie so far on one side by chance."""
MOST_COLUMNS = 8
"""Targets that have a column of their own."""

Table = Literal["heads", "targets", "shifts"]
Compared = Literal["accuracy", "log_loss"]
UNIT: Mapping[Compared, str] = {"accuracy": "points", "log_loss": "nats"}
DIGITS: Mapping[Compared, int] = {"accuracy": 1, "log_loss": 3}


@dataclass(frozen=True, eq=False)
class HeadComparison:
    """What [compare_heads][hessalign.estimator.compare_heads] found. Printed, it is a summary.

    Attributes:
        heads: Names, logistic regression first.
        targets: Domains that were left out.
        scoring: What hyper-parameters were chosen by.
        seed: Of the heads that draw.
        doubt: Which heads are known to fail under the shift that the sources show; empty where none is.
        notes: What else there is to know of single heads and targets.
        outcomes: A row for each target and head; see ``to_frame("targets")``.
        shifts: A row for each target and kind of shift between its sources.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import compare_heads
        >>> random = np.random.default_rng(0)
        >>> y, site = random.integers(0, 2, 300), np.repeat(["a", "b", "c", "d"], 75)
        >>> X = random.normal(size=(300, 2)) + 2 * y[:, None]
        >>> found = compare_heads(X, y, sample_domain=site, heads=["V-REx"], targets=["d"])
        >>> found.heads, found.targets
        (('logistic regression', 'V-REx'), ('d',))
        >>> found.to_frame("targets")["target"].unique().to_list()
        ['d']
    """

    heads: tuple[str, ...]
    targets: tuple[str, ...]
    scoring: str
    seed: int
    doubt: str
    notes: tuple[str, ...]
    outcomes: pl.DataFrame
    shifts: pl.DataFrame

    def to_frame(self, table: Table = "heads") -> pl.DataFrame:
        """One of the tables.

        Args:
            table: ``"heads"`` (default): means over targets, differences to logistic regression and their
                standard errors; ``"targets"``: every metric of each head on each target, from 0 to 1 where it
                is a share, with what was chosen; ``"shifts"``: what the sources of each target show.

        Returns:
            The table.

        Raises:
            ValueError: If there is no such table.
        """
        require_choice("table", table, ("heads", "targets", "shifts"))
        if table == "heads":
            return self._summary
        return self.outcomes if table == "targets" else self.shifts

    @cached_property
    def _summary(self) -> pl.DataFrame:
        rows: list[dict[str, Any]] = []
        for head in (*self.heads, BEST_ON_SOURCES):
            own = self.outcomes.filter(head=head)
            row: dict[str, Any] = {
                "head": head,
                "accuracy": 100 * own["accuracy"].mean(),  # type: ignore[operator]
                "worst_accuracy": 100 * own["accuracy"].min(),  # type: ignore[operator]
                "log_loss": own["log_loss"].mean(),
            }
            for metric in UNIT:
                differences = own[f"{metric}_difference"].to_numpy()
                variances = own[f"{metric}_variance"].to_numpy()
                row[f"{metric}_difference"] = float(differences.mean())
                row[f"{metric}_error"] = standard_error(differences, variances)
            row["plain"] = int(own["plain"].sum())
            row["seconds"] = None if head == BEST_ON_SOURCES else own["seconds"].sum()
            rows.append(row)
        return pl.DataFrame(rows)

    @property
    def shift_sentence(self) -> str:
        """Which shifts the sources show, in one sentence."""
        found, absent = [], []
        for kind in self.shifts["shift"].unique(maintain_order=True).to_list():
            group = self.shifts.filter(shift=kind)
            where = group.filter(pl.col("found"))
            if len(where):
                nats = where["nats"].to_numpy()
                least, most = nats.min(), nats.max()
                size = f"{least:.2g}" if len(where) == 1 else f"{least:.2g} to {most:.2g}"
                found.append(f"{kind} ({size} nats, for {len(where)} of {len(group)} targets)")
            else:
                absent.append(kind)
        shown = f"The sources differ in {', '.join(found)}" if found else "The sources show no shift"
        return f"{shown}; not beyond chance in {', '.join(absent)}." if found and absent else f"{shown}."

    def conclusion(self, metric: Compared = "accuracy") -> str:
        """What the evidence supports, in one sentence.

        Args:
            metric: ``"accuracy"`` (default) or ``"log_loss"``.

        Returns:
            Which heads are better or worse than tuned logistic regression by more than two standard errors.

        Raises:
            ValueError: If the metric is not one of these.
        """
        require_choice("metric", metric, tuple(UNIT))
        sign = 1 if metric == "accuracy" else -1
        told = [
            (row["head"], row[f"{metric}_difference"], row[f"{metric}_error"])
            for row in self._summary.iter_rows(named=True)
            if row["head"] not in (BASELINE, BEST_ON_SOURCES)
        ]
        clear = [each for each in told if abs(each[1]) > CLEAR * each[2] and each[1] != 0]
        better = [each for each in clear if sign * each[1] > 0]
        worse = [each for each in clear if sign * each[1] < 0]
        name = metric.replace("_", "-")
        several = len(self.targets) > 1
        where = f"on {f'these {len(self.targets)} domains' if several else 'this domain'}"
        if not told:
            return f"No head was compared with tuned logistic regression {where}."
        if better:
            beat = "beats" if len(better) == 1 else "beat"
            words = (
                f"{self._listed(better, metric)} {beat} tuned logistic regression in {name} by more than "
                f"{CLEAR:g} standard errors {where}; of {counted(len(told), 'head')} without any difference "
                "chance puts "
                f"{BEYOND * len(told):.1f} there"
            )
        else:
            none = f"No head of {len(told)} beats" if len(told) > 1 else f"{told[0][0]} does not beat"
            words = (
                f"{none} tuned logistic regression in {name} by more than {CLEAR:g} standard errors {where}"
            )
        do = "does" if len(worse) == 1 else "do"
        return words + (f"; {self._listed(worse, metric)} {do} worse by as much." if worse else ".")

    def _listed(self, told: list[tuple[str, float, float]], metric: Compared) -> str:
        shown = sorted(told, key=lambda each: -abs(each[1]))
        return ", ".join(
            f"{name} ({_signed(value, metric)} ± {error:.{DIGITS[metric]}f} {UNIT[metric]})"
            for name, value, error in shown
        )

    def grids(self) -> list[Grid]:
        """The tables as printed: heads; what was chosen; shifts."""
        return [self._head_grid(), self._choice_grid(), self._shift_grid()]

    def _head_grid(self) -> Grid:
        columns = self.targets if len(self.targets) <= MOST_COLUMNS else ("worst",)
        best = {
            metric: sorted(self._summary.filter(pl.col("head") != BEST_ON_SOURCES)[metric], reverse=up)[:2]
            for metric, up in (("accuracy", True), ("log_loss", False))
        }
        accuracies = {
            (target, head): value
            for target, head, value in self.outcomes.select("target", "head", "accuracy").iter_rows()
        }
        rows = []
        for row in self._summary.iter_rows(named=True):
            head = row["head"]
            own = (
                [f"{100 * accuracies[target, head]:.1f}" for target in self.targets]
                if len(self.targets) <= MOST_COLUMNS
                else [f"{row['worst_accuracy']:.1f}"]
            )
            cells: list[Any] = [head, *own]
            for metric in UNIT:
                text = f"{row[metric]:.{DIGITS[metric]}f}"
                place = best[metric].index(row[metric]) if row[metric] in best[metric] else None
                marked = head != BEST_ON_SOURCES and place is not None
                cells.append(Mark(text, ("best", "second")[place]) if marked and place is not None else text)
                cells.append(NOTHING if head == BASELINE else _with_error(row, metric))
            rows.append(cells)
        left_out = f"Each of {len(self.targets)} domains" if len(self.targets) > 1 else "One domain"
        return Grid(
            headers=("head", *columns, "mean", "difference", "log-loss", "difference"),
            rows=rows[:-1],
            totals=rows[-1:],
            title=f"{left_out} left out, chosen by {_scoring(self.scoring)}",
            notes=[
                "Accuracies in percent; differences are paired, to logistic regression with its own C, with "
                "standard errors that count domains and samples.",
                f"{BEST_ON_SOURCES}: of the heads that were chosen over it on a target's sources the one "
                "that did best there; without ISR, centred and whitened.",
                *([self.doubt] if self.doubt else []),
                self.shift_sentence,
                self.conclusion("log_loss"),
                self.conclusion(),
            ],
        )

    def _choice_grid(self) -> Grid:
        shown = self.targets[:MOST_COLUMNS]
        chosen = {
            (target, head): value
            for target, head, value in self.outcomes.select("target", "head", "chosen").iter_rows()
        }
        rows = [
            [head, *(chosen[target, head] for target in shown)] for head in (*self.heads, BEST_ON_SOURCES)
        ]
        return Grid(
            ("head", *shown), rows, title="What was chosen on the sources", align="l" * (1 + len(shown))
        )

    def _shift_grid(self) -> Grid:
        rows = []
        for target in self.targets[: 4 * MOST_COLUMNS]:
            own = self.shifts.filter(target=target)
            cells = [
                f"{nats:.2g} (z {z:.1f})" if math.isfinite(z) else NOTHING
                for nats, z in own.select("nats", "z").iter_rows()
            ]
            ratio = own["shares_to_style"].drop_nulls()
            rows.append([target, *cells, f"{ratio[0]:.2g}" if len(ratio) else NOTHING])
        kinds = self.shifts["shift"].unique(maintain_order=True).to_list()
        return Grid(
            ("left out", *kinds, "shares : style"),
            rows,
            title="Shifts between the sources, in nats per sample",
            notes=[
                "From z = 4 on a shift is found. shares : style is how far shares of classes move the means, "
                "beside all else, along what tells classes apart. Formulas: docs/compare-heads.md.",
            ],
        )

    def to_html(self, path: Path | str) -> None:
        """Write a page with all tables and the figure.

        Args:
            path: Output path.

        Raises:
            OSError: If it cannot be written.
        """
        image = base64.b64encode(png_bytes(self._figure())).decode("ascii")
        page = render(
            "compare.html",
            title="Heads compared",
            conclusion=self.conclusion(),
            image=image,
            grids=self.grids(),
            notes=self.notes,
        )
        write_atomically(require_path("path", path), page)

    def plot(self, path: Path | str) -> None:
        """Write the figure: each head's differences, their mean and standard error.

        Args:
            path: Output path; the suffix selects the format (.png, .pdf, .svg).

        Raises:
            ValueError: If the format is not known.
            OSError: If it cannot be written.
        """
        save_figure(self._figure(), require_path("path", path))

    def _figure(self) -> Figure:
        figure = Figure(figsize=(10, 1.2 + 0.3 * (len(self.heads) + 1)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        self._draw(left, "accuracy", "accuracy, points")
        self._draw(right, "log_loss", "log-loss, nats")
        handles, labels = left.get_legend_handles_labels()
        if len(self.targets) <= MOST_COLUMNS:
            figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
        figure.suptitle(f"Difference to {BASELINE} with its own C", fontsize=10)
        return figure

    def _draw(self, axes: Axes, metric: Compared, label: str) -> None:
        summary = self._summary.filter(pl.col("head") != BASELINE)
        places = np.arange(len(summary))[::-1]
        for number, target in enumerate(self.targets):
            own = self.outcomes.filter((pl.col("target") == target) & (pl.col("head") != BASELINE))
            colour, marker = domain_mark(number)
            axes.plot(
                own[f"{metric}_difference"],
                places,
                marker,
                color=colour,
                markersize=4,
                alpha=0.7,
                label=figure_text(target),
            )
        axes.errorbar(
            summary[f"{metric}_difference"],
            places,
            xerr=summary[f"{metric}_error"],
            fmt="|",
            color="black",
            markersize=10,
            capsize=3,
            label="mean, one standard error",
        )
        axes.axvline(0, color="0.6", linewidth=0.8)
        axes.set_yticks(places, [figure_text(name) for name in summary["head"]], fontsize=8)
        axes.set_xlabel(label, fontsize=9)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it; [from_dict][hessalign.estimator.HeadComparison.from_dict] reads it."""
        return {
            "heads": list(self.heads),
            "targets": list(self.targets),
            "scoring": self.scoring,
            "seed": self.seed,
            "doubt": self.doubt,
            "notes": list(self.notes),
            "outcomes": _finite(self.outcomes),
            "shifts": _finite(self.shifts),
            "summary": _finite(self._summary),
            "shift": self.shift_sentence,
            "conclusion": self.conclusion(),
            "conclusion_log_loss": self.conclusion("log_loss"),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "HeadComparison":
        """A comparison as it was written.

        Args:
            found: What ``to_dict`` gave, read from JSON.

        Returns:
            The comparison.

        Raises:
            ValueError: If it is none.
        """
        try:
            return cls(
                tuple(found["heads"]),
                tuple(found["targets"]),
                found["scoring"],
                found["seed"],
                found["doubt"],
                tuple(found["notes"]),
                _numbers(pl.DataFrame(found["outcomes"], infer_schema_length=None)),
                _numbers(pl.DataFrame(found["shifts"], infer_schema_length=None)),
            )
        except (KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise ValueError(f"found: is not a comparison of heads ({error!r})") from error

    def __str__(self) -> str:
        """The table of heads and the conclusion."""
        return f"{self._head_grid().to_markdown()}\n"

    def _repr_html_(self) -> str:
        return "\n".join(grid.to_html() for grid in self.grids())


def _with_error(row: Mapping[str, Any], metric: Compared) -> str:
    return f"{_signed(row[f'{metric}_difference'], metric)} ± {row[f'{metric}_error']:.{DIGITS[metric]}f}"


def _signed(value: float, metric: Compared) -> str:
    digits = DIGITS[metric]
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _scoring(name: str) -> str:
    return {"neg_log_loss": "log-loss"}.get(name, name)


def _finite(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows; a number that is not defined is None."""
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    finite = [pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats]
    rows = frame.with_columns(finite).to_dicts()
    return list(json.loads(json.dumps(rows, default=str)))


def _numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """Numbers that are not defined are NaN again; columns of nothing else too."""
    empty = [name for name, dtype in frame.schema.items() if dtype == pl.Null]
    frame = frame.with_columns(pl.col(empty).cast(pl.Float64))
    columns = ("nats", "z", "auroc")
    return frame.with_columns(pl.col([name for name in columns if name in frame.columns]).fill_null(math.nan))
