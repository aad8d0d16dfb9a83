"""Names in every format: what a reader or a parser gets back is the name, and nothing in it is obeyed."""

import csv
import html.parser
import io
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

import hessalign as ha
from hessalign.benchmark.formats import as_csv, as_html, as_latex, as_markdown, as_renderable
from hessalign.benchmark.tables import Cell, Column, Report, Row, Table, finished_rows
from hessalign.diagnostics.data import compare
from hessalign.diagnostics.page import SECTIONS, ShownTable
from hessalign.diagnostics.plots import shown_name
from hessalign.figures import figure_text
from hessalign.markup import html_text, latex_text, markdown_line, markdown_text, plot_text, visible
from hessalign.pages import render
from tests.diagnostics.synthetic import shifted_domains
from tests.nasty_names import NASTY

NOT_UTF8 = b"caf\xe9".decode("utf-8", "surrogateescape")


def make_report(*names: str) -> Report:
    """A table with the names wherever one can stand."""
    value = Cell(mean=50.0, standard_error=0.5, sample_deviation=1.0, n=3, runs=3)
    table = Table(
        kind="targets",
        rule="oracle",
        dataset=names[0],
        setting=names[0],
        title=names[0],
        columns=tuple(Column(key=str(place), label=name) for place, name in enumerate(names)),
        rows=finished_rows([Row(algorithm=name, label=name, cells=(value,) * len(names)) for name in names]),
        explanations=names,
    )
    return Report(tables=(table,), notes=names)


@pytest.mark.parametrize("name", [*NASTY, NOT_UTF8])
def test_what_is_visible_is_one_line_of_utf8(name: str) -> None:
    shown = visible(name)
    assert shown.isprintable() or not set(shown) - set(name), shown
    assert len(shown.splitlines()) == 1
    shown.encode("utf-8")
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown)


def test_signs_are_shown_as_python_writes_them() -> None:
    assert visible("a\nb\x1b\u202e") == "a\\nb\\x1b\\u202e"
    assert visible(NOT_UTF8) == "caf\\xe9"
    assert visible("é α 中 🙂 \\ plain") == "é α 中 🙂 \\ plain"


class Texts(html.parser.HTMLParser):
    """Texts of a page outside style and script, and all elements."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        if self.elements[-1:] not in (["style"], ["script"]):
            self.texts.append(data)


def read_page(text: str) -> Texts:
    parser = Texts()
    parser.feed(text)
    parser.close()
    return parser


def test_html_gives_every_name_back() -> None:
    plain, nasty = read_page(as_html(make_report("a", "b"))), read_page(as_html(make_report(*NASTY)))
    assert set(nasty.elements) == set(plain.elements)
    for name in NASTY:
        assert nasty.texts.count(visible(name)) >= 3, name  # a column, a row, a note
        assert read_page(f'<i title="{html_text(name)}">').elements == ["i"]


def cells_of(line: str) -> list[str]:
    """Cells of a row of GitHub's Markdown: a bar with a backslash before it is no border."""
    assert line.startswith("| ")
    assert line.endswith(" |")
    return [re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell) for cell in line[2:-2].split(" | ")]


def test_markdown_has_as_many_rows_and_columns_as_the_table() -> None:
    lines = as_markdown(make_report(*NASTY)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == len(NASTY) + 2
    assert cells_of(rows[0]) == ["Algorithm", *map(visible, NASTY)]
    assert [cells_of(row)[0] for row in rows[2:]] == list(map(visible, NASTY))
    assert len({len(cells_of(row)) for row in rows}) == 1
    assert sum(line.startswith("* ") for line in lines) == len(NASTY)


@pytest.mark.parametrize("name", NASTY)
def test_markdown_leaves_no_sign_of_its_own(name: str) -> None:
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_|<\[\]&~$#]", markdown_text(name))
    assert not re.match(r"\s*([-+>=#]|\d+[.)])", markdown_line(name))
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown_line(name)) == visible(name)


LATEX_COMMAND = re.compile(
    r"\\(?:[{}%&#_$]"
    r"|(?:text(?:backslash|asciitilde|asciicircum|less|greater|bar|asciigrave)|ss|ae|AE|oe|OE|o|O|aa|AA|l|L|i)\{\}"
    r"|[`'^~=u.\"rHvc]\{[A-Za-z]\}|ttfamily\\char34)"
    r"|\$(?:-|\^\\d?dagger|\^\\circ|\\[a-z]+)\$"
)


