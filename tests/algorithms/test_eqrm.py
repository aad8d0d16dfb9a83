"""EQRM: the quantile and its derivative, DomainBed's derivative, and the Adam that begins anew."""

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from hessalign.algorithms import get_algorithm
from hessalign.algorithms.eqrm import kernel_quantile
from tests.algorithms.test_objectives import mean_risk
from tests.algorithms.tiny import assert_objective, make_algorithm, make_batch, risks

RISKS = torch.tensor([0.3, 1.1, 0.45, 0.9], dtype=torch.float64)


def quantile(values, level: float) -> float:
    """By SciPy."""
    bandwidth = 1.06 * values.std(ddof=1) * len(values) ** -0.2
    return brentq(lambda q: norm.cdf((q - values) / bandwidth).mean() - level, -20, 20, xtol=1e-15)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.75, 0.99])
def test_quantile_and_derivative(level: float) -> None:
    values = RISKS.clone().requires_grad_()
    found = kernel_quantile(values, level)
    assert float(found.detach()) == pytest.approx(quantile(RISKS.numpy(), level), abs=1e-12)
    (slopes,) = torch.autograd.grad(found, values)
    step = 1e-6
    for index, slope in enumerate(slopes.tolist()):
        shift = torch.zeros(4, dtype=torch.float64)
        shift[index] = step
        above, below = (quantile((RISKS + sign * shift).numpy(), level) for sign in (1, -1))
        assert slope == pytest.approx((above - below) / (2 * step), abs=1e-7)


def domainbeds(values: Tensor, level: float) -> Tensor:
    """Bisection between the quantiles of the two outer kernels, differentiated as it is."""
    ordered = values.sort().values
    bandwidth = 1.06 * values.std() * len(values) ** -0.2
    ends = [
        torch.distributions.Normal(ordered[end], bandwidth).icdf(torch.tensor(level, dtype=torch.float64))
        for end in (0, -1)
    ]
    middle = 0.5 * (ends[0] + ends[1])
    for _ in range(32):
        below = torch.distributions.Normal(values, bandwidth).cdf(middle).mean()
        ends[int(below > level)] = middle
        middle = 0.5 * (ends[0] + ends[1])
    return middle


def test_domainbeds_derivative_is_that_of_the_two_outer_risks() -> None:
    values = RISKS.clone().requires_grad_()
    ours, theirs = kernel_quantile(values, 0.75, through_bisection=True), domainbeds(values, 0.75)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    slopes, others = (torch.autograd.grad(value, values)[0] for value in (ours, theirs))
    torch.testing.assert_close(slopes, others, rtol=0, atol=1e-7)
    right = torch.autograd.grad(kernel_quantile(values, 0.75), values)[0]
    assert (slopes - right).abs().max() > 0.1


@pytest.mark.parametrize("variant", ["paper", "domainbed"])
def test_mean_during_the_burn_in_and_the_quantile_after(variant: str) -> None:
    algorithm = make_algorithm("eqrm", burn_in_steps=2, quantile=0.6, variant=variant)
    batch = make_batch()
    assert_objective(algorithm, algorithm.objective(batch)[0], mean_risk(algorithm, batch))
    algorithm.steps_done = 2
    every = torch.stack(risks(algorithm, batch))
    expected = kernel_quantile(every, 0.6) if variant == "paper" else domainbeds(every, 0.6)
    found = algorithm.objective(batch)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    parameters = list(algorithm.parameters())
    for one, other in zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def seen_by_adam(variant: str, burn_in: float) -> list[tuple[int, float]]:
    """Steps that Adam counts, and its learning rate, in each of five updates."""
    algorithm = make_algorithm("eqrm", burn_in_steps=burn_in, late_lr=1e-4, lr=0.01, variant=variant)
    optimizers, seen = algorithm.make_optimizers(), []
    for _ in range(5):
        algorithm.update(make_batch(), optimizers)
        (group,) = optimizers["main"].param_groups
        seen.append((int(next(iter(optimizers["main"].state.values()))["step"]), group["lr"]))
    return seen


def test_adam_begins_anew_with_its_late_learning_rate_whatever_the_drawn_burn_in() -> None:
    """Every draw of the search is a fraction, with which the reference's comparison is never true."""
    anew = [(1, 0.01), (2, 0.01), (3, 0.01), (1, 1e-4), (2, 1e-4)]
    assert seen_by_adam("paper", 3.0) == seen_by_adam("paper", 3.7) == seen_by_adam("domainbed", 3.0) == anew
    assert seen_by_adam("domainbed", 3.7) == [(step, 0.01) for step in range(1, 6)]
    assert seen_by_adam("paper", 0.0)[0] == (1, 1e-4)


def test_the_quantile_sets_in_a_step_later_where_a_fraction_is_not_cut() -> None:
    for variant, first in (("paper", 3), ("domainbed", 4)):
        algorithm = make_algorithm("eqrm", burn_in_steps=3.7, variant=variant)
        started = []
        for step in range(6):
            algorithm.steps_done = step
            loss, metrics = algorithm.objective(make_batch())
            started.append(bool(loss != metrics["risk"]))
        assert started == [step >= first for step in range(6)]


def test_draws_of_the_burn_in_are_fractions() -> None:
    space = get_algorithm("eqrm").hparams_class.spaces("large")["burn_in_steps"]
    assert not space.search.whole


def test_equal_risks_have_a_quantile_and_a_derivative() -> None:
    values = torch.full((3,), 0.7, dtype=torch.float64, requires_grad=True)
    found = kernel_quantile(values, 0.9)
    assert float(found.detach()) == pytest.approx(0.7, abs=1e-6)
    (slopes,) = torch.autograd.grad(found, values)
    torch.testing.assert_close(slopes, torch.full((3,), 1 / 3, dtype=torch.float64))
