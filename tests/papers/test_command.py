"""``python -m papers.colored_mnist``, as a user runs it."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from hessalign.cli.main import app as hessalign_app
from hessalign.experiments.colored_mnist import METHODS
from papers.colored_mnist.__main__ import app
from papers.colored_mnist.evidence import ROOT
from papers.colored_mnist.page import DOCS, RECORDS
from tests.cli.command import hessalign, in_this_process, words
from tests.cli.test_cmnist import records

TINY = ["probes", "--fast", "--steps", "3", "--subsample", "500"]


def papers(*arguments: str):
    return in_this_process(app, "python -m papers.colored_mnist", *arguments)


def study(*arguments: str):
    return papers("study", *TINY, *arguments)


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
    plain = ["cmnist", *TINY[1:], "--methods", "diagonal", "--out", str(tmp_path)]
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
        (["probe"], "'probe' is not known; allowed are variants, steps, probes, alpha"),
        (["probes", "--subsample", "99"], "must be a whole number of at least 100, got 99"),
        (["probes", "--split", "half"], "'half' is not one of"),
        (["probes", "--device", "abacus"], "'abacus' cannot be used here"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = papers("study", *arguments, "--out", str(tmp_path / "new"))
    assert result.returncode == 2
    assert message in words(result.stderr)
    assert not (tmp_path / "new").exists()


def test_the_wheels_command_says_where_the_study_went(tmp_path: Path) -> None:
    result = hessalign("cmnist-study", *TINY, "--out", str(tmp_path / "new"), "--help")
    assert result.returncode == 2
    where = "run python -m papers.colored_mnist study, with the same arguments, in a checkout"
    assert where in words(result.stderr)
    assert not (tmp_path / "new").exists()
    assert "cmnist-study" not in hessalign("--help").stdout


def test_both_gradients_in_steps_of_either(tmp_path: Path) -> None:
    few = ["steps", "--fast", "--steps", "3", "--subsample", "100", "--probes", "2"]
    result = papers("study", *few, "--out", str(tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    variants = ["expected", "sampled", "expected-sampled-steps", "sampled-expected-steps"]
    assert sorted(row["hutchinson"] for row in rows) == sorted(variants)
    assert {row["probes"] for row in rows} == {2}
    # The package does not run the mixed ones, but it reads them.
    table = hessalign("cmnist", *few[1:], "--methods", "hutchinson", "--out", str(tmp_path), "--json")
    assert "1 of 1 restart is done already" in words(table.stderr)
    assert len(json.loads(table.stdout)["rows"]) == 4
    refused = hessalign("cmnist", "--hutchinson", "sampled-expected-steps", "--out", str(tmp_path))
    assert refused.returncode == 2
    assert "is not one of 'expected', 'sampled'" in words(refused.stderr)


def test_the_announced_commands_of_the_fresh_seeds_stay_valid() -> None:
    """The design was written down before any of them was run."""
    text = (ROOT / "results" / "fresh_seeds" / "README.md").read_text(encoding="utf-8")
    (start,) = re.findall(r"`hessalign cmnist (.*?) \.\.\.`", text)
    ends = re.findall(r"^\| .* \| [78] \| `(.*)` \|$", text, re.MULTILINE)
    assert len(ends) == 4
    command = typer.main.get_command(hessalign_app).get_command(None, "cmnist")
    assert command is not None
    for end in ends:
        given = command.make_context("cmnist", shlex.split(f"{start} {end}")).params
        assert (given["seed"], given["restarts"]) == (100, 5)
        assert {*given["methods"].split(",")} <= {*METHODS}


def test_the_package_does_without_the_study() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"] == {"packages": ["src/hessalign"]}
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) papers\b", path.read_text(encoding="utf-8"), re.MULTILINE), (
            path
        )


def test_commands_of_the_page_parse() -> None:
    text = (DOCS / RECORDS).read_text(encoding="utf-8")
    lines = re.findall(r"python -m papers\.colored_mnist (.*?)[;`\n]", text)
    lines = [line.replace("$study", "probes").replace("$k", "2") for line in lines]
    assert {shlex.split(line)[0] for line in lines} == {"study", "page"}
    group = typer.main.get_command(app)
    for line in lines:
        name, *given = shlex.split(line)
        command = group.get_command(None, name)
        assert command is not None
        command.make_context(name, given)
