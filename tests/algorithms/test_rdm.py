"""RDM against its formula, and the Adam that begins anew."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.algorithms.test_objectives import mean_risk
from tests.algorithms.tiny import assert_objective, make_algorithm, make_batch, parts


def terms(algorithm, batch) -> tuple[Tensor, Tensor]:
    by_domain = [
        F.cross_entropy(algorithm.head(algorithm.backbone(x)), y, reduction="none") for x, y in parts(batch)
    ]
    worst, every = max(by_domain, key=lambda losses: float(losses.detach().mean())), torch.cat(by_domain)

    def kernel(first: Tensor, second: Tensor) -> Tensor:
        squares = (first.unsqueeze(1) - second) ** 2
        return sum(torch.exp(-(10.0**power) * squares) for power in range(-4, 4)).mean()

    distance = kernel(worst, worst) + kernel(every, every) - 2 * kernel(worst, every)
    return distance, every.var() + worst.var()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rdm_before_and_after_annealing(seed: int) -> None:
    algorithm = make_algorithm("rdm", penalty_weight=5.0, variance_weight=0.3, anneal_steps=2)
    batch = make_batch(seed=seed)
    assert_objective(algorithm, algorithm.objective(batch)[0], mean_risk(algorithm, batch))
    algorithm.steps_done = 2
    distance, variance = terms(algorithm, batch)
    found, metrics = algorithm.objective(batch)
    penalty = 5.0 * distance + 0.3 * variance
    assert_objective(algorithm, found, mean_risk(algorithm, batch) + penalty)
    torch.testing.assert_close(metrics["penalty"], penalty.detach())


def test_adam_begins_anew_with_its_late_learning_rate() -> None:
    algorithm = make_algorithm("rdm", anneal_steps=2, late_lr=1e-4, lr=0.01)
    optimizers, seen = algorithm.make_optimizers(), []
    for _ in range(4):
        algorithm.update(make_batch(), optimizers)
        (group,) = optimizers["main"].param_groups
        seen.append((int(next(iter(optimizers["main"].state.values()))["step"]), group["lr"]))
    assert seen == [(1, 0.01), (2, 0.01), (1, 1e-4), (2, 1e-4)]


def test_with_one_domain_nothing_is_matched_and_adam_goes_on() -> None:
    algorithm, batch = make_algorithm("rdm", domains=1, anneal_steps=0), make_batch(domains=1)
    assert_objective(algorithm, algorithm.objective(batch)[0], mean_risk(algorithm, batch))
    assert not algorithm.resets_optimizer()
