"""The three rules: tables computed by hand, and a slow restatement of each rule on random sweeps."""

import math
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hessalign.benchmark.readers import read_sweep
from hessalign.benchmark.selection import RULES, Rule, select
from tests.benchmark.run_folders import domainbed_record, write_domainbed_records, write_domainbed_run

NAN = math.nan
X = 0.0
"""An accuracy that no rule may look at; each test sets it to what would be chosen if one did."""


def chosen(folder: Path, rule: Rule) -> dict[tuple, tuple]:
    """By algorithm, target and trial: hparams_seed, step, validation and test accuracy of the choice."""
    selected = select(read_sweep(folder, unfinished=True).accuracies, rule)
    keys = selected.select("algorithm", "target", "trial_seed").rows()
    values = selected.select("hparams_seed", "step", "validation", "test").rows()
    return dict(zip(keys, values, strict=True))


# --- source-validation -----------------------------------------------------------------------------------


def test_source_validation_by_hand(tmp_path: Path) -> None:
    """Target 0 of three domains: validation is the mean of the other domains' out, test is its in."""
    write_domainbed_run(
        tmp_path / "draw 0",
        {
            0: [(0.375, 1.0), (1.0, 0.25), (1.0, 0.5)],  # validation 0.375
            10: [(0.5, 1.0), (1.0, 0.75), (1.0, 0.25)],  # 0.5: the best of this draw
            20: [(0.625, 1.0), (1.0, 0.125), (1.0, 0.25)],  # 0.1875
        },
        hparams_seed=0,
    )
    write_domainbed_run(
        tmp_path / "draw 1",
        {0: [(1.0, 1.0), (1.0, 0.25), (1.0, 0.5)], 10: [(0.25, 0.0), (0.0, 0.5), (0.0, 0.75)]},
        hparams_seed=1,  # best validation 0.625 at step 10
    )
    pair = {0: [(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)]}
    write_domainbed_run(tmp_path / "a pair does not count", pair, hparams_seed=2, test_envs=[0, 1])
    assert chosen(tmp_path, "source-validation") == {("erm", 0, 0): (1, 10, 0.625, 0.25)}


def test_of_equal_checkpoints_the_first_is_taken(tmp_path: Path) -> None:
    evaluations = {
        0: [(0.1, 1.0), (1.0, 0.25), (1.0, 0.25)],
        10: [(0.2, 1.0), (1.0, 0.75), (1.0, 0.25)],
        20: [(0.3, 1.0), (1.0, 0.25), (1.0, 0.75)],
        30: [(0.4, 1.0), (1.0, 0.5), (1.0, 0.5)],
    }
    write_domainbed_run(tmp_path / "run", evaluations)
    assert chosen(tmp_path, "source-validation") == {("erm", 0, 0): (0, 10, 0.5, 0.2)}


@pytest.mark.parametrize("rule", ["source-validation", "oracle"])
def test_of_equal_draws_the_highest_seed_is_taken(tmp_path: Path, rule: Rule) -> None:
    for seed in (0, 2, 10, 1):  # 10 is the highest as a number, 2 as text
        evaluations = {0: [(seed / 16, 0.5), (1.0, 0.5), (1.0, 0.5)]}
        write_domainbed_run(tmp_path / str(seed), evaluations, hparams_seed=seed)
    assert chosen(tmp_path, rule) == {("erm", 0, 0): (10, 0, 0.5, 0.625)}


@pytest.mark.parametrize("rule", ["source-validation", "oracle"])
def test_what_is_not_a_number_comes_last(tmp_path: Path, rule: Rule) -> None:
    write_domainbed_run(tmp_path / "0", {0: [(0.25, 0.125), (1.0, 0.125), (1.0, 0.125)]}, hparams_seed=0)
    write_domainbed_run(tmp_path / "1", {0: [(1.0, NAN), (1.0, NAN), (1.0, 1.0)]}, hparams_seed=1)
    assert chosen(tmp_path, rule) == {("erm", 0, 0): (0, 0, 0.125, 0.25)}


def test_a_checkpoint_that_is_not_a_number_comes_last(tmp_path: Path) -> None:
    evaluations = {0: [(1.0, X), (X, NAN), (X, 1.0)], 10: [(0.25, X), (X, 0.125), (X, 0.125)]}
    write_domainbed_run(tmp_path / "run", evaluations)
    assert chosen(tmp_path, "source-validation") == {("erm", 0, 0): (0, 10, 0.125, 0.25)}


# --- leave-one-domain-out --------------------------------------------------------------------------------


