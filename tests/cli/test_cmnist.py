"""``hessalign cmnist``, as a user runs it."""

import json
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.command import hessalign, run_process, start_process, words

TINY = ["cmnist", "--fast", "--steps", "4", "--methods", "erm,hgp"]


def records(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "restarts").iterdir()}


def test_table_figure_and_records(tmp_path: Path) -> None:
    result = hessalign(*TINY, "--out", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "Colored MNIST (Table 7)" in result.stdout
    assert "Changed setting: steps 4 instead of 501" in words(result.stdout)
    assert "69.4 ± 1.3" in result.stdout
    assert "HGP, seed 0: train" in result.stderr
    assert len(records(tmp_path)) == 2
    assert (tmp_path / "balanced-fast-4-steps.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "balanced-fast-4-steps.md").read_text(encoding="utf-8")
    assert "| ERM | 1 |" in table
    assert "| 86.4 ± 0.2 | 14.0 ± 0.7 |" in table


@pytest.mark.parametrize(
    ("methods", "options", "unread"),
    [
        ("erm", ("--probes", 7, "--hutchinson", "sampled", "--alpha", 2, "--gamma", 1), 4),
        pytest.param("gradient", ("--alpha", 2), 1, marks=pytest.mark.slow),
        pytest.param(
            "erm,hutchinson",
            ("--probes", 7, "--hutchinson", "sampled", "--alpha", 2),
            0,
            marks=pytest.mark.slow,
        ),
        ("gradient-flat", ("--probes", 7), 0),  # the default of gamma is 2 / probes
        ("gradient-flat", ("--probes", 7, "--gamma", 1), 1),
    ],
)
def test_an_option_that_no_method_reads_is_told(
    tmp_path: Path, methods: str, options: tuple[object, ...], unread: int
) -> None:
    tiny = ("cmnist", "--fast", "--steps", 1, "--subsample", 100, "--methods", methods)
    result = hessalign(*tiny, *options, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    told = [line for line in result.stderr.splitlines() if "changes nothing, since none" in line]
    assert [line.split(": ")[1] for line in told] == list(options[::2][:unread])
    has_probes = "hutchinson" in methods or "flat" in methods
    assert ("Hutchinson probes 7 instead of 150" in words(result.stdout)) == has_probes


def test_rerun_skips_what_is_done_extends_it_and_repeats_bit_for_bit(tmp_path: Path) -> None:
    assert hessalign(*TINY, "--out", str(tmp_path / "a")).returncode == 0
    before = records(tmp_path / "a")
    result = hessalign(*TINY, "--out", str(tmp_path / "a"), "--restarts", "2", "--json")
    assert result.returncode == 0, result.stderr
    assert "2 of 4 restarts are done already" in words(result.stderr)
    after = records(tmp_path / "a")
    assert len(after) == 4
    assert all(after[name] == content for name, content in before.items())

    document = json.loads(result.stdout)
    rows = {row["method"]: row for row in document["rows"]}
    assert list(rows) == ["erm", "hgp"]
    assert rows["hgp"]["restarts"] == 2
    assert {"source_accuracy", "source_accuracy_std", "target_accuracy", "target_accuracy_std"} <= set(
        rows["hgp"]
    )
    assert 0 < rows["hgp"]["source_accuracy"] <= 100
    assert "hidden 64 instead of 390" in document["reduced"]

    assert hessalign(*TINY, "--out", str(tmp_path / "b"), "--seed", "1").returncode == 0
    for name, content in records(tmp_path / "b").items():
        ours, theirs = json.loads(content), json.loads(after[name])
        assert ours["history"] == theirs["history"], name


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_an_interrupted_run_loses_only_the_running_restart(tmp_path: Path, how: signal.Signals) -> None:
    process = start_process(*TINY, "--restarts", "2000", "--out", tmp_path)
    deadline = time.monotonic() + 120
    folder = tmp_path / "restarts"
    while not (folder.exists() and len(list(folder.glob("*.json"))) >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    try:
        _, errors = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:  # Python loses an interrupt that falls into a finaliser: press again
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "run the same command to go on" in words(errors)
    finished = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    assert len(finished) < 4000
    result = hessalign(*TINY, "--restarts", "2", "--out", str(tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    assert sum(row["restarts"] for row in json.loads(result.stdout)["rows"]) >= 4
    assert all((folder / name).read_bytes() == content for name, content in finished.items())


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: opening them works, writing a record does not."""
    result = run_process(
        *TINY,
        "--out",
        tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)),
    )
    assert result.returncode == 1
    assert "Stopped: [Errno 27] File too large: '" in result.stderr
    assert ". Finished restarts are in" in result.stderr
    assert ".draft" not in result.stderr
    assert "Traceback" not in result.stderr
    assert records(tmp_path) == {}


def test_weights_subsample_and_parts_reach_the_records(tmp_path: Path) -> None:
    arguments = ["cmnist", "--fast", "--steps", "4", "--methods", "erm,diagonal-flat", "--subsample", "1000"]
    weights = ["--alpha", "3", "--gamma", "0.5", "--log-terms"]
    result = hessalign(*arguments, *weights, "--out", str(tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert "1000 source images instead of 50000" in document["reduced"]
    assert [row["label"] for row in document["rows"]] == [
        "ERM",
        "Exact diagonal + flat head, α = 3, γ = 0.5",
    ]
    assert (tmp_path / "balanced-fast-4-steps-1000-images.md").exists()
    for content in records(tmp_path).values():
        record = json.loads(content)
        flat = record["spec"]["method"] == "diagonal-flat"
        weights = (record["spec"]["alpha"], record["spec"]["gamma"])
        assert weights == ((3.0, 0.5) if flat else (1.0, None))
        assert len(record["parts"]) == len(record["history"])


def test_a_schedule_of_its_own_has_its_own_table(tmp_path: Path) -> None:
    assert hessalign(*TINY, "--out", str(tmp_path)).returncode == 0
    schedule = ["--fresh-optimizer", "--penalty-weight", "1000"]
    result = hessalign(*TINY, *schedule, "--out", str(tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert "penalty weight 1000 instead of 9.126e+04, fresh optimizer" in document["reduced"]
    assert [row["label"] for row in document["rows"]] == ["ERM, λ = 1e+03, fresh Adam", HGP_AFRESH]
    assert all(row["paper_target_accuracy"] is None for row in document["rows"])
    specs = [json.loads(content)["spec"] for content in records(tmp_path).values()]
    assert sorted((spec["fresh_optimizer"], spec["penalty_weight"] == 1000) for spec in specs) == [
        (False, False),
        (False, False),
        (True, True),
        (True, True),
    ]
    assert (tmp_path / "balanced-fast-4-steps-weight-1000-fresh-optimizer.md").exists()
    assert "| HGP | 1 |" in (tmp_path / "balanced-fast-4-steps.md").read_text(encoding="utf-8")


HGP_AFRESH = "HGP, λ = 1e+03, fresh Adam"


def test_the_full_weight_can_set_in_at_any_step(tmp_path: Path) -> None:
    result = hessalign(*TINY, "--anneal-step", "1", "--out", str(tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    labels = [f"{name}, full weight from step 1 of 4" for name in ("ERM", "HGP")]
    assert [row["label"] for row in document["rows"]] == labels
    assert all(row["paper_target_accuracy"] is None for row in document["rows"])
    assert {json.loads(content)["spec"]["anneal_step"] for content in records(tmp_path).values()} == {1}
    assert (tmp_path / "balanced-fast-4-steps-annealed-at-1.md").exists()
    # Asked for by name, the published step is the published schedule.
    again = hessalign(*TINY, "--anneal-step", "2", "--out", str(tmp_path), "--json")
    assert [row["label"] for row in json.loads(again.stdout)["rows"]] == ["ERM", "HGP"]


def test_imbalanced_uses_table_8(tmp_path: Path) -> None:
    result = hessalign(*TINY, "--imbalanced", "--split", "text", "--out", str(tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert "95 % / 5 % split of the text (Table 8)" in document["title"]
    assert document["rows"][1]["paper_target_accuracy"] == 30.0
    assert (tmp_path / "imbalanced-text-fast-4-steps.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "erm,hpg"], "'hpg' is not known; allowed are table, all, erm, irm"),
        (["--methods", ","], "none given; allowed are"),
        (["--restarts", "0"], "--restarts': must be a whole number of at least 1, got 0"),
        (["--split", "half"], "'half' is not one of"),
        (["--device", "abacus"], "'abacus' cannot be used here"),
        (["--seed", "-1"], "--seed': must be a whole number of at least 0, got -1"),
        (["--steps", "many"], "Invalid value for '--steps'"),
        (["--split", "text"], "'text' has a meaning only with --imbalanced"),
        (["--alpha", "-1"], "--alpha': must be a finite number of at least 0, got -1.0"),
        (["--gamma", "nan"], "--gamma': must be a finite number of at least 0, got nan"),
        (["--penalty-weight", "0.5"], "--penalty-weight': must be a finite number of at least 1, got 0.5"),
        (["--anneal-step", "-1"], "--anneal-step': must be a whole number of at least 0, got -1"),
        (["--anneal-step", "501"], "--anneal-step: must be less than the number of steps, 501, got 501"),
        (["--subsample", "7"], "--subsample': must be a whole number of at least 100, got 7"),
        (["--subsample", "50001"], "--subsample: must be at most 50000, all source images, got 50001"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = hessalign("cmnist", *arguments, "--out", str(tmp_path / "new"))
    assert result.returncode == 2
    assert message in words(result.stderr)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_foreign_file_in_the_folder_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    foreign = tmp_path / "restarts" / "notes.json"
    foreign.parent.mkdir()
    foreign.write_text("{}")
    result = hessalign(*TINY, "--out", str(tmp_path))
    assert result.returncode == 2
    assert "notes.json: not the record of a finished restart" in words(result.stderr)
    assert list(records(tmp_path)) == ["notes.json"]
    assert foreign.read_text() == "{}"


def test_help_teaches(tmp_path: Path) -> None:
    result = hessalign("cmnist", "--help")
    assert result.returncode == 0
    for word in ("--fast", "--imbalanced", "hgp-alpha0", "hessalign cmnist --fast", "Tables 7 and 8"):
        assert word in result.stdout
    assert "cmnist" in hessalign("--help").stdout
    assert hessalign("--version").stdout.strip()[0].isdigit()
