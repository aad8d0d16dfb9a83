"""Reading sweeps: every run folder, ours and DomainBed's, whole, torn, repeated, unfinished."""

import json
import math
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hessalign.benchmark.names import algorithm_label, sorted_algorithms
from hessalign.benchmark.readers import read_sweep
from tests.benchmark.run_folders import (
    domainbed_record,
    own_record,
    write_domainbed_records,
    write_domainbed_run,
    write_own_run,
)

TWO = {0: [(0.1, 0.2), (0.3, 0.4)], 10: [(0.5, 0.6), (0.7, 0.8)]}

MISSING = object()


def rows(frame: pl.DataFrame, *columns: str) -> set[tuple]:
    return set(frame.select(columns).rows())


def test_one_row_for_each_domain_of_each_record(tmp_path: Path) -> None:
    write_own_run(tmp_path, TWO, algorithm="hgp", target_domains=(1,), trial_seed=2, hparams_seed=3)
    records = read_sweep(tmp_path)
    assert rows(records.accuracies, "step", "domain", "inside", "outside") == {
        (0, 0, 0.1, 0.2),
        (0, 1, 0.3, 0.4),
        (10, 0, 0.5, 0.6),
        (10, 1, 0.7, 0.8),
    }
    keys = ("dataset", "setting", "algorithm", "trial_seed", "hparams_seed")
    assert rows(records.accuracies, *keys) == {("toy", "", "hgp", 2, 3)}
    assert records.accuracies["targets"].to_list() == [[1]] * 4
    assert records.runs[0].domain_names == ("domain 0", "domain 1")
    assert records.notes == ()


def test_domainbed_runs_read_alike_under_our_names(tmp_path: Path) -> None:
    four = {0: [(0.1, 0.2), (0.3, 0.4), (0.5, 0.6), (0.7, 0.8)]}
    names = {"dataset": "PACS", "algorithm": "GroupDRO", "test_envs": [0, 2], "hparams_seed": 4}
    write_domainbed_run(tmp_path / "a", four, **names)
    write_domainbed_run(tmp_path / "b", TWO, dataset="Mine", algorithm="Mine")
    records = read_sweep(tmp_path)
    assert [(run.dataset, run.algorithm) for run in records.runs] == [("pacs", "group_dro"), ("Mine", "Mine")]
    assert records.runs[0].domain_names == ("art_painting", "cartoon", "photo", "sketch")
    assert records.runs[1].domain_names == ("env0", "env1")
    pacs = records.accuracies.filter(dataset="pacs")
    assert rows(pacs, "domain", "inside", "outside") == {
        (0, 0.1, 0.2),
        (1, 0.3, 0.4),
        (2, 0.5, 0.6),
        (3, 0.7, 0.8),
    }
    assert pacs["targets"].to_list() == [[0, 2]] * 4


@pytest.mark.parametrize("below", ["", "runs", ".."])
def test_any_folder_above_the_runs_will_do(tmp_path: Path, below: str) -> None:
    out = tmp_path / "sweep"
    folder = write_own_run(out, TWO)
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "spec.json").write_text("{}")  # nothing below a run is a run
    assert len(read_sweep(out / below).runs) == 1
    assert len(read_sweep(folder).runs) == 1


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    folder = write_own_run(tmp_path, TWO)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(own_record(20, [(1, 1), (1, 1)])[:-10])
    records = read_sweep(tmp_path)
    assert records.accuracies["step"].max() == 10
    assert records.notes == ("1 records end in the middle of a line and are left out.",)


def test_of_repeated_records_the_last_counts(tmp_path: Path) -> None:
    folder = write_own_run(tmp_path, TWO)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(own_record(10, [(0.9, 0.9), (0.9, 0.9)]))
    records = read_sweep(tmp_path)
    assert records.accuracies.filter(step=10)["inside"].to_list() == [0.9, 0.9]
    assert records.notes == ("Resumed runs repeated 1 records; the last of each step counts.",)


def test_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    folder = write_own_run(tmp_path, {0: [(math.nan, 0.5), (0.25, math.nan)]})
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(
        text.replace('"loss": 0.7', '"loss": Infinity, "a": NaN, "b": -Infinity')
    )
    records = read_sweep(tmp_path).accuracies.sort("domain")
    assert records["inside"].is_nan().to_list() == [True, False]
    assert records["outside"].is_nan().to_list() == [False, True]


def test_unfinished_and_failed_runs_are_counted_and_left_out(tmp_path: Path) -> None:
    write_own_run(tmp_path, TWO)
    failed = write_own_run(tmp_path, TWO, done=False, seed=1)
    (failed / "error.json").write_text(json.dumps({"error": "out of memory"}))
    started = write_own_run(tmp_path, {}, done=False, seed=2)
    (started / "metrics.jsonl").unlink()
    records = read_sweep(tmp_path)
    assert len(records.runs) == 1
    assert records.notes == (
        "2 of 3 runs are not finished and are left out.",
        f"1 of 3 runs have failed; see {failed / 'error.json'}.",
    )
    with_all = read_sweep(tmp_path, unfinished=True)
    assert len(with_all.runs) == 2
    assert with_all.notes[0] == "2 of 3 runs are not finished and count as far as they have come."


