"""Tables as Markdown: best bold, second underlined."""

from collections.abc import Iterable

from hessalign.benchmark.formats.grid import Grid, Text, as_grid
from hessalign.benchmark.tables import Report
from hessalign.markup import markdown_line, markdown_text

HEADING = "# Results"


def as_markdown(report: Report, statistics: bool = False) -> str:
    """A document with all tables and notes."""
    parts = [HEADING, *(_table(as_grid(table, statistics)) for table in report.tables)]
    if report.notes:
        parts.append("\n".join(["## Notes", "", *(f"* {markdown_line(note)}" for note in report.notes)]))
    return "\n\n".join(parts) + "\n"


def _table(grid: Grid) -> str:
    lines = [
        f"## {markdown_text(grid.title)}",
        "",
        _line(map(markdown_text, grid.headers)),
        _line(["---", *["---:"] * (len(grid.headers) - 1)]),
        *(_line([markdown_text(label), *map(_emphasised, cells)]) for label, cells in grid.rows),
        "",
        markdown_line(" ".join(grid.explanations)),
    ]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _emphasised(cell: Text) -> str:
    text = markdown_text(cell.text)
    return {"best": f"**{text}**", "second": f"<u>{text}</u>", None: text}[cell.rank]
