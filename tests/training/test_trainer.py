"""A whole run, interrupted and not."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hessalign.algorithms import algorithm_names, get_algorithm
from hessalign.benchmark import read_sweep
from hessalign.exceptions import DivergedError, HessalignWarning
from hessalign.runs import check_spec
from hessalign.runs.seals import company_of
from hessalign.training import (
    Machine,
    Progress,
    check_unasked,
    is_finished,
    latest_checkpoint,
    load_trained,
    read_records,
    train,
    train_together,
)
from tests.algorithms.images import WAITS
from tests.processes import run_in_parts, run_whole, start
from tests.training.tiny_domains import NAMES, TinyDomains, tiny_spec
from tests.training.tiny_features import feature_spec, flat, tiny_features

CPU = Machine(accelerator="cpu")


def results(folder: Path) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """Records without their timings, and the final weights."""
    records = [{k: v for k, v in record.items() if k != "step_seconds"} for record in read_records(folder)]
    checkpoint = latest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    return records, load_file(checkpoint / "model.safetensors")


def assert_same(first: Path, second: Path) -> None:
    (records, weights), (others, other_weights) = results(first), results(second)
    assert records == others
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_a_run_learns_and_records(tmp_path: Path) -> None:
    seen: list[Progress] = []
    record = train(tiny_spec(steps=30), TinyDomains(), tmp_path, CPU, seen.append)
    assert [progress.step for progress in seen] == list(range(30))
    assert {"loss", "risk", "penalty"} <= seen[0].metrics.keys()
    steps = [entry["step"] for entry in read_records(tmp_path)]
    assert steps == [0, 4, 8, 12, 16, 20, 24, 28, 29]
    assert read_records(tmp_path)[-1] == record
    assert list(record["accuracies"]) == list(NAMES)
    assert record["accuracies"]["dark"]["in"] >= 0.95
    assert json.loads((tmp_path / "spec.json").read_text())["algorithm"] == "hgp"
    assert train(tiny_spec(steps=30), TinyDomains(), tmp_path, CPU) == record


def test_equal_specs_give_equal_bits_whatever_the_workers(tmp_path: Path) -> None:
    train(tiny_spec(), TinyDomains(), tmp_path / "a", CPU)
    train(tiny_spec(), TinyDomains(), tmp_path / "b", Machine(accelerator="cpu", workers=2))
    train(tiny_spec(seed=1), TinyDomains(), tmp_path / "c", CPU)
    assert_same(tmp_path / "a", tmp_path / "b")
    assert results(tmp_path / "a")[0] != results(tmp_path / "c")[0]


class StopError(Exception):
    """Ends a run from its report."""


def small_hparams(algorithm: str) -> dict:
    """Defaults for batches of four, with waits that a short run sits out."""
    hparams = get_algorithm(algorithm).hparams_class.with_defaults("small", {"batch_size": 4}).model_dump()
    if "anneal_steps" in hparams:
        hparams["anneal_steps"] = 3
    return hparams | WAITS.get(algorithm, {})


TELLING = ("dann", "fishr", "group_dro", "hutchinson")
"""Two optimisers, a reset of Adam and moving averages, weights of domains, drawn probes."""
EVERY_ALGORITHM = pytest.mark.parametrize(
    "algorithm",
    [pytest.param(name, marks=() if name in TELLING else pytest.mark.slow) for name in algorithm_names()],
)


@EVERY_ALGORITHM
def test_every_algorithm_resumes_to_the_same_bits(tmp_path: Path, algorithm: str) -> None:
    hparams = small_hparams(algorithm)
    if algorithm == "cma":  # its published weights swamp the loss of so small a network, and say so
        hparams |= {"alpha": 1.0, "beta": 1.0}
    if algorithm == "iga":
        hparams["penalty_weight"] = 0.1
    if algorithm == "ib_irm":
        hparams |= {"irm_weight": 1.0, "ib_weight": 1.0}
    spec = tiny_spec(algorithm=algorithm, hparams=hparams, steps=6, evaluate_every=2)
    train(spec, TinyDomains(), tmp_path / "whole", CPU)

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise StopError

    with pytest.raises(StopError):
        train(spec, TinyDomains(), tmp_path / "parts", CPU, stop)
    train(spec, TinyDomains(), tmp_path / "parts", CPU)
    assert_same(tmp_path / "whole", tmp_path / "parts")


@EVERY_ALGORITHM
@pytest.mark.filterwarnings("ignore:.* never sets in:hessalign.exceptions.NoEffectWarning")
@pytest.mark.filterwarnings("ignore::hessalign.exceptions.UntrustworthyWarning")
def test_a_lengthened_run_is_one_long_run(tmp_path: Path, algorithm: str) -> None:
    """Its former last steps are one between two regular evaluations, and a regular one."""
    hparams = small_hparams(algorithm)
    changes = {"discriminator_steps": 2, "probes": 3, "anneal_steps": 6}
    hparams |= {name: value for name, value in changes.items() if name in hparams}
    if algorithm == "hutchinson":
        hparams["variant"] = "domainbed"  # which draws
    spec = tiny_spec(algorithm=algorithm, hparams=hparams, steps=9, evaluate_every=3)
    train(spec, TinyDomains(), tmp_path / "whole", CPU)
    for steps in (2, 4, 9):
        train(spec.with_steps(steps), TinyDomains(), tmp_path / "parts", CPU)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    ours, theirs = (read_records(tmp_path / name) for name in ("parts", "whole"))
    assert [list(record) for record in ours] == [list(record) for record in theirs]


def test_a_run_that_is_being_lengthened_is_in_order_at_every_moment(tmp_path: Path) -> None:
    spec, run = feature_spec("hgp", steps=8, evaluate_every=3), tmp_path / "run"
    dataset = tiny_features(tmp_path / "f.safetensors")
    train(spec, dataset, tmp_path / "whole", CPU)
    train(spec.with_steps(5), dataset, run, CPU)

    def stop(progress: Progress) -> None:
        assert progress.step == 5
        raise StopError

    for _ in range(2):
        with pytest.raises(StopError):
            train(spec, dataset, run, CPU, stop)
        assert not is_finished(run)
        check_spec(run)
        assert [record["step"] for record in read_records(run)] == [0, 3]
        assert load_trained(run)[1].step == 5
        assert run in [each.folder for each in read_sweep(tmp_path, True).runs]
    with pytest.raises(ValueError, match="has 8 steps; it can be lengthened, but not shortened to 5"):
        train(spec.with_steps(5), dataset, run, CPU)
    train(spec, dataset, run, CPU)
    assert_same(tmp_path / "whole", run)


def test_what_cannot_be_lengthened_is_refused_and_unharmed(tmp_path: Path) -> None:
    dataset, spec = tiny_features(tmp_path / "f.safetensors"), feature_spec("hgp", steps=4)
    train(spec, dataset, tmp_path / "run", CPU)
    train(spec, dataset, tmp_path / "bare", CPU, keep_checkpoint=False)
    diverging = feature_spec("irm", {"lr": 1e37, "anneal_steps": 1}, steps=6, evaluate_every=2)
    with pytest.raises(DivergedError):
        train(diverging, dataset, tmp_path / "diverged", CPU)

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before = content()
    for folder, other, problem in (
        ("run", spec.with_steps(3), "it can be lengthened, but not shortened to 3"),
        ("run", spec.with_steps(5).model_copy(update={"seed": 1}), "holds another run"),
        ("run", spec.with_steps(5).model_copy(update={"evaluate_every": 2}), "holds another run"),
        (
            "bare",
            spec.with_steps(5),
            "kept no checkpoint to go on from; do the longer run in a folder of its",
        ),
        ("diverged", diverging.with_steps(9), "diverged: the loss was .* at step 2"),
    ):
        with pytest.raises((ValueError, DivergedError), match=problem):
            train(other, dataset, tmp_path / folder, CPU)
    with pytest.raises(ValueError, match="has 4 steps, not 5; train lengthens it with --resume"):
        check_unasked(tmp_path / "run", spec.with_steps(5))
    with pytest.raises(ValueError, match="has 4 steps, not 5"):
        train_together([spec.with_steps(5)], dataset, [tmp_path / "run"], CPU)
    assert content() == before


def test_a_run_of_many_goes_on_alone_and_says_so(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    specs = [feature_spec("hgp", seed=seed, steps=5, evaluate_every=3) for seed in range(2)]
    exact = Machine("cpu", precision="64-true")
    train_together(specs, dataset, [tmp_path / f"{seed}" for seed in range(2)], exact)
    with pytest.warns(HessalignWarning, match="was trained together with 1 other and goes on alone"):
        train(specs[0].with_steps(8), dataset, tmp_path / "0", exact)
    train(specs[0].with_steps(8), dataset, tmp_path / "whole", exact)
    for ours, theirs in zip(results(tmp_path / "0")[0], results(tmp_path / "whole")[0], strict=True):
        assert ours.pop("accuracies") == theirs.pop("accuracies")
        assert flat(ours.pop("metrics")) == pytest.approx(flat(theirs.pop("metrics")), rel=1e-10)
        assert ours == pytest.approx(theirs, rel=1e-10)
    assert company_of(tmp_path / "0") == 2


def test_a_run_from_before_lengthening_lacks_only_means(tmp_path: Path) -> None:
    dataset, spec = tiny_features(tmp_path / "f.safetensors"), feature_spec("hgp", steps=8, evaluate_every=3)
    train(spec, dataset, tmp_path / "whole", CPU)
    train(spec.with_steps(5), dataset, tmp_path / "run", CPU)
    checkpoint = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    (checkpoint / "sums.safetensors").unlink()
    seal = json.loads((checkpoint / "seal.json").read_text())
    del seal["files"]["sums.safetensors"]
    (checkpoint / "seal.json").write_text(json.dumps(seal))
    with pytest.warns(HessalignWarning, match="the means in the next record are those since its last step"):
        train(spec, dataset, tmp_path / "run", CPU)
    (ours, weights), (theirs, others) = results(tmp_path / "run"), results(tmp_path / "whole")
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert [record["accuracies"] for record in ours] == [record["accuracies"] for record in theirs]
    assert [one == other for one, other in zip(ours, theirs, strict=True)] == [True, True, False, True]


def long_run(folder: Path, algorithm: str, steps: int) -> None:
    hparams = tiny_spec().hparams if algorithm == "hgp" else small_hparams(algorithm)
    spec = tiny_spec(algorithm=algorithm, hparams=hparams, steps=steps, evaluate_every=2)
    train(spec, TinyDomains(), folder, CPU)


KEEPS_MORE = ("eqrm", "rdm", "trm", "erm_plus_plus")
"""Beside weights and moments a learning rate that has changed, heads of the domains, or a mean network."""


@pytest.mark.parametrize(
    "algorithm", ["hgp", *(pytest.param(name, marks=pytest.mark.slow) for name in KEEPS_MORE)]
)
def test_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path, algorithm: str) -> None:
    kills = 2 if algorithm in KEEPS_MORE else 10 if os.environ.get("CI") else 4
    steps = 12 * kills + 10  # six records for each kill, which takes two or so
    whole, parts = (
        partial(start, long_run, tmp_path / name, algorithm, steps) for name in ("whole", "parts")
    )
    pace = run_whole(whole, lambda: len(read_records(tmp_path / "whole")))
    run_in_parts(parts, lambda: len(read_records(tmp_path / "parts")), kills, pace)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_another_run_in_the_folder_is_refused_and_unharmed(tmp_path: Path) -> None:
    train(tiny_spec(), TinyDomains(), tmp_path, CPU)
    before = results(tmp_path)
    with pytest.raises(ValueError, match=r"out: .* holds another run"):
        train(tiny_spec(seed=1), TinyDomains(), tmp_path, CPU)
    assert results(tmp_path)[0] == before[0]


@pytest.mark.parametrize("targets", [(3,), (-1,), (0, 0), (0, 1, 2)])
def test_bad_targets_are_named(tmp_path: Path, targets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="target_domains: must be different indices from 0 to 2"):
        train(tiny_spec(target_domains=targets), TinyDomains(), tmp_path / "new", CPU)
    assert not (tmp_path / "new").exists()


def test_a_domain_smaller_than_the_batch_is_named(tmp_path: Path) -> None:
    hparams = {**tiny_spec().hparams, "batch_size": 25}
    with pytest.raises(ValueError, match="batch_size: domain 'bright' has 24 training samples"):
        train(tiny_spec(hparams=hparams), TinyDomains(), tmp_path / "new", CPU)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("machine", [Machine(accelerator="abacus"), Machine("cpu", precision="8-true")])
def test_machines_that_are_not_there_are_named(tmp_path: Path, machine: Machine) -> None:
    with pytest.raises(ValueError, match=r"accelerator, devices, precision: .* is not available here"):
        train(tiny_spec(), TinyDomains(), tmp_path / "new", machine)
    assert not (tmp_path / "new").exists()


def test_augmented_validation_is_domainbeds(tmp_path: Path) -> None:
    plain = train(tiny_spec(), TinyDomains(), tmp_path / "plain", CPU)
    augmented = train(tiny_spec(validation_images="augmented"), TinyDomains(), tmp_path / "augmented", CPU)
    assert plain["accuracies"]["dark"] == augmented["accuracies"]["dark"]
