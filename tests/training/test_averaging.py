"""Means over training: the published rules, by themselves and in a run."""

import copy
import os
import random
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hessalign.algorithms import get_algorithm
from hessalign.runs import SPEC
from hessalign.runs.checkpoints import AVERAGE, TRAINED, WEIGHTS
from hessalign.runs.recipe import Recipe
from hessalign.training import Machine, RunSpec, load_trained, read_records, train
from hessalign.training.averaging import SMA, SWAD, Averaging, in_place, renew_statistics
from tests.processes import run_in_parts, run_whole, start
from tests.training.tiny_domains import TinyDomains, tiny_spec

CPU = Machine("cpu")
# A rate so large that losses go up and down, and weights so small that the penalty does not outgrow them.
HPARAMS = {"batch_size": 2, "lr": 3e-2, "alpha": 1e-4, "beta": 1e-3}
FAST = {"hparams": HPARAMS, "evaluation_samples": 4}
SMA_RECIPE = Recipe(average="sma", average_from=3)
SWAD_RECIPE = Recipe(average="swad", swad_converge=2, swad_tolerance=2, swad_ratio=1.05)


def walk(count: int) -> list[dict[str, Tensor]]:
    torch.manual_seed(0)
    return [{"w": torch.randn(3, dtype=torch.float64), "b": torch.randn(2, 2)} for _ in range(count)]


def assert_means(found: dict[str, Tensor], networks: list[dict[str, Tensor]]) -> None:
    for name, value in found.items():
        expected = torch.stack([each[name] for each in networks]).double().mean(0)
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def predicted_by(averaging: Averaging) -> dict[str, Tensor]:
    mean = averaging.mean()
    assert mean is not None
    return mean.values


def test_sma_is_the_mean_of_all_networks_from_its_start_on() -> None:
    networks = walk(9)
    sma = SMA(4)
    for done, network in enumerate(networks, start=1):
        sma.take_in(done, network)
        if done < 4:
            assert sma.mean() is None
        else:
            assert_means(predicted_by(sma), networks[3:done])


def published_swad(
    losses: list[float], converge: int, tolerance: int, ratio: float
) -> tuple[int, int] | None:
    """First and last evaluation of the mean by Algorithm 1 of Cha et al., told by indices."""
    first, limit = None, 0.0
    for index in range(len(losses)):
        if first is None:
            window = losses[max(0, index - converge + 1) : index + 1]
            if len(window) == converge and window[0] == min(window):
                first, limit = index - converge + 1, ratio * sum(window) / converge
        elif limit < min(losses[max(0, index - tolerance + 1) : index + 1]) and index + 1 >= tolerance:
            return first, index - tolerance
    return None if first is None else (first, len(losses) - 1)


@pytest.mark.parametrize(("converge", "tolerance"), [(1, 1), (2, 1), (3, 6), (3, 2), (4, 3)])
def test_swad_is_the_published_rule(converge: int, tolerance: int) -> None:
    drawn = random.Random(0)
    kinds = set()
    for _ in range(60):
        losses = [drawn.choice((1.0, 1.2, 1.5, 1.6, 1.7, 2.0)) for _ in range(drawn.randint(1, 20))]
        expected = published_swad(losses, converge, tolerance, 1.1)
        networks = walk(2 * len(losses))  # two updates before each evaluation
        swad = SWAD(converge, tolerance, 1.1)
        for index, loss in enumerate(losses):
            for done in (2 * index, 2 * index + 1):
                swad.take_in(done + 1, networks[done])
            again = SWAD(converge, tolerance, 1.1)  # what a checkpoint brings back goes on in the same way
            again.load(swad.state(), networks[0])
            swad = again
            swad.look(loss)
        kinds.add("none" if expected is None else "ended" if expected[1] < len(losses) - 1 else "goes on")
        if expected is None:
            assert swad.mean() is None
        else:
            first, last = expected
            assert_means(predicted_by(swad), networks[2 * first : 2 * last + 2])
    assert kinds >= {"ended", "goes on"}


def networks_of(spec: RunSpec, folder: Path) -> list[dict[str, Tensor]]:
    """Parameters after each update of the run without its mean."""
    plain = spec.model_copy(update={"recipe": None, "evaluate_every": 1, "evaluation_samples": 1})
    found: list[dict[str, Tensor]] = []
    for steps in range(1, spec.steps + 1):
        train(plain.with_steps(steps), TinyDomains(), folder, CPU)
        found.append(load_trained(folder)[0].state_dict())
    return found


