"""A report in each format: for people cells as text, best bold, second underlined; for programs all data."""

from collections.abc import Iterator, Sequence
from typing import Literal

import polars as pl
from rich.console import Console, Group, RenderableType

from hessalign.benchmark import tables
from hessalign.grid import NOTHING, Grid, Mark
from hessalign.markup import latex_text, markdown_line
from hessalign.pages import render

Format = Literal["rich", "markdown", "latex", "html", "json", "csv"]
WIDTH = 240
"""Columns of a table for the terminal that goes to a file or another program."""

PUBLISHED = Mark("published", "published")

METADATA = ("table", "rule", "dataset", "setting", "baseline", "algorithm", "column")
CSV_SCHEMA = {
    **dict.fromkeys(METADATA, pl.String),
    "mean": pl.Float64,
    "standard_error": pl.Float64,
    "sample_deviation": pl.Float64,
    "n": pl.Int64,
    "runs": pl.Int64,
    "fewer_runs": pl.Boolean,
    "every_target": pl.Boolean,
    "rank": pl.String,
    "published": pl.Float64,
    "published_source": pl.String,
    "metric": pl.String,
}
"""The columns between those of METADATA and the metric are the fields of a cell."""

LATEX_PREAMBLE = r"""% Compile as it is, or take single tables: they need \usepackage{booktabs}.
\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[a3paper,landscape,margin=15mm]{geometry}
\usepackage{textcomp}
\usepackage{booktabs}
\begin{document}
"""


def as_text(report: tables.Report, output_format: Format, statistics: bool = False) -> str:
    """A report as a whole document.

    Args:
        report: All tables of a sweep.
        output_format: ``"rich"`` is what a terminal shows, without colours; its notes are left to the caller.
        statistics: Whether accuracies tell n and the sample deviation; data tells them always.

    Returns:
        The document, which ends with a line break.
    """
    match output_format:
        case "json":
            return report.model_dump_json(indent=2) + "\n"
        case "csv":
            return as_csv(report)
        case "markdown":
            return as_markdown(report, statistics)
        case "latex":
            return as_latex(report, statistics)
        case "html":
            return as_html(report, statistics)
        case "rich":
            console = Console(width=WIDTH, no_color=True)
            with console.capture() as captured:
                console.print(as_renderable(report, statistics))
            return captured.get()


def as_renderable(report: tables.Report, statistics: bool = False) -> RenderableType:
    """All tables for the terminal, each with its explanations; notes are left to the caller."""
    return Group(*(grid.to_rich() for grid in _grids(report, statistics)))


def as_markdown(report: tables.Report, statistics: bool = False) -> str:
    """A document with all tables and notes."""
    blocks = ["# Results", *(grid.to_markdown() for grid in _grids(report, statistics))]
    if report.notes:
        blocks.append("\n".join(["## Notes", "", *(f"* {markdown_line(note)}" for note in report.notes)]))
    return "\n\n".join(blocks) + "\n"


def as_latex(report: tables.Report, statistics: bool = False) -> str:
    """A whole document with all tables and notes."""
    blocks = [LATEX_PREAMBLE, *(grid.to_latex() + "\\clearpage\n" for grid in _grids(report, statistics))]
    if report.notes:
        blocks.append("\n\n".join(map(latex_text, report.notes)) + "\n")
    return "\n".join([*blocks, r"\end{document}"]) + "\n"


def as_html(report: tables.Report, statistics: bool = False) -> str:
    """A whole page with all tables and notes, which needs nothing else."""
    grids = list(_grids(report, statistics))
    return render("results.html", title="Results", grids=grids, notes=report.notes)


def as_csv(report: tables.Report) -> str:
    """A row for each cell of each table, unrounded; what a cell does not have is empty."""
    rows = [
        {
            "table": table.kind,
            "rule": table.rule,
            "dataset": table.dataset,
            "setting": table.setting,
            "baseline": table.baseline,
            "algorithm": row.algorithm,
            "column": column.label,
            **dict(cell),
            "metric": table.metric,
        }
        for table in report.tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
    ]
    return pl.DataFrame(rows, schema=CSV_SCHEMA).write_csv()