def test_different_settings_are_told_apart(tmp_path: Path) -> None:
    write_own_run(tmp_path, TWO, steps=21)
    write_own_run(tmp_path, TWO, steps=41)
    write_own_run(tmp_path, TWO, steps=41, backbone={"name": "resnet18"})
    write_own_run(tmp_path, TWO, steps=99, dataset="other")
    records = read_sweep(tmp_path)
    assert {(run.dataset, name) for run, name in zip(records.runs, records.settings, strict=True)} == {
        ("toy", "backbone.name mnist_cnn, steps 21"),
        ("toy", "backbone.name mnist_cnn, steps 41"),
        ("toy", "backbone.name resnet18, steps 41"),
        ("other", "backbone.name mnist_cnn, steps 99"),
    }
    (note,) = records.notes
    assert "differ in backbone.name, steps" in note


def test_variants_of_an_algorithm_share_no_row(tmp_path: Path) -> None:
    """Words among the hyper-parameters are told where one algorithm's runs differ in them, and only there."""
    write_own_run(tmp_path, TWO)
    write_own_run(tmp_path, TWO, algorithm="mtl", hparams={"variant": "paper"})
    for variant in ("expected", "domainbed"):
        write_own_run(tmp_path, TWO, algorithm="hutchinson", hparams={"lr": 0.1, "variant": variant})
    records = read_sweep(tmp_path)
    variants = ["hutchinson (variant domainbed)", "hutchinson (variant expected)"]
    assert records.accuracies["algorithm"].unique().sort().to_list() == ["erm", *variants, "mtl"]
    assert set(records.settings) == {""}
    assert records.notes == ("Runs of hutchinson have several variants; each has a row.",)
    assert [algorithm_label(name) for name in sorted_algorithms(["mtl", *variants, "zebra", "erm"])] == [
        "ERM",
        "MTL",
        "Hutchinson (variant domainbed)",
        "Hutchinson (variant expected)",
        "zebra",
    ]


def test_what_a_search_draws_is_no_setting(tmp_path: Path) -> None:
    """Hyper-parameters, seeds, targets, and the backbone's dropout, which is a hyper-parameter too."""
    write_own_run(tmp_path, TWO)
    for draw, dropout in enumerate((0.0, 0.5), start=1):
        backbone = {"name": "mnist_cnn", "dropout": dropout}
        fields = {
            "hparams": {"lr": 0.1 * draw, "dropout": dropout},
            "hparams_seed": draw,
            "backbone": backbone,
        }
        write_own_run(tmp_path, TWO, **fields, seed=draw, trial_seed=draw, target_domains=(1,))
    assert set(read_sweep(tmp_path).settings) == {""}


def test_where_weights_lie_is_no_setting_but_what_they_are_is(tmp_path: Path) -> None:
    for seed, (path, digest) in enumerate((("a.pth", "1f"), ("b.pth", "1f"), ("b.pth", "2e"))):
        backbone = {"name": "resnet18", "weights": path, "weights_sha256": digest}
        write_own_run(tmp_path, TWO, backbone=backbone, trial_seed=seed)
    assert set(read_sweep(tmp_path).settings) == {"backbone.weights_sha256 1f", "backbone.weights_sha256 2e"}


def test_the_two_programs_never_share_a_table(tmp_path: Path) -> None:
    write_own_run(tmp_path, TWO, dataset="vlcs")
    write_domainbed_run(tmp_path / "theirs", TWO, dataset="VLCS")
    assert set(read_sweep(tmp_path).settings) == {"program hessalign", "program DomainBed"}


def test_runs_that_nothing_tells_apart_are_reported(tmp_path: Path) -> None:
    write_own_run(tmp_path, TWO, hparams={"lr": 0.1})
    write_own_run(tmp_path, TWO, hparams={"lr": 0.2})
    assert "2 runs share dataset, algorithm" in read_sweep(tmp_path).notes[0]


A_AND_B = '{"step": 1, "accuracies": {"a": {"in": %s, "out": 0.5}, "b": %s}}'
NO_RECORDS = {
    '{"step": 0, garbage}': "it is not JSON",
    "": "it is not JSON",
    "3": "it must be an object, got int",
    '{"loss": 1.0}': "step must be a whole number of at least 0, got None",
    '{"step": true}': "step must be a whole number of at least 0, got True",
    '{"step": -1, "accuracies": {"a": {"in": 0.5, "out": 0.5}}}': "step must be a whole number of at least 0",
    '{"step": 1}': "accuracies must be those of a, b, as in line 1",
    '{"step": 1, "accuracies": 3}': "accuracies must be given by domain, got 3",
    '{"step": 1, "accuracies": {"a": {"in": 0.5, "out": 0.5}}}': "accuracies must be those of a, b",
    A_AND_B % (0.5, '{"in": 0.5}'): "accuracies of 'b' must be those of in and out",
    A_AND_B % (0.5, '{"in": 0.5, "out": 7}'): "accuracies of 'b', out, must be from 0 to 1, got 7",
    A_AND_B % ('"0.5"', '{"in": 0.5, "out": 1}'): "accuracies of 'a', in, must be from 0 to 1, got '0.5'",
}