@pytest.mark.parametrize("name", NASTY)
def test_latex_leaves_no_sign_of_its_own(name: str) -> None:
    """Without the commands that stand for signs, what is left are plain ones and whole groups."""
    left = LATEX_COMMAND.sub("", latex_text(name))
    assert left.isascii()
    assert not re.search(r"[\\$%&#_~^\"<>|`]|--|''", left), left
    assert re.sub(r"\{([\[\]*]?)\}", "", left).count("{") == 0, left
    assert not re.match(r"[\[*]", latex_text(name))


def test_a_row_of_latex_starts_with_no_argument() -> None:
    lines = as_latex(make_report("[x]", "*y*")).splitlines()
    after = [line for before, line in itertools.pairwise(lines) if before.endswith((r"\\", "rule"))]
    assert not any(line.startswith(("[", "*")) for line in after)
    assert any(line.startswith("{[}x{]} & ") for line in after)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not on this machine")
def test_latex_with_such_names_compiles(tmp_path: Path) -> None:
    for number in range(0, len(NASTY), 4):
        text = as_latex(make_report(*NASTY[number : number + 4]))
        (tmp_path / "tables.tex").write_text(text, encoding="utf-8")
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "tables.tex"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert result.returncode == 0, result.stdout[-2000:]


def test_csv_and_json_give_every_name_back() -> None:
    report = make_report(*NASTY)
    rows = list(csv.DictReader(io.StringIO(as_csv(report), newline="")))
    assert [row["algorithm"] for row in rows[:: len(NASTY)]] == list(NASTY)
    assert [row["column"] for row in rows[: len(NASTY)]] == list(NASTY)
    assert {row["dataset"] for row in rows} == {NASTY[0]}
    document = json.loads(report.model_dump_json(indent=2))
    assert document["notes"] == list(NASTY)


@pytest.mark.parametrize("name", NASTY)
def test_terminals_show_every_name(name: str) -> None:
    console = Console(width=400, file=io.StringIO(), record=True, force_terminal=True)
    console.print(as_renderable(make_report(name, "b")))
    plain = console.export_text(clear=False)
    assert plain.count(visible(name).strip()) >= 3
    assert "\x1b[31m" not in console.export_text(styles=True)


def test_figures_show_every_name() -> None:
    """In legends too, and without a formula."""
    figure = Figure()
    axes = figure.add_subplot()
    shown = [name for name in NASTY if name.isascii()]
    for name in shown:
        axes.plot([0, 1], label=plot_text(name))
    legend = axes.legend()
    found = []
    for text in legend.get_texts():
        drawn, formula = text._preprocess_math(text.get_text())
        assert formula is False
        found.append(drawn.removeprefix("\u200b"))
    assert found == list(map(visible, shown))


@pytest.mark.filterwarnings("ignore::hessalign.exceptions.UntrustworthyWarning")
@pytest.mark.parametrize("start", range(4))
def test_a_report_shows_every_name(start: int) -> None:
    """Domains, classes and titles: in tables, on the page and in a figure."""
    names = [name for name in NASTY if len(name) < 30][start::4]
    features, logits, labels, _ = shifted_domains("feature mean", 0, samples=10 * len(names))
    domains = [names[number % len(names)] for number in range(len(labels))]
    options = {"output_names": names[:3], "replicates": 0, "top_samples": 1, "eigenvalues": 2}
    report = ha.alignment_report(features, logits, labels, domains, **options)
    assert report.names == tuple(sorted(names))
    shown = {name for row in report.to_frame().select("first", "second").iter_rows() for name in row}
    assert shown == set(names)
    reports = {"*": report, f"^a$ [/x] <b> {names[0]}": report}
    assert compare(reports).columns == ["first", "second", "quantity", *reports]
    plot = report.plot("eigenvalues")
    plot.savefig(io.BytesIO(), dpi=30)
    assert [text.get_text() for text in plot.axes[0].get_legend().get_texts()] == list(
        map(shown_name, report.names)
    )
    found = read_page(
        "".join(
            render("table.html", shown=ShownTable.of(report.to_frame(name), title))
            for name in SECTIONS
            for title in reports
        )
    )
    assert set(found.elements) <= {
        "div",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "button",
    } | {
        "details",
        "summary",
    }
    assert {visible(name) for name in (*names, *reports)} <= set(found.texts)


def test_what_a_font_lacks_is_shown_by_its_number() -> None:
    assert figure_text("é 中文 🙂 _$") == "é \\u4e2d\\u6587 \\U0001f642 _\\$"


def test_long_names_are_cut_in_figures_alone() -> None:
    assert shown_name("0" * 64) == "0" * 14 + "…" + "0" * 15