def as_grid(table: tables.Table, statistics: bool = False) -> Grid:
    """A table's cells as text.

    Args:
        table: As data.
        statistics: Whether accuracies tell n and the sample deviation; differences always tell n.

    Returns:
        The table as printed.
    """
    cited = [
        any(row.cells[place].published is not None for row in table.rows)
        for place in range(len(table.columns))
    ]
    headers: list[str | Mark] = ["Algorithm"]
    for column, published in zip(table.columns, cited, strict=True):
        headers += [column.label, PUBLISHED] if published else [column.label]
    explanations = table.explanations
    if statistics and table.kind != "differences":
        explanations = (*explanations, "s is the sample deviation over trials (ddof = 1).")
    return Grid(
        headers=headers,
        rows=[[row.label, *_cells(row.cells, cited, table, statistics)] for row in table.rows],
        title=table.title,
        notes=explanations,
    )


def line_grid(lines: Sequence[tables.Line]) -> Grid:
    """How well source accuracies foretell target accuracies, as text.

    Args:
        lines: At least one.

    Returns:
        A row for each.
    """
    return Grid(
        headers=("Dataset", "Target domain", "draws", "algorithms", "slope", "r", "95 %", "forgone"),
        rows=[
            (
                f"{line.label} [{line.setting}]" if line.setting else line.label,
                line.target,
                f"{line.draws:,}",
                str(line.algorithms),
                _decimal(line.slope),
                _decimal(line.correlation),
                NOTHING if line.low is None else f"{_decimal(line.low)} to {_decimal(line.high)}",
                f"{line.forgone:.1f}",
            )
            for line in lines
        ],
        title="Do source accuracies foretell target accuracies?",
        notes=[
            "Over all draws: slope and correlation r of the probits of target and source accuracy; near 1, "
            "the target asks for nothing that the sources do not.",
            "The interval takes draws for independent. Forgone: percentage points between the best draw on "
            "the target and the one with the best source accuracy.",
        ],
        align="llrrrrrr",
    )


def _decimal(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}".replace("-", "−")


def _grids(report: tables.Report, statistics: bool) -> Iterator[Grid]:
    yield from (as_grid(table, statistics) for table in report.tables)
    if report.lines:
        yield line_grid(report.lines)


def _cells(
    cells: Sequence[tables.Cell], cited: Sequence[bool], table: tables.Table, statistics: bool
) -> Iterator[Mark]:
    for cell, published in zip(cells, cited, strict=True):
        yield _difference(cell) if table.kind == "differences" else _accuracy(cell, statistics)
        if published:
            yield Mark(NOTHING if cell.published is None else f"{cell.published:.1f}", "published")


def _accuracy(cell: tables.Cell, statistics: bool) -> Mark:
    if cell.mean is None:
        return Mark(NOTHING)
    text = f"{cell.mean:.1f}"
    if cell.standard_error is not None and cell.n != 1:  # one value tells nothing of its error
        text += f" ± {cell.standard_error:.1f}"
    if statistics and cell.n is not None:
        deviation = NOTHING if cell.sample_deviation is None else f"{cell.sample_deviation:.1f}"
        text += f" (n = {cell.n}, s = {deviation})"
    text += "†" * cell.fewer_runs + "‡" * (not cell.every_target)
    return Mark(text, cell.rank)


def _difference(cell: tables.Cell) -> Mark:
    if cell.mean is None:
        return Mark(NOTHING)
    error = "" if cell.standard_error is None else f" ± {cell.standard_error:.1f}"
    mean = f"{cell.mean:+.1f}".replace("-", "−")
    return Mark(f"{'0.0' if mean[1:] == '0.0' else mean}{error} (n = {cell.n})")
