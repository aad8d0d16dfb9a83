"""A table as text in cells, and the one way in which each format sets it.

What tables say is decided elsewhere; here lies how a terminal, Markdown, LaTeX and HTML show it: titles,
labels on the left, figures on the right, the best bold and the second underlined. Every text is data and
cannot be read as markup.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from hessalign.markup import latex_text, markdown_line, markdown_text, visible
from hessalign.pages import render

NOTHING = "–"
"""Stands in a cell where there is nothing to tell."""

LONGEST_LABEL = 30
"""Labels with more characters than these are broken between words before the figures beside them are."""

Role = Literal["best", "second", "published"]


@dataclass(frozen=True)
class Mark:
    """A cell that may be set off.

    Attributes:
        text: As printed.
        role: ``"best"`` is bold, ``"second"`` underlined, ``"published"`` a class of its own in HTML; None
            (default) is plain.
    """

    text: str
    role: Role | None = None


Cell = str | Mark


@dataclass(frozen=True)
class Grid:
    """A table as printed.

    Attributes:
        headers: One for each column.
        rows: Of cells, one for each column.
        title: Above the table; empty (default) for none.
        notes: Sentences below it.
        align: ``"l"`` (left) or ``"r"`` (right) for each column; by default labels in the first column are on
            the left and figures in all others on the right.
        totals: Rows below all others, set off by a line.

    Raises:
        ValueError: If a row has not one cell for each header.

    Examples:
        >>> print(Grid(["Domain", "images"], [["photo", "1,670"]]).to_markdown())
        | Domain | images |
        | --- | ---: |
        | photo | 1,670 |
    """

    headers: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    notes: Sequence[str] = ()
    align: str = ""
    totals: Sequence[Sequence[Cell]] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.headers), len(self.sides), *map(len, self.rows), *map(len, self.totals)}
        if len(lengths) > 1:
            raise ValueError(
                f"rows: each must have {len(self.headers)} cells, one for each header; got a table with "
                f"{', '.join(map(str, sorted(lengths)))} in rows, totals and align"
            )

    @property
    def sides(self) -> str:
        """``"l"`` or ``"r"`` for each column."""
        return self.align or "l" + "r" * (len(self.headers) - 1)

    def within(self, width: int) -> "list[Grid]":
        """The table, or where a terminal of so many columns would break its cells, several side by side.

        Each begins with the labels of the first column; the title stands above the first, notes below the
        last. A column that is too wide by itself is left to ``to_rich``.

        Args:
            width: Of the terminal, in characters.

        Returns:
            Tables, at least one.
        """
        columns = list(zip(self.headers, *self.rows, *self.totals, strict=True))
        # Headers may be broken between words; a cell and the line beside it take three more.
        sizes = [
            3 + max([*map(_width, cells), *(cell_len(word) for word in _text_and_role(header)[0].split())])
            for header, *cells in columns
        ]
        groups: list[list[int]] = [[]]
        for place in range(1, len(columns)):
            if groups[-1] and 1 + sizes[0] + sum(sizes[p] for p in (*groups[-1], place)) > width:
                groups.append([])
            groups[-1].append(place)
        if len(groups) == 1:
            return [self]

        def part(group: Sequence[int], number: int) -> Grid:
            kept = (0, *group)
            return Grid(
                [self.headers[place] for place in kept],
                [[row[place] for place in kept] for row in self.rows],
                title=self.title if number == 0 else "",
                notes=self.notes if number == len(groups) - 1 else (),
                align="".join(self.sides[place] for place in kept),
                totals=[[row[place] for place in kept] for row in self.totals],
            )

        return [part(group, number) for number, group in enumerate(groups)]

    def to_rich(self) -> Table:
        """For the terminal. Where it is too narrow, cells are broken, never cut: labels last, unless long."""
        labels = max((_width(row[0]) for row in (*self.rows, *self.totals) if row), default=0)
        table = Table(
            title=Text(visible(self.title)) if self.title else None,
            caption=Text("\n".join(map(visible, self.notes)), justify="left") if self.notes else None,
        )
        for place, (header, side) in enumerate(zip(self.headers, self.sides, strict=True)):
            justify: Literal["left", "right"] = "right" if side == "r" else "left"
            whole = place == 0 and labels <= LONGEST_LABEL
            table.add_column(_rich_cell(header), justify=justify, no_wrap=whole, overflow="fold")
        for row in self.rows:
            table.add_row(*map(_rich_cell, row))
        table.add_section()
        for row in self.totals:
            table.add_row(*map(_rich_cell, row))
        return table

    def to_markdown(self) -> str:
        """A table in GitHub's Markdown, below its title as a heading and above its notes as a paragraph."""
        lines = [list(map(_markdown_cell, row)) for row in (self.headers, *self.rows, *self.totals)]
        blocks = [markdown_table(lines[0], lines[1:], self.align)]
        if self.title:
            blocks.insert(0, f"## {markdown_text(self.title)}")
        if self.notes:
            blocks.append(markdown_line(" ".join(self.notes)))
        return "\n\n".join(blocks)

    def to_latex(self) -> str:
        r"""A floating ``table``, for ``\usepackage{booktabs}``; title and notes are its caption."""
        totals = [r"\midrule", *map(_latex_row, self.totals)] if self.totals else []
        lines = [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{latex_text(self.title)}. {latex_text(' '.join(self.notes))}}}",
            rf"\begin{{tabular}}{{{self.sides.replace('r', 'c')}}}",
            r"\toprule",
            _latex_row(self.headers),
            r"\midrule",
            *map(_latex_row, self.rows),
            *totals,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """A ``section`` with title, table and notes; roles are classes of cells."""
        return render("grid.html", grid=self)


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A table whose cells are Markdown already, code and links among it.

    Args:
        headers: One for each column.
        rows: Of cells, one for each column.
        align: As of ``Grid``.

    Returns:
        Its lines.
    """
    rules = {"l": "---", "r": "---:"}
    sides = align or "l" + "r" * (len(headers) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (headers, [rules[side] for side in sides], *rows))


def _text_and_role(cell: Cell) -> tuple[str, Role | None]:
    return (cell.text, cell.role) if isinstance(cell, Mark) else (cell, None)


def _width(cell: Cell) -> int:
    return cell_len(visible(_text_and_role(cell)[0]))


def _rich_cell(cell: Cell) -> Text:
    text, role = _text_and_role(cell)
    return Text.assemble((visible(text), {"best": "bold", "second": "underline"}.get(role or "", "")))


def _markdown_cell(cell: Cell) -> str:
    text, role = _text_and_role(cell)
    shown = markdown_text(text)
    return {"best": f"**{shown}**", "second": f"<u>{shown}</u>"}.get(role or "", shown)


def _latex_row(cells: Sequence[Cell]) -> str:
    return " & ".join(map(_latex_cell, cells)) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text, role = _text_and_role(cell)
    shown = latex_text(text)
    return {"best": rf"\textbf{{{shown}}}", "second": rf"\underline{{{shown}}}"}.get(role or "", shown)
