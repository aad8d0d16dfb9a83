"""``hessalign collect``."""

import csv
import json
import threading
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.benchmark.run_folders import own_record, write_domainbed_run, write_own_run, write_result
from tests.cli.command import hessalign, words


def collect(*arguments: object) -> CompletedProcess[str]:
    return hessalign("collect", *arguments)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VLCS, ERM and HGP, each domain left out in two trials; one run is still going."""
    out = tmp_path_factory.mktemp("sweep")
    for algorithm, base in (("erm", 0.6), ("hgp", 0.7)):
        for target in range(4):
            for trial in (0, 1):
                fields = {"dataset": "vlcs", "algorithm": algorithm, "trial_seed": trial}
                write_result(out, base + trial / 10, target=target, domains=4, **fields)
    write_own_run(out, {20: [(1.0, 1.0)] * 4}, dataset="vlcs", algorithm="irm", done=False)
    return out


def test_tables_and_notes(sweep: Path) -> None:
    result = collect(sweep)
    assert result.returncode == 0, result.stderr
    lines = [line.split("│")[1:-1] for line in result.stdout.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells[0] == ["ERM", *["65.0 ± 3.5"] * 4, "65.0"]
    assert cells[1] == ["HGP", *["75.0 ± 3.5"] * 4, "75.0"]
    assert cells[2:] == [["ERM", "65.0 ± 3.5", "65.0"], ["HGP", "75.0 ± 3.5", "75.0"]]
    assert "1 of 17 runs are not finished and are left out." in result.stderr


def test_json_with_everything(sweep: Path) -> None:
    options = ("--select", "all", "--baseline", "erm", "--compare", "paper")
    first, second = collect(sweep, "--json", *options), collect(sweep, "--format", "json", *options)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    document = json.loads(first.stdout)
    kinds = [(table["rule"], table["kind"]) for table in document["tables"]]
    each = ("targets", "summary", "differences")
    assert kinds == [(rule, kind) for rule in ("source-validation", "oracle") for kind in each]
    summary = document["tables"][1]
    (hgp,) = (row for row in summary["rows"] if row["algorithm"] == "hgp")
    assert (hgp["cells"][0]["published"], hgp["cells"][0]["rank"]) == (77.6, "best")
    difference = document["tables"][2]["rows"][0]["cells"][-1]
    assert difference["mean"] == pytest.approx(10.0)
    assert difference["n"] == 8
    assert any("leave-one-domain-out" in note for note in document["notes"])


@pytest.mark.parametrize("name", ["rich", "markdown", "latex", "html", "csv", "json"])
def test_every_format_to_a_file(sweep: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "new folder" / "tables"
    result = collect(sweep, "--format", name, "--out", out, "--statistics")
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert str(out) in result.stderr.replace("\n", "")
    text = out.read_text(encoding="utf-8")
    if name == "csv":
        values = [row["mean"] for row in csv.DictReader(text.splitlines()) if row["algorithm"] == "hgp"]
        assert [float(value) for value in values] == pytest.approx([75.0] * 7)
    elif name == "json":
        assert json.loads(text)["tables"]
    else:
        assert "75.0" in text
        assert "n = 2, s = 7.1" in text


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        ("md", "markdown"),
        ("TEX", "latex"),
        ("html", "html"),
        ("csv", "csv"),
        ("json", "json"),
        ("txt", "rich"),
    ],
)
def test_a_file_is_written_in_the_format_of_its_ending(sweep: Path, tmp_path: Path, ending, name) -> None:
    for out, options in ((tmp_path / f"tables.{ending}", ()), (tmp_path / "tables", ("--format", name))):
        assert collect(sweep, *options, "--out", out).returncode == 0
    assert (tmp_path / f"tables.{ending}").read_bytes() == (tmp_path / "tables").read_bytes()
    other = tmp_path / f"other.{ending}"
    assert collect(sweep, "--format", "latex", "--out", other).returncode == 0
    assert r"\documentclass" in other.read_text(encoding="utf-8")


def test_unfinished_runs_count_if_asked(sweep: Path) -> None:
    document = json.loads(collect(sweep, "--json", "--include-unfinished").stdout)
    algorithms = [row["algorithm"] for row in document["tables"][0]["rows"]]
    assert algorithms == ["erm", "irm", "hgp"]


def test_domainbeds_sweep(tmp_path: Path) -> None:
    for target in range(3):
        for draw, test in ((0, 0.5), (1, 0.25)):
            evaluations = {0: [(test, 0.5)] * 3, 300: [(test / 2, 0.25)] * 3}
            names = {"dataset": "ColoredMNIST", "algorithm": "VREx", "hparams_seed": draw}
            write_domainbed_run(tmp_path / f"{target}{draw}", evaluations, test_envs=[target], **names)
    document = json.loads(collect(tmp_path, "--json", "--select", "all").stdout)
    tables = {(table["rule"], table["kind"]): table for table in document["tables"]}
    by_target = tables["source-validation", "targets"]
    assert [column["label"] for column in by_target["columns"]] == ["+90%", "+80%", "-90%", "Avg"]
    assert by_target["rows"][0]["label"] == "V-REx"
    assert [cell["mean"] for cell in by_target["rows"][0]["cells"]] == [25.0] * 4
    assert [cell["mean"] for cell in tables["oracle", "targets"]["rows"][0]["cells"]] == [12.5] * 4


def test_figure_and_configurations(sweep: Path, tmp_path: Path) -> None:
    plot, best = tmp_path / "a" / "figure.png", tmp_path / "b" / "best.json"
    result = collect(sweep, "--select", "oracle", "--plot", plot, "--export-best", best)
    assert result.returncode == 0, result.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")
    runs = json.loads(best.read_text())["runs"]
    assert len(runs) == 16
    assert {run["rule"] for run in runs} == {"oracle"}
    assert {(run["algorithm"], run["trial_seed"], round(run["test"], 9)) for run in runs} == {
        ("erm", 0, 60.0),
        ("erm", 1, 70.0),
        ("hgp", 0, 70.0),
        ("hgp", 1, 80.0),
    }


def test_it_works_while_a_sweep_is_running(tmp_path: Path) -> None:
    """A thread keeps adding runs, record by record and byte by byte, while the tables are made."""
    write_result(tmp_path, 0.5)
    stop = threading.Event()

    def keep_running() -> None:
        seed = 0
        while not stop.is_set():
            seed += 1
            folder = write_result(tmp_path, 0.5, trial_seed=seed)
            growing = write_own_run(tmp_path, {}, done=False, trial_seed=seed, algorithm="irm")
            with (growing / "metrics.jsonl").open("a") as file:
                for byte in own_record(0, [(0.5, 0.5)] * 2):
                    file.write(byte)
                    file.flush()
            (growing / "done").touch()
            assert folder.exists()

    writer = threading.Thread(target=keep_running)
    writer.start()
    try:
        results = [collect(tmp_path, "--json", "--include-unfinished") for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    for result in results:
        assert result.returncode == 0, result.stderr
        rows = json.loads(result.stdout)["tables"][0]["rows"]
        assert {row["cells"][0]["mean"] for row in rows} == {50.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "folder: there is no folder nowhere"),
        (["."], "folder: . holds no run"),
        (["SWEEP", "--baseline", "coral"], "baseline: 'coral' has no runs here; allowed are erm, hgp"),
        (["SWEEP", "--plot", "figure.gif"], "plot: must end in .png, .pdf, .svg, got figure.gif"),
        (["SWEEP", "--json", "--format", "csv"], "json: --json and --format csv contradict each other"),
        (["SWEEP", "--select", "best"], "'best' is not one of 'source-validation'"),
        (["SWEEP", "--format", "word"], "'word' is not one of"),
        (["SWEEP", "--compare", "mine"], "'mine' is not"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(sweep) if argument == "SWEEP" else argument for argument in arguments]
    result = collect(*given, "--out", "tables.txt", "--export-best", "best.json")
    assert result.returncode == 2
    assert message in words(result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_help_has_examples() -> None:
    text = collect("--help").stdout
    assert "hessalign collect runs/sweep --select all" in text