def write_cross_validation(folder: Path, seed: int, single: dict, pair_1: dict, pair_2: dict) -> None:
    """Runs of one draw with targets 0, (0, 1) and (0, 2), from the accuracies that matter.

    Args:
        folder: Of the sweep.
        seed: The draw.
        single: By step, accuracy on domain 0 of the run that leaves out 0 alone.
        pair_1: By step, accuracy on domain 1 of the run that leaves out 0 and 1.
        pair_2: By step, accuracy on domain 2 of the run that leaves out 0 and 2.
    """
    full = (1.0, 1.0)
    singles = {step: [(value, 1.0), full, full] for step, value in single.items()}
    firsts = {step: [full, (value, 1.0), full] for step, value in pair_1.items()}
    seconds = {step: [full, full, (value, 1.0)] for step, value in pair_2.items()}
    write_domainbed_run(folder / f"{seed} single", singles, hparams_seed=seed, test_envs=[0])
    write_domainbed_run(folder / f"{seed} pair 1", firsts, hparams_seed=seed, test_envs=[0, 1])
    write_domainbed_run(folder / f"{seed} pair 2", seconds, hparams_seed=seed, test_envs=[2, 0])


def test_leave_one_domain_out_by_hand(tmp_path: Path) -> None:
    write_cross_validation(
        tmp_path,
        0,
        single={0: 0.1, 10: 0.2, 20: 0.3},
        pair_1={0: 0.25, 10: 0.75, 20: 0.5},
        pair_2={0: 0.25, 10: 0.5, 20: 0.75},  # means 0.25, 0.625, 0.625: the first of the equal ones
    )
    write_cross_validation(
        tmp_path, 1, single={0: 0.4, 10: 0.5}, pair_1={0: 0.5, 10: 0.25}, pair_2={0: 0.5, 10: 0.25}
    )
    assert chosen(tmp_path, "leave-one-domain-out")[("erm", 0, 0)] == (0, 10, 0.625, 0.2)


def test_a_step_with_a_missing_pair_is_dropped(tmp_path: Path) -> None:
    write_cross_validation(
        tmp_path,
        0,
        single={0: 0.1, 10: 0.2, 20: 0.3},
        pair_1={0: 0.25, 10: 1.0, 20: 0.5},
        pair_2={0: 0.25, 20: 0.5},  # without it step 10 would be the best
    )
    assert chosen(tmp_path, "leave-one-domain-out")[("erm", 0, 0)] == (0, 20, 0.5, 0.3)
    write_cross_validation(tmp_path, 1, single={0: 0.9}, pair_1={0: 1.0}, pair_2={10: 1.0})  # nothing is left
    assert chosen(tmp_path, "leave-one-domain-out")[("erm", 0, 0)] == (0, 20, 0.5, 0.3)


def test_without_pairs_nothing_is_chosen(tmp_path: Path) -> None:
    write_domainbed_run(tmp_path / "run", {0: [(1.0, 1.0)] * 3})
    assert chosen(tmp_path, "leave-one-domain-out") == {}


def test_a_step_with_two_records_of_the_single_run_is_dropped(tmp_path: Path) -> None:
    write_cross_validation(
        tmp_path, 0, single={0: 0.1, 10: 0.2}, pair_1={0: 0.25, 10: 1.0}, pair_2={0: 0.25, 10: 1.0}
    )
    write_domainbed_run(tmp_path / "again", {10: [(0.9, 1.0)] * 3})
    assert chosen(tmp_path, "leave-one-domain-out")[("erm", 0, 0)] == (0, 0, 0.25, 0.1)


def test_a_record_that_domainbed_repeated_in_one_file_counts_as_two(tmp_path: Path) -> None:
    write_cross_validation(
        tmp_path, 0, single={0: 0.1, 10: 0.2}, pair_1={0: 0.25, 10: 1.0}, pair_2={0: 0.25, 10: 1.0}
    )
    file = tmp_path / "0 single" / "results.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines, lines[1]]))
    assert chosen(tmp_path, "leave-one-domain-out")[("erm", 0, 0)] == (0, 0, 0.25, 0.1)


# --- oracle ----------------------------------------------------------------------------------------------


def test_oracle_by_hand(tmp_path: Path) -> None:
    """The last step alone counts, however good an earlier one was."""
    write_domainbed_run(
        tmp_path / "0", {0: [(0.9, 1.0), (X, X), (X, X)], 20: [(0.4, 0.25), (1.0, 1.0), (1.0, 1.0)]}
    )
    write_domainbed_run(tmp_path / "1", {0: [(X, X)] * 3, 20: [(0.3, 0.5), (X, X), (X, X)]}, hparams_seed=1)
    assert chosen(tmp_path, "oracle") == {("erm", 0, 0): (1, 20, 0.5, 0.3)}


# --- all rules against a restatement ---------------------------------------------------------------------


