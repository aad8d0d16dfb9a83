"""A table's text, alignment and marks in every format."""

import re
from io import StringIO

import pytest
from rich.console import Console

from hessalign.grid import Grid, Mark, markdown_table

GRID = Grid(
    headers=("Domain", "what", "images"),
    rows=[("day", "x_1", Mark("2", "best")), ("a|b", "–", Mark("1", "second"))],
    title="A & B",
    notes=["One.", "Two."],
    align="llr",
    totals=[("all", "", "3")],
)


def shown(grid: Grid, width: int = 60) -> str:
    console = Console(width=width, file=StringIO(), record=True, force_terminal=True, color_system="standard")
    console.print(grid.to_rich())
    return console.export_text(styles=True)


def test_a_terminal_shows_all_of_it() -> None:
    text = shown(GRID)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in plain.splitlines() if "│" in line]
    assert cells == [["day", "x_1", "2"], ["a|b", "–", "1"], ["all", "", "3"]]
    assert [line.strip() for line in plain.splitlines() if "A & B" in line or "." in line] == [
        "A & B",
        "One.",
        "Two.",
    ]
    assert [place for place, line in enumerate(plain.splitlines()) if set(line) & set("├┡")] == [3, 6]
    assert "\x1b[1m2\x1b[0m" in text
    assert "\x1b[4m1\x1b[0m" in text


def test_a_narrow_terminal_cuts_nothing() -> None:
    grid = Grid(("Name", "value"), [("label", "abcdefghijklmnop")])
    lines = [line.split("│")[1:-1] for line in shown(grid, width=16).splitlines() if "│" in line]
    assert "".join(value.strip() for _, value in lines) == "abcdefghijklmnop"
    assert lines[0][0].strip() == "label"


def test_figures_stay_whole_beside_a_long_label() -> None:
    label = "Exact diagonal + flat head, off-diagonal, γ = 0.0133"
    grid = Grid(("Method", "n", "Train", "Target"), [(label, "10", "58.0 ± 2.6", "71.3 ± 4.1")])
    lines = [line.split("│")[1:-1] for line in shown(grid, width=50).splitlines() if "│" in line]
    assert [cell.strip() for cell in lines[0][1:]] == ["10", "58.0 ± 2.6", "71.3 ± 4.1"]
    assert " ".join(name.strip() for name, *_ in lines) == label


def test_markdown() -> None:
    assert (
        GRID.to_markdown()
        == """## A \\& B

| Domain | what | images |
| --- | --- | ---: |
| day | x\\_1 | **2** |
| a\\|b | – | <u>1</u> |
| all |  | 3 |

One. Two."""
    )


def test_markdown_of_cells_that_are_markdown() -> None:
    assert markdown_table(["a", "b"], [["`x_1`", "**2**"]]).splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        "| `x_1` | **2** |",
    ]


def test_latex() -> None:
    assert GRID.to_latex().splitlines()[2:13] == [
        r"\caption{A \& B. One. Two.}",
        r"\begin{tabular}{llc}",
        r"\toprule",
        r"Domain & what & images \\",
        r"\midrule",
        r"day & x\_1 & \textbf{2} \\",
        r"a\textbar{}b & -- & \underline{1} \\",
        r"\midrule",
        r"all &  & 3 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_html() -> None:
    assert GRID.to_html() == (
        "<section><h2>A &amp; B</h2>\n"
        "<table><thead><tr><th>Domain</th><th>what</th><th>images</th></tr></thead>\n"
        '<tbody><tr><td>day</td><td>x_1</td><td class="best">2</td></tr>\n'
        '<tr><td>a|b</td><td>–</td><td class="second">1</td></tr>\n'
        "<tr><td>all</td><td></td><td>3</td></tr>\n</tbody></table>\n"
        '<p class="explanation">One. Two.</p></section>\n'
    )


@pytest.mark.parametrize(
    "ragged",
    [{"rows": [("a",)]}, {"rows": [], "totals": [("a", "b", "c")]}, {"rows": [], "align": "lrr"}],
)
def test_a_ragged_table_is_refused(ragged: dict) -> None:
    with pytest.raises(ValueError, match="rows: each must have 2 cells, one for each header"):
        Grid(("a", "b"), **ragged)