def test_a_run_predicts_with_the_mean_and_goes_on_with_the_latest(tmp_path: Path) -> None:
    spec = tiny_spec(hparams=HPARAMS, steps=6, evaluate_every=4, recipe=SMA_RECIPE)
    networks = networks_of(spec, tmp_path / "plain")
    record = train(spec, TinyDomains(), tmp_path / "sma", CPU)
    algorithm, metadata = load_trained(tmp_path / "sma")
    assert_means({name: value.detach() for name, value in algorithm.named_parameters()}, networks[2:])
    checkpoint = tmp_path / "sma" / "checkpoints" / "step-000006"
    trained = load_file(checkpoint / TRAINED)
    assert all(torch.equal(trained[name], networks[-1][name]) for name in trained)
    assert metadata.run.recipe == SMA_RECIPE
    data = TinyDomains()
    for domain in data.domains:
        logits = algorithm(torch.stack([domain.plain[i][0] for i in range(len(domain.targets))]))
        right = float((logits.argmax(1) == domain.targets).double().mean())
        counted = record["accuracies"][domain.name]
        assert right == pytest.approx((24 * counted["in"] + 6 * counted["out"]) / 30)


@pytest.mark.parametrize("recipe", [pytest.param(SMA_RECIPE, marks=pytest.mark.slow), SWAD_RECIPE])
def test_a_lengthened_run_ends_as_the_long_one(tmp_path: Path, recipe: Recipe) -> None:
    spec = tiny_spec(**FAST, recipe=recipe, steps=11, evaluate_every=2)
    train(spec, TinyDomains(), tmp_path / "long", CPU)
    for steps in (6, 11):  # the last step of the former is no regular evaluation
        train(spec.with_steps(steps), TinyDomains(), tmp_path / "short", CPU)
    assert_same(tmp_path / "long", tmp_path / "short")


def assert_same(one: Path, other: Path) -> None:
    first, second = (next((folder / "checkpoints").glob("step-*")) for folder in (one, other))
    for name in (WEIGHTS, TRAINED, AVERAGE):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    accuracies = [[each["accuracies"] for each in read_records(folder)] for folder in (one, other)]
    assert accuracies[0] == accuracies[1]


def long_run(folder: Path, recipe: Recipe, steps: int) -> None:
    train(tiny_spec(**FAST, recipe=recipe, steps=steps, evaluate_every=2), TinyDomains(), folder, CPU)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [SWAD_RECIPE, SMA_RECIPE])
def test_killed_at_any_moment_ends_with_the_same_bits(tmp_path: Path, recipe: Recipe) -> None:
    kills = 6 if os.environ.get("CI") else 2
    steps = 12 * kills + 10  # six records for each kill, which takes two or so
    whole, parts = (partial(start, long_run, tmp_path / name, recipe, steps) for name in ("whole", "parts"))
    pace = run_whole(whole, lambda: len(read_records(tmp_path / "whole")))
    run_in_parts(parts, lambda: len(read_records(tmp_path / "parts")), kills, pace)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def with_norm(frozen: bool) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    model[1].train(not frozen)
    return model


def test_statistics_belong_to_the_mean_and_are_left_alone_where_frozen() -> None:
    batches = [torch.randn(8, 4) + 3 for _ in range(5)]
    model = with_norm(frozen=False)
    before = copy.deepcopy(model.state_dict())
    values = {name: value + 1 for name, value in model.named_parameters()}
    with in_place(model, values, batches):
        hidden = torch.stack(
            [nn.functional.linear(each, values["0.weight"], values["0.bias"]) for each in batches]
        )
        torch.testing.assert_close(model[1].running_mean, hidden.mean((0, 1)))
        torch.testing.assert_close(model[1].running_var, hidden.var(1).mean(0))
        assert torch.equal(model[0].weight, values["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    frozen = with_norm(frozen=True)
    former = copy.deepcopy(frozen.state_dict())
    renew_statistics(frozen, batches)
    assert all(torch.equal(value, former[name]) for name, value in frozen.state_dict().items())


def test_specs_from_before_are_the_same_runs() -> None:
    spec = tiny_spec()
    assert "recipe" not in spec.model_dump(mode="json")
    assert "recipe" not in spec.model_dump_json()
    assert spec.identity() == tiny_spec(recipe=None).identity() != tiny_spec(recipe=SMA_RECIPE).identity()
    again = RunSpec.model_validate_json(tiny_spec(recipe=SMA_RECIPE).model_dump_json())
    assert again == tiny_spec(recipe=SMA_RECIPE)


def test_what_does_not_go_together_is_refused_before_any_work(tmp_path: Path) -> None:
    hparams = get_algorithm("erm_plus_plus").hparams_class.with_defaults("small", {"batch_size": 4})
    spec = tiny_spec(algorithm="erm_plus_plus", hparams=hparams.model_dump(), recipe=SMA_RECIPE)
    with pytest.raises(ValueError, match="average: erm_plus_plus predicts with a mean of its own"):
        train(spec, TinyDomains(), tmp_path, CPU)
    assert not (tmp_path / SPEC).exists()
    with pytest.raises(ValueError, match="swad_ratio: belongs to average 'swad', and average is 'sma'"):
        Recipe(average="sma", swad_ratio=1.2)
    with pytest.raises(ValueError, match="average_from: belongs to average 'sma', and no average is chosen"):
        Recipe(average_from=5)
