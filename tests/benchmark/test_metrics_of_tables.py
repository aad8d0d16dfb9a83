"""Tables of other metrics than accuracy, and selection by the worst group."""

import csv
import io
import json
from pathlib import Path

import polars as pl
import pytest

from hessalign.benchmark import read_sweep, select
from hessalign.benchmark.report import make_report
from hessalign.runs.records import MEASURED
from hessalign.training import Machine, train
from tests.benchmark.run_folders import write_domainbed_run, write_own_run
from tests.cli.command import hessalign, words
from tests.training.tiny_features import NAMES, feature_spec, tiny_features

STEPS = (0, 10, 20)
ACCURACIES = {0: [(0.5, 0.5), (0.5, 0.6), (0.5, 0.6)], 10: [(0.6, 0.5), (0.5, 0.7), (0.5, 0.9)],
              20: [(0.7, 0.5), (0.5, 0.8), (0.5, 0.7)]}  # fmt: skip
WORST = {0: [(0.11, 0.0), (0.2, 0.5), (0.2, 0.4)], 10: [(0.12, 0.9), (0.2, 0.1), (0.2, 0.9)],
         20: [(0.13, 0.9), (0.2, 0.3), (0.2, 0.6)]}  # fmt: skip
LOSSES = {0: (0.9, 0.2), 10: (0.8, 0.4), 20: (0.7, 0.6)}


def metrics(shift: float = 0.0) -> dict:
    """By step; the target, domain 0, has known values."""
    return {
        step: {"worst_group_accuracy": WORST[step], "log_loss": [(LOSSES[step][0] + shift, 1.0)] * 3}
        for step in STEPS
    }


def cell(report, algorithm: str, kind: str = "targets"):
    (table,) = (table for table in report.tables if table.kind == kind)
    return next(row.cells[0] for row in table.rows if row.algorithm == algorithm)


@pytest.mark.parametrize(("rule", "step"), [("source-validation", 10), ("oracle", 20), ("worst-group", 0)])
def test_each_rule_chooses_as_ever_and_the_metric_is_what_is_reported(
    tmp_path: Path, rule: str, step: int
) -> None:
    write_own_run(tmp_path, ACCURACIES, metrics=metrics())
    assert select(read_sweep(tmp_path).accuracies, rule)["step"].to_list() == [step]
    for metric, value in (
        ("accuracy", ACCURACIES[step][0][0]),
        ("worst-group-accuracy", WORST[step][0][0]),
        ("log_loss", LOSSES[step][0]),
    ):
        records = read_sweep(tmp_path, metric=metric)
        chosen = records.choices(rule)
        assert (chosen["step"].to_list(), chosen["test"].to_list()) == ([step], [value])
        assert cell(make_report(records, [rule]), "erm").mean == pytest.approx(100 * value)


def test_the_worst_group_rule_needs_every_source_domain(tmp_path: Path) -> None:
    """A draw with a source domain whose worst group is unknown comes last."""
    unknown = metrics()
    for step in STEPS:
        unknown[step]["worst_group_accuracy"] = [*WORST[step][:2], (0.2, None)]
    write_own_run(tmp_path, ACCURACIES, metrics=metrics(), hparams_seed=0)
    write_own_run(tmp_path, ACCURACIES, metrics=unknown, hparams_seed=1)
    chosen = select(read_sweep(tmp_path).accuracies, "worst-group")
    assert chosen["hparams_seed"].to_list() == [0]
    assert chosen["validation"].to_list() == [0.4]
    with pytest.raises(ValueError, match="accuracies: the rule 'worst-group' needs the column worst_outside"):
        select(read_sweep(tmp_path).accuracies.drop("worst_outside"), "worst-group")


def test_of_a_loss_the_smallest_is_the_best(tmp_path: Path) -> None:
    for algorithm, shift in (("erm", 0.1), ("hgp", 0.0), ("coral", 0.2)):
        write_own_run(tmp_path, ACCURACIES, metrics=metrics(shift), algorithm=algorithm)
    report = make_report(read_sweep(tmp_path, metric="log-loss"), ["oracle"], baseline="erm")
    ranks = {name: cell(report, name).rank for name in ("erm", "hgp", "coral")}
    assert ranks == {"hgp": "best", "erm": "second", "coral": None}
    assert cell(report, "hgp", "differences").mean == pytest.approx(-10)
    table, *_, differences = report.tables
    assert table.title == "toy, log-loss, oracle (test-domain validation) selection"
    assert table.explanations[0].startswith(
        "Log-loss on the target domain in hundredths of a nat, smaller is better; mean ± standard error"
    )
    assert differences.explanations[0].startswith("Hundredths of a nat, mean ±")
    assert {table.metric for table in report.tables} == {"log_loss"}