@pytest.mark.parametrize("line", NO_RECORDS)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    """Nothing that a record lacks counts as an accuracy that was not measured."""
    folder = write_own_run(tmp_path, TWO, names=("a", "b"))
    records = folder / "metrics.jsonl"
    first, last = records.read_text().splitlines()
    records.write_text("\n".join([first, line, last]) + "\n")
    place = f"{records}, line 2, is not the record of an evaluation: "
    with pytest.raises(ValueError, match=re.escape(place) + f".*{re.escape(NO_RECORDS[line])}"):
        read_sweep(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"env1_in_acc": 1.5}, "accuracies of 'env1', in, must be from 0 to 1, got 1.5"),
        ({"env0_out_acc": "x"}, "accuracies of 'env0', out, must be from 0 to 1, got 'x'"),
        ({"env0_in_acc": MISSING}, "accuracies of 'env0' must be those of in and out, got {'out': 0.6}"),
        ({"step": MISSING}, "step must be a whole number of at least 0, got None"),
    ],
)
def test_a_line_of_domainbed_that_is_no_record_is_named(tmp_path: Path, change: dict, problem: str) -> None:
    first, last = (domainbed_record(step, domains) for step, domains in TWO.items())
    changed = {name: value for name, value in (last | change).items() if value is not MISSING}
    folder = write_domainbed_records(tmp_path / "run", [first, changed])
    place = f"{folder / 'results.jsonl'}, line 2, is not the record of an evaluation: {problem}"
    with pytest.raises(ValueError, match=re.escape(place)):
        read_sweep(tmp_path)


def test_a_spec_that_is_none_is_named(tmp_path: Path) -> None:
    folder = write_own_run(tmp_path, TWO)
    (folder / "spec.json").write_text('{"dataset": "toy"}')
    with pytest.raises(ValueError, match=rf"{folder.name}/spec.json cannot be read: algorithm"):
        read_sweep(tmp_path)
    (folder / "spec.json").write_text("{")
    with pytest.raises(ValueError, match=rf"{folder.name}/spec.json cannot be read"):
        read_sweep(tmp_path)


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run; a run is a folder with"):
        read_sweep(tmp_path)
    write_own_run(tmp_path, TWO, done=False)
    with pytest.raises(ValueError, match=r"no finished run yet\. 1 of 1 runs are not finished"):
        read_sweep(tmp_path)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_nothing_is_lost_or_mixed_up(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any number of runs with any domains: each accuracy arrives once, with its run."""
    folder = tmp_path_factory.mktemp("sweep")
    share = st.floats(0, 1)
    written = set()
    for seed in range(data.draw(st.integers(1, 4))):
        domains = data.draw(st.integers(1, 4))
        pairs = st.lists(st.tuples(share, share), min_size=domains, max_size=domains)
        evaluations = data.draw(st.dictionaries(st.integers(0, 5000), pairs, min_size=1, max_size=4))
        dataset = data.draw(st.sampled_from(["a", "b"])) + str(domains)
        write_own_run(folder, evaluations, dataset=dataset, trial_seed=seed)
        for step, accuracies in evaluations.items():
            for domain, (inside, outside) in enumerate(accuracies):
                written.add((dataset, seed, step, domain, inside, outside))
    read = read_sweep(folder).accuracies
    assert rows(read, "dataset", "trial_seed", "step", "domain", "inside", "outside") == written
    assert read.height == len(written)


@pytest.mark.parametrize("target", [2, -1])
def test_a_target_that_is_no_domain_of_the_records_is_refused(tmp_path: Path, target: int) -> None:
    folder = write_own_run(tmp_path / "own", TWO, target_domains=(0, target))
    problem = f"target domain {target} is none of the 2 domains of its records"
    with pytest.raises(ValueError, match=re.escape(f"{folder}: {problem}")):
        read_sweep(tmp_path / "own")
    folder = write_domainbed_run(tmp_path / "theirs", TWO, test_envs=[target])
    with pytest.raises(ValueError, match=re.escape(f"{folder}: {problem}")):
        read_sweep(tmp_path / "theirs")


def test_records_without_accuracies_are_refused(tmp_path: Path) -> None:
    folder = write_own_run(tmp_path / "own", TWO)
    (folder / "metrics.jsonl").write_text('{"step": 0, "loss": 0.7}\n')
    for sweep, name in (("own", folder / "metrics.jsonl"), ("theirs", "results.jsonl")):
        if sweep == "theirs":
            write_domainbed_run(tmp_path / sweep, {0: []})
        problem = f"{name}, line 1, is not the record of an evaluation: it has no accuracies"
        with pytest.raises(ValueError, match=re.escape(problem)):
            read_sweep(tmp_path / sweep)
