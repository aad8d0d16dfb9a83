"""Means of several runs, and between a trained and the pretrained backbone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hessalign.backbones import BackboneSpec
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from hessalign.runs import METRICS, source_accuracy
from hessalign.runs.checkpoints import WEIGHTS
from hessalign.training import Machine, RunSpec, average_runs, load_trained, make_recipe, read_records, train
from hessalign.training.soup import Member
from tests.training.tiny_domains import TinyDomains, tiny_spec

CPU = Machine("cpu")
BACKBONE = BackboneSpec(name="mnist_cnn")
HPARAMS = {**tiny_spec().hparams, "batch_size": 2}


def data_of(spec: RunSpec) -> TinyDomains:
    assert spec.dataset == "tiny"
    return TinyDomains()


def run(folder: Path, **changes) -> Path:
    fields = {"hparams": HPARAMS, "backbone": BACKBONE, "evaluation_samples": 4, "steps": 2, **changes}
    train(tiny_spec(**fields), TinyDomains(), folder, CPU)
    return folder


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs that start from one, the last of which learns too fast."""
    home = tmp_path_factory.mktemp("members")
    start = make_recipe(start_from=run(home / "start"))
    rates = {1: 1e-3, 2: 1e-3, 3: 1.0}
    return [
        run(
            home / f"m{seed}", seed=seed, recipe=start, hparams={**HPARAMS, "lr": lr}, evaluation_samples=None
        )
        for seed, lr in rates.items()
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_trained(folder)[0].state_dict()


def test_the_mean_of_runs_is_a_run_that_names_them(tmp_path: Path, members: list[Path]) -> None:
    record, spec = average_runs(members, tmp_path / "mean", data_of, CPU)
    each = [weights(folder) for folder in members]
    for name, value in weights(tmp_path / "mean").items():
        if value.is_floating_point():
            expected = torch.stack([one[name] for one in each]).double().mean(0)
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    assert spec.average is not None
    assert [run for run, _ in spec.average.members] == [
        load_trained(folder)[1].run.identity() for folder in members
    ]
    assert [digest for _, digest in spec.average.members] == [
        Member.load(folder).digest for folder in members
    ]
    assert read_records(tmp_path / "mean") == [json.loads(json.dumps(record))]
    assert load_trained(tmp_path / "mean")[1].run == spec
    with pytest.raises(ValueError, match="average: the run is a mean of trained runs"):
        train(spec, TinyDomains(), tmp_path / "again", CPU)


def test_restricted_takes_in_what_does_not_hurt(tmp_path: Path, members: list[Path]) -> None:
    """The greedy rule, with uniform means of the runs that it would try."""

    def source(folder: Path) -> float:
        return source_accuracy(read_records(folder)[-1], (2,))

    ranked = sorted(members, key=source, reverse=True)
    chosen, best = ranked[:1], source(ranked[0])
    for number, folder in enumerate(ranked[1:]):
        tried = tmp_path / f"tried{number}"
        average_runs([*chosen, folder], tried, data_of, CPU)
        if source(tried) >= best:
            chosen, best = [*chosen, folder], source(tried)
    record, spec = average_runs(members, tmp_path / "mean", data_of, CPU, "restricted")
    assert len(chosen) < len(members)  # the one that learned too fast is left out
    assert spec.average is not None
    assert spec.average.selection == "restricted"
    assert [digest for _, digest in spec.average.members] == [Member.load(folder).digest for folder in chosen]
    assert source_accuracy(record, (2,)) == best
    worst_first = [members[2], *members[:2]]
    _, again = average_runs(worst_first, tmp_path / "again", data_of, CPU, "restricted")
    assert (again.seed, again.hparams) == (spec.seed, spec.hparams)
    assert spec.hparams["lr"] == 1e-3  # of a run that it holds


def test_wise_ft_lies_between_the_pretrained_backbone_and_the_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = weights(run(tmp_path / "first"))
    prefix = "backbone.network."
    file = tmp_path / "w.safetensors"
    save_file({k.removeprefix(prefix): v for k, v in first.items() if k.startswith(prefix)}, file)
    spec = BackboneSpec(name="mnist_cnn", weights=file)
    trained = run(tmp_path / "trained", backbone=spec, steps=3)
    average_runs([trained], tmp_path / "between", data_of, CPU, wise_ft=0.25)
    found, after = weights(tmp_path / "between"), weights(trained)
    for name, value in found.items():
        if name.startswith(prefix) and value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * after[name])
        elif name.startswith("head."):
            assert torch.equal(value, after[name])


