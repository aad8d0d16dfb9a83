"""Tables for the terminal: best bold, second underlined."""

from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from hessalign.benchmark.formats.grid import Grid, as_grid
from hessalign.benchmark.tables import Report
from hessalign.markup import visible

STYLES = {"best": "bold", "second": "underline", None: ""}


def as_renderable(report: Report, statistics: bool = False) -> RenderableType:
    """All tables, each with its explanations; notes are left to the caller."""
    return Group(*(_table(as_grid(table, statistics)) for table in report.tables))


def _table(grid: Grid) -> RichTable:
    table = RichTable(
        title=Text(visible(grid.title)),
        caption=Text("\n".join(map(visible, grid.explanations)), justify="left"),
    )
    for place, header in enumerate(grid.headers):
        # Where a terminal is too narrow, cells are broken, never cut: labels last, they tell the rows apart.
        justify: Literal["left", "right"] = "right" if place else "left"
        table.add_column(Text(visible(header)), justify=justify, no_wrap=not place, overflow="fold")
    for label, cells in grid.rows:
        table.add_row(
            Text(visible(label)), *(Text.assemble((visible(cell.text), STYLES[cell.rank])) for cell in cells)
        )
    return table
