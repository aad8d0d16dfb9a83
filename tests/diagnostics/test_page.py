"""The page: nothing from outside, and in a browser no errors, sortable, printable. The plots."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import hessalign as ha
from hessalign.diagnostics.data import compare
from hessalign.diagnostics.page import page, write_html
from hessalign.diagnostics.plots import distance_matrix, draw, save_plots
from tests.diagnostics.synthetic import shifted_domains

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--enable-logging=stderr",
]
NAMES = ["<day>", "night & day"]


@pytest.fixture(scope="module")
def reports() -> dict[str, ha.AlignmentReport]:
    made = [
        ha.alignment_report(*shifted_domains(s, 0), NAMES, replicates=50)
        for s in ("feature mean", "confidence")
    ]
    return dict(zip(("before", "after"), made, strict=True))


def browse(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [CHROMIUM, *QUIET, profile, *arguments, path.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "CONSOLE" not in result.stderr
    return result


def test_the_page_needs_nothing_else(reports: dict[str, ha.AlignmentReport], tmp_path: Path) -> None:
    reports["before"].to_html(tmp_path / "one.html")
    write_html(tmp_path / "two.html", reports)
    for name in ("one.html", "two.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "http" not in text.replace("http-equiv", "")
        assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', text))
        assert "&lt;day&gt; and night &amp; day differ most in feature mean" in text
        assert "<day>" not in text
        for word in ("½ δ² ‖H_e − H_f‖₂", "Eq. 33", "nats"):
            assert word in text
    assert "Side by side" in (tmp_path / "two.html").read_text(encoding="utf-8")
    assert compare(reports).columns == ["first", "second", "quantity", "before", "after"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_sorts_and_prints_it(reports: dict[str, ha.AlignmentReport], tmp_path: Path) -> None:
    """A script appended to the page clicks on headers and writes down the order it then sees."""
    probe = """<script>
    const tables = [...document.querySelectorAll("table")];
    const body = tables.find((table) => table.querySelector("th:nth-child(5)")?.textContent === "effect");
    const header = body.querySelector("th:nth-child(5)"), button = header.querySelector("button");
    const column = () => [...body.tBodies[0].rows].map((row) => row.cells[4].dataset.value).join(" ");
    const seen = [];
    button.click(); seen.push(header.getAttribute("aria-sort"), column());
    button.click(); seen.push(header.getAttribute("aria-sort"), column());
    const result = document.createElement("pre");
    result.id = "seen"; result.textContent = seen.join("|"); document.body.append(result);
    </script></body>"""
    path = tmp_path / "page.html"
    path.write_text(page({"": reports["before"]}).replace("</body>", probe), encoding="utf-8")
    found = re.search(r'<pre id="seen">(.*?)</pre>', browse(path, "--dump-dom").stdout)
    assert found is not None
    up, rising, down, falling = found[1].split("|")
    effects = reports["before"].to_frame("attributes")["effect"]
    assert (up, down) == ("ascending", "descending")
    assert [float(value) for value in rising.split()] == sorted(effects)
    assert [float(value) for value in falling.split()] == sorted(effects, reverse=True)
    browse(path, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000


def test_plots_are_written_and_hold_the_numbers(
    reports: dict[str, ha.AlignmentReport], tmp_path: Path
) -> None:
    paths = save_plots(reports, tmp_path / "figures")
    assert [path.name for path in paths] == [
        "distances.png",
        "eigenvalues.png",
        "attributes.png",
        "plane.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert all(path.with_suffix(".pdf").exists() for path in paths)
    report = reports["before"]
    gradient = report.to_frame().filter(report.to_frame()["quantity"] == "gradient")["distance"][0]
    assert distance_matrix(report, "gradient").tolist() == [[0, gradient], [gradient, 0]]
    both = draw(reports, "attributes")
    longest = max(bar.get_width() for axes in both.axes for bar in axes.patches)
    assert all(axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > longest for axes in both.axes)
    bars = report.plot("attributes").axes[0].patches
    widths = {round(bar.get_width(), 9) for bar in bars}
    assert widths == {round(effect, 9) for effect in report.to_frame("attributes")["effect"]}


@pytest.mark.parametrize("kind", ["distances", "attributes", "eigenvalues", "plane"])
@pytest.mark.parametrize("title", ["", "a logistic head on features"])
def test_nothing_in_a_figure_is_cut_or_runs_into_another(
    reports: dict[str, ha.AlignmentReport], kind: str, title: str
) -> None:
    """All texts lie within the figure, and titles neither meet one another nor a colour bar."""
    figure = draw({title: reports["before"]}, kind)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    whole = figure.bbox.padded(1)
    for artist in [*figure.axes, *legends]:
        box = artist.get_tightbbox(renderer)
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, artist
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, artist
    titles = [axes.title.get_window_extent(renderer) for axes in figure.axes if axes.get_title()]
    bars = [axes.get_tightbbox(renderer) for axes in figure.axes if axes.get_label() == "<colorbar>"]
    for place, box in enumerate(titles):
        assert not any(box.overlaps(other) for other in [*titles[place + 1 :], *bars])
