"""``hessalign cmnist-study``, as a user runs it."""

import json
from pathlib import Path

import pytest

from tests.cli.command import hessalign, words
from tests.cli.test_cmnist import records

TINY = ["cmnist-study", "probes", "--fast", "--steps", "3", "--subsample", "500"]


def study(*arguments: str):
    return hessalign(*TINY, *arguments)


def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = study("--out", str(tmp_path))
    assert first.returncode == 0, first.stderr
    for text in ("Is the probes' noise a regulariser", "Hutchinson, k = 200", "Exact diagonal", "oracle"):
        assert text in first.stdout
    before = records(tmp_path)
    assert len(before) == 5
    second = study("--out", str(tmp_path), "--restarts", "2", "--json")
    assert "5 of 10 restarts are done already" in second.stderr
    assert before.items() <= records(tmp_path).items()

    document = json.loads(second.stdout)
    assert "500 source images instead of 50000" in document["reduced"]
    assert [row["probes"] for row in document["rows"]] == [200, 667, 2000, 6667, None]
    assert all(row["restarts"] == 2 for row in document["rows"])
    choices = {choice["rule"]: choice for choice in document["selection"]}
    assert [name for name, choice in choices.items() if choice["sees_target"]] == ["oracle"]
    best = max(row["target_accuracy"] for row in document["rows"])
    assert choices["oracle"]["target_accuracy"] == best


def test_a_restart_without_parts_is_run_again(tmp_path: Path) -> None:
    plain = ["cmnist", *TINY[2:], "--methods", "diagonal", "--out", str(tmp_path)]
    assert hessalign(*plain).returncode == 0
    ((name, before),) = records(tmp_path).items()
    assert study("--out", str(tmp_path)).returncode == 0
    after = json.loads(records(tmp_path)[name])
    assert json.loads(before)["history"] == after["history"]
    assert json.loads(before)["parts"] == []
    assert len(after["parts"]) == len(after["history"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cmnist-study", "probe"], "'probe' is not known; allowed are forms, probes, alpha"),
        (["cmnist-study", "probes", "--subsample", "99"], "must be a whole number of at least 100, got 99"),
        (["cmnist-study", "probes", "--split", "half"], "'half' is not one of"),
        (["cmnist-study", "probes", "--device", "abacus"], "'abacus' cannot be used here"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = hessalign(*arguments, "--out", str(tmp_path / "new"))
    assert result.returncode == 2
    assert message in words(result.stderr)
    assert not (tmp_path / "new").exists()
