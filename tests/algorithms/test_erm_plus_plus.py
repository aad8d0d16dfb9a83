"""ERM++: the head first, then all, and the mean of the networks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam

from hessalign.algorithms import get_algorithm
from tests.algorithms.tiny import CLASSES, DOMAINS, make_algorithm, make_batch, snapshot

HPARAMS = {"lr": 0.01, "linear_lr": 0.02, "weight_decay": 0.1, "linear_steps": 2, "average_from": 4}


def network_of(algorithm) -> nn.Sequential:
    return nn.Sequential(algorithm.backbone, algorithm.head)


def assert_same(found: dict, expected: dict) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("variant", "linear", "first"), [("paper", 2, 4), ("domainbed", 3, 3)])
def test_head_then_all_and_the_mean_of_all_networks_since(variant: str, linear: int, first: int) -> None:
    """The reference's own counting has one step more for the head, and an average one update older."""
    algorithm = make_algorithm("erm_plus_plus", variant=variant, **HPARAMS)
    network = copy.deepcopy(network_of(algorithm))
    head = Adam(network[1].parameters(), lr=0.02, weight_decay=0.1)
    main = Adam(network.parameters(), lr=0.01, weight_decay=0.1)
    optimizers, averaged = algorithm.make_optimizers(), []
    for step in range(8):
        batch = make_batch(seed=step)
        algorithm.update(batch, optimizers)
        network.zero_grad()
        F.cross_entropy(network(batch.inputs), batch.targets).backward()
        (head if step < linear else main).step()
        assert_same(algorithm.trained.state_dict(), network.state_dict())
        updates = step + 1
        averaged = [*averaged, snapshot(network)] if updates > first else [snapshot(network)]
        mean = {name: sum(one[name] for one in averaged) / len(averaged) for name in averaged[0]}
        assert_same(network_of(algorithm).state_dict(), mean)
        logits = network_of(algorithm)(batch.inputs)
        assert torch.equal(algorithm(batch.inputs), logits)
    assert len(averaged) > 3


def test_the_backbone_needs_no_gradient_while_the_head_alone_is_trained() -> None:
    algorithm = make_algorithm("erm_plus_plus", **HPARAMS)
    optimizers, batch = algorithm.make_optimizers(), make_batch()
    before = snapshot(algorithm.trained[0])
    for step in range(3):
        algorithm.update(batch, optimizers)
        assert all((value.grad is None) is (step < 2) for value in algorithm.trained[0].parameters())
        assert torch.equal(algorithm.trained[0][0].weight, before["0.weight"]) is (step < 2)
    assert optimizers["main"].state != {}


def test_the_mean_networks_running_statistics_see_every_batch() -> None:
    torch.manual_seed(0)
    made = get_algorithm("erm_plus_plus")
    chosen = made.hparams_class.with_defaults("large", {**HPARAMS, "average_from": 1})
    backbone = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    algorithm = made(backbone, 5, CLASSES, DOMAINS, chosen).double()
    optimizers = algorithm.make_optimizers()
    algorithm.update(make_batch(), optimizers)
    expected, batch = copy.deepcopy(algorithm), make_batch(seed=2)
    algorithm.update(batch, optimizers)
    trained, mean = algorithm.trained[0][1], expected.backbone[1]
    mean.running_mean.add_(trained.running_mean - mean.running_mean, alpha=0.5)
    mean.running_var.add_(trained.running_var - mean.running_var, alpha=0.5)
    with torch.no_grad():  # the head alone was trained, so the backbone's weights are what they were
        expected.backbone(batch.inputs)
    torch.testing.assert_close(backbone[1].running_mean, mean.running_mean)
    torch.testing.assert_close(backbone[1].running_var, mean.running_var)


def test_the_defaults_train_the_backbone_after_five_hundred_steps() -> None:
    algorithm = make_algorithm("erm_plus_plus")
    before, optimizers, batch = snapshot(algorithm), algorithm.make_optimizers(), make_batch()
    for _ in range(501):
        algorithm.update(batch, optimizers)
        if algorithm.steps_done == 500:
            assert torch.equal(algorithm.backbone[0].weight, before["backbone.0.weight"])
    assert all(not torch.equal(value, before[name]) for name, value in algorithm.named_parameters())
