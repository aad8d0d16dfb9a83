"""What a run does beside its algorithm's rule: where it starts, holds fast, climbs."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessalign.algorithms import Algorithm, DomainBatch, algorithm_names, get_algorithm
from hessalign.backbones import Backbone
from hessalign.runs.recipe import Recipe
from hessalign.training import Machine, can_train_together, load_trained, train
from hessalign.training.recipe import Practice, make_recipe
from tests.training.tiny_domains import TinyDomains, tiny_spec

CPU = Machine("cpu")
WIDTH, CLASSES, DOMAINS = 5, 3, 3


def make(name: str, channels: int = 1, dropout: float = 0.0, **hparams: object) -> Algorithm:
    torch.manual_seed(0)
    kind = get_algorithm(name)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16 * (1 + kind.extra_input_channels), WIDTH), nn.Tanh())
    if name in ("sagnet", "urm"):
        network = nn.Sequential(
            nn.Conv2d(1, WIDTH, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
        )
    backbone = Backbone(network, WIDTH, dropout=dropout)
    return kind(
        backbone, WIDTH, CLASSES, DOMAINS, kind.hparams_class.with_defaults("small", {"lr": 1e-2, **hparams})
    )


def batch(seed: int = 0) -> DomainBatch:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(CLASSES).repeat(4 * DOMAINS)
    domains = torch.arange(DOMAINS).repeat_interleave(4 * CLASSES)
    inputs = torch.randn(len(targets), 1, 4, 4, generator=generator) + targets.view(-1, 1, 1, 1)
    return DomainBatch(inputs, targets, domains, DOMAINS)


def gradient(algorithm: Algorithm, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(algorithm.parameters())))


@pytest.mark.parametrize("kind", ["sam", "disam"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_sharp_step_is_the_rule_written_out(kind: str, dropout: float) -> None:
    algorithm = make("erm", dropout=dropout).double()
    data = batch()
    data = data.with_inputs(data.inputs.double())
    recipe = Recipe(sharpness=kind, rho=0.3, **({"disam_weight": 0.7} if kind == "disam" else {}))
    ours, plain = copy.deepcopy(algorithm), copy.deepcopy(algorithm)
    practice = Practice(recipe, ours)
    torch.manual_seed(5)
    metrics = ours.update(data, practice.make_optimizers())

    def losses() -> Tensor:
        torch.manual_seed(5)
        logits = algorithm.head(algorithm.backbone(data.inputs))
        return F.cross_entropy(logits, data.targets, reduction="none").view(DOMAINS, -1).mean(1)

    risks = losses()
    assert float(metrics["loss"]) == pytest.approx(float(risks.detach().mean()))
    variance = ((risks - risks.mean()) ** 2).mean()
    climbed = gradient(algorithm, risks.mean() - (0.7 * variance if kind == "disam" else 0))
    length = torch.cat([each.flatten() for each in climbed]).norm()
    with torch.no_grad():
        for each, slope in zip(algorithm.parameters(), climbed, strict=True):
            each.add_(0.3 * slope / length)
    wanted = gradient(algorithm, losses().mean())
    adam = plain.make_optimizers()["main"]
    for each, slope in zip(plain.parameters(), wanted, strict=True):
        each.grad = slope
    adam.step()
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_a_sharp_step_counts_buffers_and_random_numbers_once() -> None:
    """Running statistics, moving averages and the random state are those of a plain step."""
    for name, norm in (("fishr", False), ("group_dro", False), ("erm", True)):
        algorithm = make(name, dropout=0.5)
        if norm:
            algorithm.backbone.network.append(nn.BatchNorm1d(WIDTH))
        sharp = copy.deepcopy(algorithm)
        states = []
        for each, recipe in ((algorithm, None), (sharp, Recipe(sharpness="disam"))):
            practice = Practice(recipe, each)
            torch.manual_seed(3)
            each.update(batch(), practice.make_optimizers())
            states.append((dict(each.named_buffers()), torch.get_rng_state()))
        (plain, random), (other, again) = states
        assert plain, name
        assert plain.keys() == other.keys()
        assert all(torch.equal(plain[key], other[key]) for key in plain), name
        assert torch.equal(random, again)


def test_sharpness_goes_with_every_algorithm_of_one_objective_and_no_other() -> None:
    refused = []
    for name in algorithm_names():
        algorithm = make(name)
        if type(algorithm).step is not Algorithm.step:
            with pytest.raises(ValueError, match=f"sharpness: {name} has a step of its own"):
                Practice(Recipe(sharpness="sam"), algorithm)
            refused.append(name)
            continue
        practice = Practice(Recipe(sharpness="sam"), algorithm)
        optimizers = practice.make_optimizers()
        assert list(optimizers) == ["main"], name
        before = copy.deepcopy(dict(algorithm.named_parameters()))
        algorithm.update(batch(), optimizers)
        assert any(not torch.equal(value, before[key]) for key, value in algorithm.named_parameters()), name
    assert {"fish", "mldg", "dann", "erm_plus_plus"} <= set(refused)
    assert not {"erm", "hgp", "sd", "eqrm", "coral"} & set(refused)


CANNOT_PROBE = {name for name in algorithm_names() if not get_algorithm(name).can_probe}


@pytest.mark.parametrize("name", algorithm_names())
def test_a_held_backbone_does_not_move_and_the_head_does(name: str) -> None:
    algorithm = make(name, dropout=0.5)
    recipe = Recipe(linear_probe_steps=6)
    if name in CANNOT_PROBE:
        with pytest.raises(ValueError, match="linear_probe_steps"):
            Practice(recipe, algorithm)
        return
    algorithm.check_start()  # as a run does; a backbone that is held for a while is one to train
    practice = Practice(recipe, algorithm)
    optimizers = practice.make_optimizers()
    network = nn.ModuleList([algorithm.backbone, algorithm.head])
    for steps, expected in ((range(6), {"1"}), (range(6, 12), {"0", "1"})):  # some rules alternate
        before = copy.deepcopy(network.state_dict())
        for step in steps:
            practice.before_update(step)
            algorithm.update(batch(step), optimizers)
        after = network.state_dict()
        moved = {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}
        assert moved == expected


def test_the_head_learns_at_its_own_rate() -> None:
    algorithm = make("erm")
    practice = Practice(Recipe(head_lr_factor=10), algorithm)
    before = copy.deepcopy(algorithm.state_dict())
    algorithm.update(batch(), practice.make_optimizers())
    moved = {
        name: float((value.detach() - before[name]).abs().max())
        for name, value in algorithm.named_parameters()
    }
    assert moved["head.weight"] == pytest.approx(0.1, rel=1e-3)  # the first step of Adam is the rate itself
    assert moved["backbone.network.1.weight"] == pytest.approx(0.01, rel=1e-3)


def test_the_head_keeps_its_rate_where_adam_begins_anew() -> None:
    algorithm = make("eqrm", burn_in_steps=1, late_lr=1e-3)
    optimizers = Practice(Recipe(head_lr_factor=10), algorithm).make_optimizers()
    for step in range(2):
        algorithm.update(batch(step), optimizers)
    rates = sorted(group["lr"] for group in optimizers["main"].param_groups)
    assert rates == pytest.approx([1e-3, 1e-2])


def test_a_run_starts_from_another_ones_backbone_and_head(tmp_path: Path) -> None:
    train(tiny_spec(steps=3), TinyDomains(), tmp_path / "first", CPU)
    recipe = make_recipe(start_from=tmp_path / "first", linear_probe_steps=1)
    assert recipe is not None
    spec = tiny_spec(steps=1, seed=7, recipe=recipe)
    train(spec, TinyDomains(), tmp_path / "second", CPU)
    first, second = (load_trained(tmp_path / name)[0].state_dict() for name in ("first", "second"))
    for name, value in first.items():
        if name.startswith("backbone."):
            assert torch.equal(value, second[name])
        elif name.startswith("head."):
            assert 0 < float((value - second[name]).abs().max()) < 2e-3
    (tmp_path / "first").rename(tmp_path / "moved")
    moved = spec.model_copy(
        update={"recipe": make_recipe(start_from=tmp_path / "moved", linear_probe_steps=1)}
    )
    assert moved.identity() == spec.identity()
    train(spec.with_steps(2), TinyDomains(), tmp_path / "second", CPU)  # what goes on needs it no more
    train(tiny_spec(steps=4), TinyDomains(), tmp_path / "moved", CPU)
    with pytest.raises(ValueError, match=r"start_from: .* is not what the run started from"):
        train(moved, TinyDomains(), tmp_path / "third", CPU)


def test_runs_with_a_recipe_are_trained_alone() -> None:
    spec = tiny_spec(algorithm="erm", hparams={"lr": 1e-3, "batch_size": 6}, recipe=Recipe(head_lr_factor=2))
    assert can_train_together(spec) is None