def restated(records: list[dict], rule: Rule) -> dict[tuple, tuple]:
    """The rules once more, as slowly and plainly as can be."""
    choices = {}
    cells = {
        (r["args"]["algorithm"], e, r["args"]["trial_seed"]) for r in records for e in r["args"]["test_envs"]
    }
    for algorithm, target, trial in cells:
        draws = []
        for seed in sorted({r["args"]["hparams_seed"] for r in records}):
            about = {"algorithm": algorithm, "trial_seed": trial, "hparams_seed": seed}
            own = [r for r in records if all(r["args"][name] == value for name, value in about.items())]
            point = CHECKPOINT[rule]([r for r in own if target in r["args"]["test_envs"]], target)
            if point is not None:
                draws.append((seed, *point))
        if draws:
            best = max(draws, key=lambda draw: (finite(draw[2]), draw[0]))
            choices[(algorithm.lower(), target, trial)] = best
    return choices


def finite(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def domains(record: dict) -> range:
    return range(sum(name.endswith("_out_acc") for name in record))


def singles(records: list[dict]) -> list[dict]:
    return sorted((r for r in records if len(r["args"]["test_envs"]) == 1), key=lambda r: r["step"])


def restated_source_validation(records: list[dict], target: int) -> tuple | None:
    points = [
        (
            r["step"],
            float(np.mean([r[f"env{i}_out_acc"] for i in domains(r) if i != target])),
            r[f"env{target}_in_acc"],
        )
        for r in singles(records)
    ]
    return max(points, key=lambda point: finite(point[1]), default=None)


def restated_leave_one_out(records: list[dict], target: int) -> tuple | None:
    points = []
    for step in sorted({r["step"] for r in records}):
        single = [r for r in singles(records) if r["step"] == step]
        if len(single) != 1:
            continue
        left_out = {}
        for r in records:
            if r["step"] == step and len(r["args"]["test_envs"]) == 2:
                (other,) = set(r["args"]["test_envs"]) - {target}
                left_out[other] = r[f"env{other}_in_acc"]
        others = [i for i in domains(single[0]) if i != target]
        if set(left_out) == set(others):
            validation = float(np.sum([left_out[i] for i in others]) / len(others))
            points.append((step, validation, single[0][f"env{target}_in_acc"]))
    return max(points, key=lambda point: finite(point[1]), default=None)


def restated_oracle(records: list[dict], target: int) -> tuple | None:
    last = singles(records)[-1:]
    return (
        (last[0]["step"], last[0][f"env{target}_out_acc"], last[0][f"env{target}_in_acc"]) if last else None
    )


CHECKPOINT = {
    "source-validation": restated_source_validation,
    "leave-one-domain-out": restated_leave_one_out,
    "oracle": restated_oracle,
}


@st.composite
def sweeps(draw: st.DrawFn) -> list[list[dict]]:
    """Records of runs of one sweep: few different accuracies, so that many are equal; gaps and repeats."""
    count = draw(st.integers(3, 6))
    coarse = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0, NAN])
    accuracy = st.one_of(coarse, st.floats(0, 1))
    target_sets = [[e] for e in range(count)] + [list(pair) for pair in combinations(range(count), 2)]
    of_interest = [targets for targets in target_sets if 0 in targets] + draw(
        st.lists(st.sampled_from(target_sets), max_size=4)
    )
    runs = []
    for algorithm in draw(st.sampled_from([["ERM"], ["ERM", "IRM"]])):
        for trial in range(draw(st.integers(1, 2))):
            for seed in range(draw(st.integers(1, 3))):
                for targets in of_interest:
                    steps = draw(st.sets(st.sampled_from([0, 10, 20]), max_size=3))
                    args = {
                        "algorithm": algorithm,
                        "trial_seed": trial,
                        "hparams_seed": seed,
                        "test_envs": draw(st.permutations(targets)),
                    }
                    pairs = st.lists(st.tuples(accuracy, accuracy), min_size=count, max_size=count)
                    runs.append([domainbed_record(step, draw(pairs), **args) for step in sorted(steps)])
    return runs


@settings(deadline=None, max_examples=40)
@given(sweeps())
def test_rules_agree_with_their_restatement(runs: list[list[dict]]) -> None:
    records = [record for run in runs for record in run]
    if not records:
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, run in enumerate(runs):
            write_domainbed_records(Path(folder) / f"{number:04}", run)
        for rule in RULES:
            ours, theirs = chosen(Path(folder), rule), restated(records, rule)
            assert ours.keys() == theirs.keys()
            for key, choice in ours.items():
                np.testing.assert_array_equal(choice, theirs[key], err_msg=f"{rule}, {key}")
