"""The figure shows what the tables say."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from hessalign.benchmark.plot import save_plot
from hessalign.benchmark.readers import read_sweep
from hessalign.benchmark.report import make_report
from hessalign.benchmark.selection import RULES
from tests.benchmark.run_folders import write_result


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for dataset in ("pacs", "vlcs"):
        for algorithm, accuracy in (("erm", 0.5), ("hgp", 0.6), ("mine", 0.75)):
            for trial in (0, 1):
                for draw in (0, 1):
                    fields = {"algorithm": algorithm, "trial_seed": trial, "hparams_seed": draw}
                    write_result(tmp_path, accuracy + trial / 10, dataset=dataset, **fields)
    return tmp_path


def test_the_panels_show_the_figures(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments, **options) -> None:
        drawn.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    records = read_sweep(sweep)
    path = tmp_path / "figure.png"
    save_plot(records, make_report(records, RULES), RULES, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = drawn
    left, right, left_below, _ = figure.axes
    assert (left.get_title(), left_below.get_title()) == ("VLCS", "PACS")
    assert [label.get_text() for label in left.get_xticklabels()] == ["ERM", "HGP", "mine"]
    source_validation, *_ = left.containers
    heights = source_validation.lines[0].get_ydata()
    assert list(heights) == pytest.approx([55.0, 65.0, 80.0])
    (error_bars,) = source_validation.lines[2]
    lengths = [end[1] - start[1] for start, end in error_bars.get_segments()]
    assert lengths == pytest.approx([2 * 5 / 2**0.5] * 3)
    points = [tuple(point) for marks in right.collections for point in marks.get_offsets()]
    assert len(points) == 12
    assert set(points) == {(50.0, y) for y in (50.0, 60.0, 70.0, 75.0, 85.0)}


@pytest.mark.parametrize("ending", ["pdf", "svg"])
def test_other_formats(sweep: Path, tmp_path: Path, ending: str) -> None:
    records = read_sweep(sweep)
    path = tmp_path / f"figure.{ending}"
    save_plot(records, make_report(records, ["oracle"]), ["oracle"], path)
    assert path.stat().st_size > 1000
