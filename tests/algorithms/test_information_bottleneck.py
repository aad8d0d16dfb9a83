"""IB-ERM and IB-IRM against their formulas, before and after their weights set in."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.algorithms.test_objectives import mean_risk
from tests.algorithms.tiny import DOMAINS, assert_objective, make_algorithm, make_batch, parts


def variance(algorithm, batch) -> Tensor:
    """Mean over domains and features of the unbiased variance."""
    features = [algorithm.backbone(inputs) for inputs, _ in parts(batch)]
    return sum(((z - z.mean(0)) ** 2).sum(0).mean() / (len(z) - 1) for z in features) / DOMAINS


def irm(algorithm, batch) -> Tensor:
    total = 0
    for inputs, targets in parts(batch):
        logits = algorithm.head(algorithm.backbone(inputs))
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        slopes = [
            torch.autograd.grad(F.cross_entropy(logits[h] * scale, targets[h]), scale, create_graph=True)[0]
            for h in (slice(0, None, 2), slice(1, None, 2))
        ]
        total = total + slopes[0] * slopes[1] / DOMAINS
    return total


def test_ib_erm_before_and_after_annealing() -> None:
    algorithm, batch = make_algorithm("ib_erm", penalty_weight=7.0, anneal_steps=2), make_batch()
    assert_objective(algorithm, algorithm.objective(batch)[0], mean_risk(algorithm, batch))
    algorithm.steps_done = 2
    expected = mean_risk(algorithm, batch) + 7.0 * variance(algorithm, batch)
    assert_objective(algorithm, algorithm.objective(batch)[0], expected)


@pytest.mark.parametrize(("step", "weights"), [(0, (1, 0)), (1, (5, 0)), (3, (5, 7))])
def test_ib_irm_has_two_weights_that_set_in_at_steps_of_their_own(step: int, weights: tuple) -> None:
    hparams = {"irm_weight": 5.0, "irm_anneal_steps": 1, "ib_weight": 7.0, "ib_anneal_steps": 3}
    algorithm, batch = make_algorithm("ib_irm", **hparams), make_batch()
    algorithm.steps_done = step
    of_irm, of_variance = weights
    penalty = of_irm * irm(algorithm, batch) + of_variance * variance(algorithm, batch)
    found, metrics = algorithm.objective(batch)
    assert_objective(algorithm, found, mean_risk(algorithm, batch) + penalty)
    torch.testing.assert_close(metrics["penalty"], penalty.detach())


def test_adam_begins_anew_at_either_step() -> None:
    algorithm = make_algorithm("ib_irm", irm_anneal_steps=2, ib_anneal_steps=4)
    optimizers, counts = algorithm.make_optimizers(), []
    for _ in range(6):
        algorithm.update(make_batch(), optimizers)
        counts.append(int(next(iter(optimizers["main"].state.values()))["step"]))
    assert counts == [1, 2, 1, 2, 1, 2]
