"""Each format says the same: every figure, best bold, second underlined, nothing misread as markup."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from hessalign.benchmark.formats import as_csv, as_grid, as_html, as_latex, as_markdown, as_renderable
from hessalign.benchmark.tables import Cell, Column, Report, Row, Table, finished_rows
from hessalign.grid import Mark

ODD = r"50% a_b & <i> #1 $x$ {y} ~ ^ \z | *c* `d`"
"""Means something in one of the formats; must be printed as it is in all."""


def row(label: str, *cells: Cell) -> Row:
    return Row(algorithm=label, label=label, cells=cells)


def cell(mean: float, error: float = 0.25, n: int = 3, **fields) -> Cell:
    return Cell(mean=mean, standard_error=error, sample_deviation=2 * error, n=n, runs=n, **fields)


@pytest.fixture
def report() -> Report:
    accuracies = Table(
        kind="targets",
        rule="oracle",
        dataset="toy",
        title=f"Toy {ODD}",
        columns=(
            Column(key="0", label=ODD),
            Column(key="1", label="+90%"),
            Column(key="average", label="Avg"),
        ),
        rows=finished_rows(
            [
                row("ERM", cell(50.04), cell(20.0, n=1), Cell(mean=35.02, published=34.0)),
                row("V-REx", cell(61.26), Cell(), Cell()),
                row("HGP", cell(55.55, every_target=False), cell(30.0, n=2), Cell(mean=42.775)),
                row("IRM", cell(50.0), cell(25.0), Cell(mean=37.5)),
            ]
        ),
        explanations=("Percent, mean ± standard error.", f"Odd: {ODD}."),
    )
    differences = Table(
        kind="differences",
        rule="oracle",
        dataset="toy",
        baseline="erm",
        title="Toy: difference from ERM",
        columns=(Column(key="average", label="All"),),
        rows=(
            row("HGP", Cell(mean=-1.234, standard_error=0.5, sample_deviation=1.0, n=4)),
            row("IRM", Cell(mean=0.01, standard_error=None, n=1)),
            row("V-REx", Cell()),
        ),
        explanations=("Points.",),
    )
    return Report(tables=(accuracies, differences), notes=(f"A note: {ODD}",))


def test_cells_as_text(report: Report) -> None:
    grid = as_grid(report.tables[0])
    assert grid.headers == ["Algorithm", ODD, "+90%", "Avg", Mark("published", "published")]
    printed = {row[0]: [(cell.text, cell.role) for cell in row[1:]] for row in grid.rows}
    nothing, cited = ("–", None), "published"
    assert printed == {
        "ERM": [("50.0 ± 0.2", "second"), ("20.0†", None), ("35.0", None), ("34.0", cited)],
        "V-REx": [("61.3 ± 0.2", "best"), nothing, nothing, ("–", cited)],
        "HGP": [("55.5 ± 0.2‡", None), ("30.0 ± 0.2†", "best"), ("42.8", "best"), ("–", cited)],
        "IRM": [("50.0 ± 0.2", "second"), ("25.0 ± 0.2", "second"), ("37.5", "second"), ("–", cited)],
    }


def test_statistics_tell_number_and_deviation(report: Report) -> None:
    grid = as_grid(report.tables[0], statistics=True)
    first = [cell.text for cell in grid.rows[0][1:]]
    assert first == ["50.0 ± 0.2 (n = 3, s = 0.5)", "20.0 (n = 1, s = 0.5)†", "35.0", "34.0"]
    assert grid.notes[-1].startswith("s is the sample deviation")


def test_differences_as_text(report: Report) -> None:
    grid = as_grid(report.tables[1])
    assert [row[1].text for row in grid.rows] == ["−1.2 ± 0.5 (n = 4)", "0.0 (n = 1)", "–"]


def test_markdown(report: Report) -> None:
    text = as_markdown(report)
    odd = r"50% a\_b \& \<i> \#1 \$x\$ {y} \~ ^ \\z \| \*c\* \`d\`"
    lines = text.splitlines()
    assert f"## Toy {odd}" in lines
    assert f"| Algorithm | {odd} | +90% | Avg | published |" in lines
    assert "| --- | ---: | ---: | ---: | ---: |" in lines
    assert "| V-REx | **61.3 ± 0.2** | – | – | – |" in lines
    assert "| ERM | <u>50.0 ± 0.2</u> | 20.0† | 35.0 | 34.0 |" in lines
    assert f"* A note: {odd}" in lines


def test_latex_marks_up(report: Report) -> None:
    lines = as_latex(report).splitlines()
    assert r"V-REx & \textbf{61.3 $\pm$ 0.2} & -- & -- & -- \\" in lines
    assert r"ERM & \underline{50.0 $\pm$ 0.2} & 20.0$^\dagger$ & 35.0 & 34.0 \\" in lines
    assert lines.count(r"\toprule") == lines.count(r"\midrule") == lines.count(r"\bottomrule") == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not on this machine")
def test_latex_compiles(report: Report, tmp_path: Path) -> None:
    (tmp_path / "tables.tex").write_text(as_latex(report, statistics=True), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "tables.tex"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False
    )
    assert result.returncode == 0, result.stdout[-2000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 1000
    log = (tmp_path / "tables.log").read_text(errors="replace")
    assert "Overfull" not in log
    assert "Missing character" not in log


class Cells(HTMLParser):
    """Texts of a page's cells with their classes, and whatever it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.current: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        self.current = dict(attrs).get("class") or ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append((data, self.current or ""))


def test_html_is_whole_and_needs_nothing_else(report: Report) -> None:
    page = as_html(report)
    parser = Cells()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert parser.loaded == []
    assert "url(" not in page
    assert "@import" not in page
    assert ("61.3 ± 0.2", "best") in parser.cells
    assert ("50.0 ± 0.2", "second") in parser.cells
    assert ("34.0", "published") in parser.cells
    assert (ODD, "") in parser.cells


def test_rich_sets_off_best_and_second(report: Report) -> None:
    console = Console(width=200, file=StringIO(), record=True, force_terminal=True, color_system="standard")
    console.print(as_renderable(report))
    text = console.export_text(styles=True, clear=False)
    assert "\x1b[1m61.3 ± 0.2\x1b[0m" in text
    assert "\x1b[4m50.0 ± 0.2\x1b[0m" in text
    assert ODD in console.export_text()


def test_csv_holds_every_cell_unrounded(report: Report) -> None:
    frame = pl.read_csv(as_csv(report).encode())
    assert frame.height == sum(len(row.cells) for table in report.tables for row in table.rows)
    erm = frame.filter(algorithm="ERM", column=ODD).row(0, named=True)
    assert (erm["mean"], erm["n"], erm["rank"]) == (50.04, 3, "second")
    assert frame.filter(table="differences", algorithm="HGP")["mean"].to_list() == [-1.234]


def test_json_is_valid_even_for_what_is_not_a_number(report: Report) -> None:
    broken = report.tables[0].model_copy(update={"rows": (row("ERM", cell(float("nan")), Cell(), Cell()),)})
    text = Report(tables=(broken,), notes=()).model_dump_json()
    document = json.loads(text, parse_constant=pytest.fail)
    assert document["tables"][0]["rows"][0]["cells"][0]["mean"] is None
