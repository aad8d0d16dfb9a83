"""Commands show names as they are: none is obeyed as markup, as a pattern or by the terminal."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from hessalign.cli.main import app
from hessalign.datasets.features_file import save_features
from hessalign.markup import markdown_text, visible
from tests.benchmark.run_folders import write_own_run
from tests.nasty_names import NASTY

WIDE = {"COLUMNS": "400", "NO_COLOR": "1"}
GROUPS = [NASTY[start::6] for start in range(6)]


def hessalign(*words: object) -> Result:
    result = CliRunner(env=WIDE).invoke(app, [str(word) for word in words], prog_name="hessalign")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    assert not {"\x1b", "\x07"} & set(result.output)
    return result


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write_sweep(out: Path, names: tuple[str, ...]) -> None:
    """Two trials of two algorithms on each of the domains."""
    for target in range(len(names)):
        for trial in (0, 1):
            for algorithm in ("erm", names[0]):
                evaluation = [(0.5 + 0.01 * place + 0.1 * trial, 0.5) for place in range(len(names))]
                fields = {"dataset": names[1], "algorithm": algorithm, "trial_seed": trial}
                write_own_run(out, {20: evaluation}, names=names, target_domains=(target,), **fields)


@pytest.mark.parametrize("names", GROUPS)
def test_collect_in_every_format(names: tuple[str, ...], tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep", names)
    sweep, outputs = tmp_path / "sweep", {}
    for output_format in ("rich", "markdown", "latex", "html", "json"):
        best = ("--export-best", tmp_path / "best.json") if output_format == "json" else ()
        result = hessalign("collect", sweep, "--baseline", "erm", "--format", output_format, *best)
        outputs[output_format] = result.stdout
    table = tmp_path / "[b]table.csv"
    assert f"Tables: {table}" in hessalign("collect", sweep, "--format", "csv", "--out", table).stderr
    document = json.loads(outputs["json"])
    by_target = document["tables"][0]
    assert [column["label"] for column in by_target["columns"]] == [*names, "Avg"]
    assert [row["cells"][0]["mean"] for row in by_target["rows"]] == [pytest.approx(55.0)] * 2
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["column"] for row in rows} >= set(names)
    assert {row["algorithm"] for row in rows} == {"erm", names[0]}
    header = next(line for line in outputs["markdown"].splitlines() if line.startswith("| Algorithm"))
    assert header == f"| Algorithm | {' | '.join(map(markdown_text, names))} | Avg |"
    for name in names:
        assert visible(name).strip() in outputs["rich"]
    best = json.loads((tmp_path / "best.json").read_text(encoding="utf-8"))["runs"]
    assert {run["target"] for run in best} == set(names)


@pytest.fixture
def features(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    names = request.param
    random = torch.Generator().manual_seed(0)
    domains = torch.arange(40 * len(names)) % len(names)
    path = tmp_path / "features.safetensors"
    save_features(
        path,
        torch.randn(len(domains), 3, generator=random),
        torch.randint(0, 2, (len(domains),), generator=random),
        domains,
        class_names=names[-2:],
        domain_names=names,
    )
    return path


@pytest.mark.parametrize(
    ("features", "names"), [(names, names) for names in GROUPS[::3]], indirect=["features"]
)
def test_inspect(features: Path, names: tuple[str, ...], tmp_path: Path) -> None:
    few = ("--replicates", "0", "--per-domain", "0")
    result = hessalign("inspect", features, *few)
    for name in names:
        assert visible(name).strip() in result.stdout
    document = json.loads(hessalign("inspect", features, *few, "--json").stdout)
    rows = next(iter(document.values()))["eigenvalues"]
    assert {row["domain"] for row in rows} == set(names)


@pytest.mark.parametrize(
    ("features", "names"), [(names, names) for names in GROUPS[1::4]], indirect=["features"]
)
def test_train(features: Path, names: tuple[str, ...], tmp_path: Path) -> None:
    run = tmp_path / "[b]run"
    few = ("--steps", "2", "--set", "batch_size=4")
    result = hessalign(
        *(
            "train",
            "--dataset",
            features,
            "--algorithm",
            "erm",
            "--target",
            "0",
            *few,
            "--device",
            "cpu",
        ),
        *("--out", run),
    )
    for name in names:
        assert visible(name).strip() in result.stdout
    assert list(json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["accuracies"]) == list(names)