def test_what_does_not_go_together_is_refused_and_nothing_written(
    tmp_path: Path, members: list[Path]
) -> None:
    out = tmp_path / "out"
    one = run(tmp_path / "one", seed=1, evaluation_samples=None)
    other = run(tmp_path / "other", seed=2, evaluation_samples=None)
    with pytest.raises(ValueError, match="all of them random"):
        average_runs([one, other], out, data_of, CPU)
    with pytest.raises(ValueError, match="nothing is pretrained"):
        average_runs([one], out, data_of, CPU, wise_ft=0.5)
    with pytest.raises(ValueError, match="the mean of one run is that run"):
        average_runs([one], out, data_of, CPU)
    with pytest.raises(ValueError, match="must be different runs"):
        average_runs([one, one], out, data_of, CPU)
    with pytest.raises(ValueError, match="the runs differ in trial_seed"):
        average_runs([one, run(tmp_path / "trial", trial_seed=1, evaluation_samples=None)], out, data_of, CPU)
    begun = tmp_path / "begun"
    shutil.copytree(members[0], begun)
    (begun / "done").unlink()
    with pytest.raises(ValueError, match=r"folders: the run in .*begun is not finished"):
        average_runs([members[1], begun], out, data_of, CPU)
    with pytest.warns(UntrustworthyWarning, match=r"start_from: the run in .*begun is not finished"):
        make_recipe(start_from=begun)
    with pytest.raises(ValueError, match="there is no run in"):
        average_runs([one, tmp_path / "nowhere"], out, data_of, CPU)
    assert not out.exists()
    with pytest.raises(ValueError, match="is not empty"):
        average_runs(members, one, data_of, CPU)
    with pytest.warns(UntrustworthyWarning, match="began with different weights"):
        average_runs([members[0], one], out, data_of, CPU)
    assert (out / METRICS).exists()
    with pytest.raises(ValueError, match="is itself a mean of runs"):
        average_runs([members[0], out], tmp_path / "more", data_of, CPU)
    damaged = next((one / "checkpoints").glob("step-*")) / WEIGHTS
    tensors = load_file(damaged)
    save_file({name: value + 1 for name, value in tensors.items()}, damaged)
    with pytest.raises(ValueError, match="is damaged"):
        average_runs([members[0], one], tmp_path / "more", data_of, CPU)


def test_a_choice_that_cannot_be_made_is_refused_and_one_without_effect_said(
    tmp_path: Path, members: list[Path]
) -> None:
    unmeasured = [
        run(
            tmp_path / f"u{seed}",
            seed=seed,
            recipe=load_trained(members[0])[1].run.recipe,
            holdout_fraction=0.01,
        )
        for seed in (1, 2)
    ]
    out = tmp_path / "out"
    with pytest.raises(
        ValueError, match="selection: 'restricted' needs held-out samples of every source domain"
    ):
        average_runs(unmeasured, out, data_of, CPU, "restricted")
    with pytest.raises(ValueError, match="selection: 'greedy' is not known"):
        average_runs(members, out, data_of, CPU, "greedy")
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="wise_ft: must be"):
            average_runs(members, out, data_of, CPU, wise_ft=share)
    assert not out.exists()
    file = tmp_path / "w.safetensors"
    prefix = "backbone.network."
    save_file(
        {k.removeprefix(prefix): v for k, v in weights(members[0]).items() if k.startswith(prefix)}, file
    )
    trained = run(tmp_path / "trained", backbone=BackboneSpec(name="mnist_cnn", weights=file))
    with pytest.warns(NoEffectWarning, match="selection: 'restricted' has one run to choose from"):
        _, spec = average_runs([trained], out, data_of, CPU, "restricted", 0.5)
    assert spec.average is not None
    assert spec.average.selection == "uniform"
