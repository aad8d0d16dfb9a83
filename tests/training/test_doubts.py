"""What a run warns of: one source domain, a penalty that swamps the risk, a constant prediction."""

import math
import re
import warnings
from pathlib import Path

import pytest

from hessalign.backbones import BackboneSpec
from hessalign.exceptions import HessalignWarning, NoEffectWarning, UntrustworthyWarning
from hessalign.training import Machine, RunSpec, read_records, train, train_together
from tests.training.tiny_features import feature_spec, tiny_features

CPU = Machine("cpu")


def told(caught: list[warnings.WarningMessage]) -> list[tuple[type[Warning], str]]:
    return [
        (warning.category, str(warning.message))
        for warning in caught
        if issubclass(warning.category, HessalignWarning)
    ]


def warnings_of(spec: RunSpec, tmp_path: Path) -> list[tuple[type[Warning], str]]:
    dataset = tiny_features(tmp_path / "f.safetensors")
    dataset.class_names = ("ill", "well", "cured")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(spec, dataset, tmp_path / "run", CPU)
    return told(caught)


@pytest.mark.parametrize("algorithm", ["hgp", "coral", "irm", "dann"])
def test_a_sound_run_warns_of_nothing(tmp_path: Path, algorithm: str) -> None:
    backbone = BackboneSpec(name="adapter:linear", rank=2)
    waits = {"anneal_steps": 30} if algorithm == "irm" else {}
    spec = feature_spec(algorithm, {"lr": 1e-2, **waits}, backbone=backbone, steps=60, evaluate_every=30)
    assert warnings_of(spec, tmp_path) == []


def test_one_source_domain_is_told_before_any_work(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    with (
        warnings.catch_warnings(action="error", category=NoEffectWarning),
        pytest.raises(NoEffectWarning, match="algorithm: hgp compares source domains, of which there is 1"),
    ):
        train(feature_spec("hgp", {}, target_domains=(0, 1, 2)), dataset, tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


def test_one_source_domain_is_told_once(tmp_path: Path) -> None:
    ((category, _),) = warnings_of(feature_spec("hgp", {}, target_domains=(0, 1, 2)), tmp_path)
    assert category is NoEffectWarning


def test_too_few_samples_are_refused_before_any_work(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    spec = feature_spec("coral", {"batch_size": 1})
    for trained in (
        lambda: train(spec, dataset, tmp_path / "run", CPU),
        lambda: train_together([spec], dataset, [tmp_path / "run"], CPU),
    ):
        with pytest.raises(ValueError, match="batch_size: coral needs at least 2 samples of each domain"):
            trained()
    assert not (tmp_path / "run").exists()


def test_a_penalty_that_swamps_the_risk_is_told_by_how_much(tmp_path: Path) -> None:
    ((category, words),) = warnings_of(feature_spec("hgp", {"beta": 1e8}), tmp_path)
    first = read_records(tmp_path / "run")[0]
    ratio = (first["loss"] - first["risk"]) / max(first["risk"], math.log(3))
    assert category is UntrustworthyWarning
    assert words == (
        f"penalty: at step 0 the weighted penalty of hgp is {ratio:.3g} times the risk, which hardly "
        "counts beside it; a smaller alpha or beta lets it count"
    )


COLLAPSING = {"lr": 1.0, "alpha": 1e6, "beta": 0.0}
"""So heavy a penalty on Hessians that the head saturates: whatever it sees, it is sure of one class."""


def test_a_constant_prediction_is_told(tmp_path: Path) -> None:
    spec = feature_spec("hgp", COLLAPSING, steps=61, evaluate_every=30)
    (_, swamped), (category, words) = warnings_of(spec, tmp_path)
    assert swamped.startswith("penalty: at step 0 the weighted penalty of hgp is ")
    assert category is UntrustworthyWarning
    said = (
        "predictions: at step 60 all samples of the source domains are predicted as '(ill|well|cured)': a co"
    )
    assert re.match(said, words)
    assert words.endswith("a smaller alpha or beta, or more steps, may mend it")


def test_an_algorithm_without_a_penalty_has_nothing_to_doubt(tmp_path: Path) -> None:
    assert warnings_of(feature_spec("erm", {"lr": 0.0}, steps=61, evaluate_every=30), tmp_path) == []


def test_constant_predictions_of_runs_trained_together_are_counted(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    specs = [
        feature_spec("hgp", {**COLLAPSING, "alpha": alpha}, steps=61, evaluate_every=30)
        for alpha in (1e6, 1e-9)
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_together(specs, dataset, [tmp_path / str(run) for run in range(2)], CPU)
    swamped, constant = (words for _, words in told(caught))
    assert swamped.startswith("penalty: at step 0 in 1 of 2 runs the weighted penalty of hgp is ")
    assert constant.startswith("predictions: at step 60 in 1 of 2 runs all samples of the source domains")


def test_runs_trained_together_are_counted(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    specs = [feature_spec("hgp", {"beta": beta}, seed=seed) for seed, beta in enumerate((1e7, 1e-3, 1e9))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_together(specs, dataset, [tmp_path / str(run) for run in range(3)], CPU)
    ((category, words),) = told(caught)
    assert category is UntrustworthyWarning
    assert "in 2 of 3 runs the weighted penalty of hgp is " in words


def test_runs_trained_together_say_it_once_that_there_is_one_source(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    specs = [feature_spec("coral", {}, seed=seed, target_domains=(0, 1, 3)) for seed in range(2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_together(specs, dataset, [tmp_path / str(run) for run in range(2)], CPU)
    ((category, _),) = told(caught)
    assert category is NoEffectWarning


@pytest.mark.parametrize(("algorithm", "scalar"), [("erm", "loss"), ("hgp", "risk")])
def test_a_finite_but_huge_loss_is_told(tmp_path: Path, algorithm: str, scalar: str) -> None:
    spec = feature_spec(algorithm, {"lr": 1e5}, steps=12, evaluate_every=6)
    ((category, words), *_) = warnings_of(spec, tmp_path)
    huge = next(record for record in read_records(tmp_path / "run") if record[scalar] > 1000 * math.log(3))
    assert category is UntrustworthyWarning
    assert words == (
        f"loss: at step {huge['step']} the loss of {algorithm} is {huge[scalar]:.3g}, "
        f"{huge[scalar] / math.log(3):.3g} times that of guessing: finite, but as good as diverged; choose a "
        "smaller lr"
    )


@pytest.mark.parametrize(("steps", "doubted"), [(19, False), (20, True), (30, True)])
def test_a_short_run_is_looked_at_after_its_last_update(tmp_path: Path, steps: int, doubted: bool) -> None:
    """No step is at 50 or beyond."""
    told = warnings_of(feature_spec("hgp", COLLAPSING, steps=steps, evaluate_every=100), tmp_path)
    words = [words for _, words in told if words.startswith("predictions: ")]
    assert [f"predictions: at step {steps - 1} all" in word for word in words] == [True] * doubted
