"""CausIRL against its formula, with the cuts that it draws."""

import pytest
import torch
from torch import Tensor

from hessalign.algorithms import DomainBatch
from tests.algorithms.test_objectives import mean_risk
from tests.algorithms.tiny import DOMAINS, SAMPLES, assert_objective, make_algorithm, make_batch, parts


def coral(first: Tensor, second: Tensor) -> Tensor:
    means = ((first.mean(0) - second.mean(0)) ** 2).mean()
    return means + ((torch.cov(first.T) - torch.cov(second.T)) ** 2).mean()


def mmd(first: Tensor, second: Tensor) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squares = ((a.unsqueeze(1) - b) ** 2).sum(2)
        return sum(torch.exp(-g * squares) for g in (0.001, 0.01, 0.1, 1, 10, 100, 1000)).mean()

    return kernel(first, first) + kernel(second, second) - 2 * kernel(first, second)


@pytest.mark.parametrize(("name", "distance"), [("causirl_coral", coral), ("causirl_mmd", mmd)])
def test_the_distance_is_that_of_two_halves_cut_at_random(name: str, distance) -> None:
    algorithm, batch = make_algorithm(name, penalty_weight=3.0), make_batch()
    torch.manual_seed(7)
    found, metrics = algorithm.objective(batch)
    torch.manual_seed(7)
    cuts = torch.randint(SAMPLES, (DOMAINS,)).tolist()
    assert len({*cuts}) > 1
    features = [algorithm.backbone(inputs) for inputs, _ in parts(batch)]
    first = torch.cat([z[:cut] for z, cut in zip(features, cuts, strict=True)])
    second = torch.cat([z[cut:] for z, cut in zip(features, cuts, strict=True)])
    expected = distance(first, second)
    assert_objective(algorithm, found, mean_risk(algorithm, batch) + 3.0 * expected)
    torch.testing.assert_close(metrics["penalty"], expected.detach())


@pytest.mark.parametrize("name", ["causirl_coral", "causirl_mmd"])
def test_halves_of_one_sample_have_no_distance(name: str) -> None:
    """The reference's CORAL divides by zero there."""
    algorithm = make_algorithm(name, domains=2)
    ids = torch.arange(2).repeat_interleave(2)
    features = torch.randn(4, 5, dtype=torch.float64)
    batch = DomainBatch(features, ids, ids, 2)
    found = {float(algorithm.penalty(features, batch)) for _ in range(40)}
    assert 0.0 in found
    assert len(found) > 1
    assert all(value >= 0 for value in found)


@pytest.mark.parametrize("name", ["causirl_coral", "causirl_mmd"])
def test_half_precision_is_not_rounded_again(name: str) -> None:
    algorithm = make_algorithm(name, domains=2)
    features, ids = torch.randn(16, 64).bfloat16(), torch.arange(2).repeat_interleave(8)
    batch = DomainBatch(features, ids, ids, 2)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = algorithm.penalty(features, batch)
    torch.manual_seed(0)
    torch.testing.assert_close(found, algorithm.penalty(features.float(), batch))
    assert found.dtype == torch.float32
