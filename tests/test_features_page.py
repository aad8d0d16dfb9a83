"""docs/features.md: its results are what its command writes from the records; its example runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs.write_features import PAGE, RESULTS, accuracy, difference, page, verdict

from hessalign.algorithms import algorithm_names
from hessalign.benchmark.tables import Cell, Column, Report, Row, Table
from hessalign.datasets.features_file import FeaturesFile
from tests.cli.small_images import draw_images

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_records_say() -> None:
    assert page() == PAGE.read_text(encoding="utf-8")


def test_links_lead_somewhere_and_algorithms_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (PAGE.parent / link).exists(), link
    named = re.findall(r"`([a-z_]+)`", text.split("| algorithm | why |")[1].split("\n\n")[0])
    assert set(named) <= set(algorithm_names())
    assert (RESULTS / "tables.md").exists()


@pytest.mark.parametrize(
    ("cell", "as_accuracy", "as_difference"),
    [
        (Cell(), "–", "–"),
        (Cell(mean=1.0, standard_error=0.4), "1.0 ± 0.4", "**+1.00 ± 0.40**"),
        (Cell(mean=-1.0, standard_error=0.6, fewer_runs=True), "-1.0 ± 0.6 †", "-1.00 ± 0.60"),
        (Cell(mean=70.25), "70.2", "–"),
    ],
)
def test_cells(cell: Cell, as_accuracy: str, as_difference: str) -> None:
    assert (accuracy(cell), difference(cell)) == (as_accuracy, as_difference)


def test_a_verdict_names_what_differs_by_more_than_chance() -> None:
    cells = {"HGP": (1.0, 0.4), "Fishr": (-2.0, 0.9), "CORAL": (0.5, 0.4), "Exact": (3.0, None)}
    rows = tuple(
        Row(algorithm=name, label=name, cells=(Cell(mean=mean, standard_error=error),))
        for name, (mean, error) in cells.items()
    )
    columns = (Column(key="average", label="All"),)
    table = Table(kind="differences", rule="oracle", title="", columns=columns, rows=rows, explanations=("",))
    text = verdict(Report(tables=(table,), notes=()), "oracle")
    assert text.endswith("of 4 methods: better than ERM HGP (+1.00); worse Fishr (-2.00).")


@pytest.mark.slow
def test_the_example_runs_from_images_to_tables(tmp_path: Path) -> None:
    """With random weights and few runs; twice, the second time with nothing left to do."""
    images, out, programs = draw_images(tmp_path / "images", "jpg"), tmp_path / "out", tmp_path / "bin"
    programs.mkdir()
    shim = programs / "hessalign"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m hessalign "$@"\n')
    shim.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "BACKBONE": "timm:test_convnext",
        "WEIGHTS": "none",
    }
    options = ["--steps", "2", "--evaluate-every", "2", "--algorithms", "erm,hgp", "--hparams", "2"]
    options += ["--trials", "1", "--set", "batch_size=3", "--device", "cpu"]
    command = [shutil.which("bash") or "bash", str(ROOT / "examples" / "pacs_features.sh")]
    for _ in range(2):
        result = subprocess.run(
            [*command, str(images), str(out), *options],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env=environment,
        )
        assert result.returncode == 0, result.stderr
        for name in ("head", "adapter"):
            report = Report.model_validate_json((out / f"{name}.json").read_bytes())
            assert {row.algorithm for row in report.tables[0].rows} == {"erm", "hgp"}
            assert "ERM" in (out / f"{name}.md").read_text(encoding="utf-8")


def test_the_pages_first_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    exec(example[1], {})
    assert [domain.name for domain in FeaturesFile("own.safetensors").domains] == ["north", "south", "west"]
