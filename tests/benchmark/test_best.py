"""Exported configurations give the same accuracies again, from Python and from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hessalign.algorithms import get_algorithm
from hessalign.benchmark.best import BestRun, best_runs
from hessalign.benchmark.readers import read_sweep
from hessalign.datasets.registry import make_dataset
from hessalign.exceptions import NoEffectWarning
from hessalign.training import Machine, RunSpec, read_records, train
from tests.benchmark.run_folders import write_domainbed_run, write_own_run, write_result
from tests.cli.command import hessalign


def spec(**changes) -> RunSpec:
    hparams = get_algorithm("hgp").hparams_class.with_defaults("large", {"batch_size": 2})
    fields = {
        "dataset": "image_folder",
        "algorithm": "hgp",
        "target_domains": (1,),
        "backbone": {"name": "timm:test_efficientnet"},
        "hparams": hparams.model_dump(),
        "hparams_seed": 3,
        "seed": 5,
        "trial_seed": 1,
        "steps": 3,
        "evaluate_every": 1,
        "evaluation_samples": 3,
    }
    return RunSpec.model_validate({**fields, **changes})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of two classes with five images each."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for domain, light in (("dim", 0), ("vivid", 90)):
        for channel, name in enumerate(("red", "blue")):
            (root / domain / name).mkdir(parents=True)
            for number in range(5):
                pixels = random.integers(0, 120, (16, 16, 3))
                pixels[:, :, channel] += 40 + light
                Image.fromarray(pixels.astype(np.uint8)).save(root / domain / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def sweep(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real run."""
    out = tmp_path_factory.mktemp("sweep")
    data = make_dataset("image_folder", images)
    with pytest.warns(NoEffectWarning, match="hgp compares source domains, of which there is 1"):
        train(spec(), data, out / "runs" / spec().identity(), Machine(accelerator="cpu"))
    return out


def best(folder: Path) -> BestRun:
    (run,) = best_runs(read_sweep(folder), ["source-validation"], folder).runs
    return run


def test_a_choice_says_what_and_why(tmp_path: Path) -> None:
    write_result(tmp_path, 0.25, target=1, algorithm="irm", hparams_seed=0)
    folder = write_own_run(
        tmp_path,
        {0: [(0.1, 0.625), (0.75, 0.1)], 20: [(0.1, 0.5), (0.5, 0.1)]},
        algorithm="irm",
        target_domains=(1,),
        hparams_seed=4,
    )
    run = best(tmp_path)
    assert (run.algorithm, run.target, run.hparams_seed, run.step) == ("irm", "domain 1", 4, 0)
    assert (run.validation, run.test) == (62.5, 75.0)
    assert run.folder == f"runs/{folder.name}"
    assert RunSpec.model_validate(run.configuration).identity() == folder.name


def test_the_configuration_runs_again_from_python(sweep: Path, images: Path, tmp_path: Path) -> None:
    """One step more than the chosen checkpoint ends with that checkpoint's accuracies."""
    run = best(sweep)
    again = RunSpec.model_validate({**run.configuration, "steps": run.step + 1})
    data = make_dataset(again.dataset, images, again.trial_seed)
    with pytest.warns(NoEffectWarning):
        record = train(again, data, tmp_path / "again", Machine(accelerator="cpu"))
    assert 100 * record["accuracies"][run.target]["in"] == run.test


def test_the_command_line_runs_it_again(sweep: Path, images: Path, tmp_path: Path) -> None:
    best = best_runs(read_sweep(sweep), ["source-validation"], sweep)
    (tmp_path / "best.json").write_text(best.model_dump_json())
    folder, again = sweep / best.runs[0].folder, tmp_path / "again"
    arguments = ["--spec", tmp_path / "best.json", "--dataset", images, "--out", again]
    result = hessalign("train", *arguments, "--accelerator", "cpu")
    assert result.returncode == 0, result.stderr
    assert "the spec does not tell which data the run had" in result.stderr
    first = [record["accuracies"] for record in read_records(folder)]
    assert [record["accuracies"] for record in read_records(again)] == first
    assert (again / "spec.json").read_bytes() == (folder / "spec.json").read_bytes()


def test_domainbeds_choices_have_its_own_configuration(tmp_path: Path) -> None:
    write_domainbed_run(tmp_path / "a", {0: [(0.5, 0.5)] * 3}, trial_seed=2)
    run = best(tmp_path)
    assert run.configuration["args"]["trial_seed"] == 2
    assert run.configuration["hparams"]["lr"] == 5e-05
    json.loads(run.model_dump_json(), parse_constant=pytest.fail)
