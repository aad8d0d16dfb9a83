"""Training curves: every reported number by its domain's name, and files that are whole."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from hessalign.backbones import BackboneSpec
from hessalign.diagnostics.curves import (
    TrainingHistory,
    draw_training_curves,
    read_history,
    save_training_curves,
)
from hessalign.training import RunSpec

DOMAINS = ("day", "dusk", "night")


def make_history() -> TrainingHistory:
    """Of three domains, the second one the target."""
    records = [
        {
            "step": step,
            "loss": 1 / (1 + step),
            "risk": 0.5,
            "gradient": 0.1,
            "gradient_0": 0.1,
            "gradient_1": 0.2 + step,
            "step_seconds": 0.1,
            "accuracies": {name: {"in": 0.5, "out": step / 50} for name in DOMAINS},
        }
        for step in range(0, 50, 10)
    ]
    return TrainingHistory("hgp on weather", records, DOMAINS, (1,))


def test_parts_are_drawn_by_domain() -> None:
    figure: Figure = draw_training_curves(make_history())
    assert [axes.get_title() for axes in figure.axes] == [
        "loss (objective) and risk",
        "gradient distance",
        "accuracy [%], sources held out",
    ]
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert set(lines) == {"mean", "day", "night"}
    assert list(lines["night"].get_ydata()) == [0.2, 10.2, 20.2, 30.2, 40.2]
    assert figure.axes[1].get_yscale() == "log"
    accuracies = {line.get_label(): list(line.get_ydata()) for line in figure.axes[2].lines}
    assert accuracies == {
        "day": [0, 20, 40, 60, 80],
        "dusk (target)": [50] * 5,
        "night": [0, 20, 40, 60, 80],
    }
    colours = {line.get_label().removesuffix(" (target)"): line.get_color() for line in figure.axes[2].lines}
    assert colours["night"] == lines["night"].get_color()
    assert len(set(colours.values())) == len(DOMAINS)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    spec = RunSpec(
        dataset="weather",
        algorithm="hgp",
        target_domains=(1,),
        backbone=BackboneSpec(name="identity"),
        hparams={},
        steps=50,
        evaluate_every=10,
    )
    (folder / "spec.json").write_text(spec.model_dump_json())
    lines = "".join(json.dumps(record) + "\n" for record in make_history().records)
    (folder / "metrics.jsonl").write_text(lines)
    return folder


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_a_run_is_drawn_in_three_formats(run: Path, tmp_path: Path, ending: str, start: bytes) -> None:
    assert read_history(run) == make_history()
    path = tmp_path / f"curves.{ending}"
    save_training_curves(run, path)
    assert path.read_bytes().startswith(start)
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, "run"]


def test_what_cannot_be_drawn_is_one_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"plot: the name must end in \.png, \.pdf, \.svg, got .*curves\.bmp"
    ):
        save_training_curves(run, tmp_path / "curves.bmp")
    (run / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"run: .* holds no run that was evaluated"):
        save_training_curves(run, tmp_path / "curves.png")
    assert read_history(run) is None
    assert not list(tmp_path.glob("curves*"))
