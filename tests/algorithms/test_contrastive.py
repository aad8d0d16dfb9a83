"""CAD and CondCAD against their formula, sample by sample."""

import math

import pytest
import torch
from torch import Tensor

from hessalign.algorithms import DomainBatch
from tests.algorithms.test_objectives import mean_risk
from tests.algorithms.tiny import assert_objective, make_algorithm, make_batch


def bottleneck(features: Tensor, batch: DomainBatch, conditional: bool, flipped: bool, domainbed: bool):
    rows, temperature = [], 0.1
    targets, domains = batch.targets.tolist(), batch.domains.tolist()
    for i, z in enumerate(features):
        similar = [z @ other / temperature for other in features]
        others = [j for j in range(len(features)) if j != i]
        neighbours = [j for j in others if not conditional or targets[j] == targets[i]]
        chosen = [j for j in neighbours if (domains[j] != domains[i]) == flipped]
        if domainbed and not conditional:
            if not any(targets[j] == targets[i] for j in others):
                continue
            if not flipped:
                similar[i] = torch.zeros((), dtype=features.dtype)
                chosen = [i, *chosen]
        if not chosen:
            continue
        share = torch.stack([similar[j] for j in chosen]).logsumexp(0)
        share = share - torch.stack([similar[j] for j in neighbours]).logsumexp(0)
        rows.append(-share if flipped else share)
    return temperature / 0.07 * torch.stack(rows).mean()


@pytest.mark.parametrize("variant", ["paper", "domainbed"])
@pytest.mark.parametrize("flipped", [True, False])
@pytest.mark.parametrize("name", ["cad", "cond_cad"])
def test_the_penalty_is_its_formula(name: str, flipped: bool, variant: str) -> None:
    algorithm = make_algorithm(name, penalty_weight=0.3, flipped=flipped, variant=variant)
    batch = make_batch()
    targets = batch.targets.clone()
    targets[(batch.targets == 0).nonzero()[1:].flatten()] = 1  # one sample is the only one of its class
    batch = DomainBatch(batch.inputs, targets, batch.domains, batch.domain_count)
    features = algorithm.backbone(batch.inputs)
    expected = bottleneck(features, batch, name == "cond_cad", flipped, variant == "domainbed")
    found, metrics = algorithm.objective(batch)
    assert_objective(algorithm, found, mean_risk(algorithm, batch) + 0.3 * expected)
    torch.testing.assert_close(metrics["penalty"], expected.detach())


def test_projection_and_length_come_first() -> None:
    algorithm, batch = make_algorithm("cad", project=True, normalize=True), make_batch()
    projected = algorithm.projection(algorithm.backbone(batch.inputs))
    assert projected.shape[1] == 128
    unit = projected / projected.norm(dim=1, keepdim=True)
    expected = mean_risk(algorithm, batch) + 0.1 * bottleneck(unit, batch, False, True, False)
    torch.testing.assert_close(algorithm.objective(batch)[0], expected)
    before = algorithm.projection[0].weight.clone()
    algorithm.update(batch, algorithm.make_optimizers())
    assert not torch.equal(algorithm.projection[0].weight, before)


@pytest.mark.parametrize("name", ["cad", "cond_cad"])
def test_features_that_do_not_tell_the_domain_have_the_smallest_penalty(name: str) -> None:
    """Equal features: ``other`` holds 12 of 17 neighbours, and of one class 4 of 5."""
    algorithm = make_algorithm(name)
    ids = torch.arange(3).repeat_interleave(6)
    batch = DomainBatch(torch.zeros(18, 4), torch.arange(18) % 3, ids, 3)
    share = 12 / 17 if name == "cad" else 4 / 5
    found = algorithm.bottleneck(torch.zeros(18, 5, dtype=torch.float64), batch)
    assert float(found) == pytest.approx(-math.log(share) * 0.1 / 0.07)


@pytest.mark.parametrize("name", ["cad", "cond_cad"])
def test_a_batch_without_neighbours_has_no_penalty_and_a_derivative(name: str) -> None:
    """In a batch of one sample of each class the conditional one has nothing to compare."""
    algorithm, ids = make_algorithm(name), torch.arange(3)
    features = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    found = algorithm.bottleneck(features, DomainBatch(features.detach(), ids, ids, 3))
    (slopes,) = torch.autograd.grad(found, features)
    assert found == 0
    assert torch.equal(slopes, torch.zeros_like(slopes))