@pytest.mark.parametrize("output", ["json", "csv", "html", "markdown", "latex", "rich"])
def test_every_format_has_the_metric(tmp_path: Path, output: str) -> None:
    for algorithm in ("erm", "hgp"):
        write_own_run(tmp_path, ACCURACIES, metrics=metrics(), algorithm=algorithm)
    arguments = ["--metric", "worst-group-accuracy", "--baseline", "erm", "--select", "worst-group"]
    more = [] if output == "csv" else ["--line"]
    best = tmp_path / "best.json"
    done = hessalign(
        "collect", tmp_path, *arguments, *more, "--format", output, "--export-best", best,
        "--plot", tmp_path / "p.svg",
    )  # fmt: skip
    code, text = done.returncode, done.stdout
    assert code == 0
    if output == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert {row["metric"] for row in rows} == {"worst_group_accuracy"}
        assert {row["rule"] for row in rows} == {"worst-group"}
    elif output == "json":
        assert {table["metric"] for table in json.loads(text)["tables"]} == {"worst_group_accuracy"}
    else:
        assert "orst-group accuracy on the target domain in percent, larger is better" in " ".join(
            text.split()
        )
    assert "11.0" in text
    (run, _) = json.loads(best.read_text())["runs"]
    assert (run["metric"], run["test"], run["validation"]) == ("worst_group_accuracy", 11.0, 40.0)


def test_runs_that_lack_the_metric_are_named(tmp_path: Path) -> None:
    old = write_own_run(tmp_path, ACCURACIES, seed=3)
    theirs = write_domainbed_run(tmp_path / "theirs", {20: [(0.5, 0.5)] * 3})
    write_own_run(tmp_path, ACCURACIES, metrics=metrics(), hparams_seed=1)
    for arguments, who in (
        (["--metric", "log-loss"], "metric: the table needs log_loss"),
        (["--select", "worst-group"], "select: the rule worst-group needs worst_group_accuracy"),
    ):
        done = hessalign("collect", tmp_path, *arguments)
        code, text, error = done.returncode, done.stdout, done.stderr
        said = " ".join(error.split())
        assert (code, text) == (2, "")
        assert f"{who}, which is not in the records of 2 of 3 runs" in said
        assert old.name in "".join(error.split())
        assert "".join(str(theirs).split()) in "".join(error.split())
    assert hessalign("collect", tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "worst-group-acuracy"], "did you mean 'worst-group-accuracy'?"),
        (["--metric", "f1"], "metric: 'f1' is not known; allowed are accuracy, balanced-accuracy, macro-f1"),
        (["--metric", "log-loss", "--compare", "paper"], "compare: published figures are accuracies"),
    ],
)
def test_what_cannot_be_reported_is_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_own_run(tmp_path, ACCURACIES, metrics=metrics())
    done = hessalign("collect", tmp_path, *arguments)
    assert done.returncode == 2
    assert message in words(done.stderr)


def test_what_is_not_defined_has_no_figure_but_a_note(tmp_path: Path) -> None:
    run = write_own_run(tmp_path, ACCURACIES, metrics={s: {"auroc": [(None, 0.5)] * 3} for s in STEPS})
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    why = {"auroc": {"domain 0": {"in": "samples of one class alone"}}}
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps({**line, "undefined": why}) + "\n" for line in lines)
    )
    report = make_report(read_sweep(tmp_path, metric="auroc"), ["oracle"])
    assert report.tables == ()
    assert "auroc is not defined on domain 0 of toy: samples of one class alone." in report.notes


def test_tables_of_a_run_are_what_its_records_say(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    record = train(feature_spec(), dataset, tmp_path / "runs" / "a", Machine("cpu"))
    for metric in MEASURED:
        found = read_sweep(tmp_path, metric=metric).choices("oracle")["test"].item()
        assert found == record["metrics"][metric][NAMES[3]]["in"]
    worst = min(record["metrics"]["worst_group_accuracy"][name]["out"] for name in NAMES[:3])
    frame = read_sweep(tmp_path).accuracies.filter(pl.col("step") == record["step"], pl.col("domain") < 3)
    assert frame["worst_outside"].min() == worst
