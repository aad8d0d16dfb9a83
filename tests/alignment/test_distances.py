"""Every distance against Hessians formed by torch.func, and every penalty's derivative."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

import hessalign as ha
from hessalign.alignment import (
    diagonal_distances,
    expected_hutchinson_distances,
    frobenius_distances,
    gradient_distances,
    hessian_squares,
    hgp_distances,
    sampled_hutchinson_distances,
    spectral_distances,
)
from tests.cases import KINDS, Case, cases, make_case

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def three_domains(case: Case) -> list[Case]:
    """Of one, two and the remaining samples."""
    indices = torch.arange(len(case.features))
    return [case.rows(indices[:1]), case.rows(indices[1:3]), case.rows(indices[3:])]


def gradients_and_hessians(domains: list[Case]) -> tuple[Tensor, Tensor]:
    gradients = [torch.func.grad(domain.mean_loss)(domain.weight).flatten() for domain in domains]
    return torch.stack(gradients), torch.stack([domain.dense_hessian() for domain in domains])


def squared(vectors: Tensor) -> Tensor:
    return vectors.square().flatten(1).sum(1)


def off(hessian: Tensor) -> Tensor:
    return hessian.square().sum() - hessian.diagonal().square().sum()


domain_cases = cases(min_samples=4, max_samples=8)


@given(domain_cases)
def test_gradient_distances(case: Case) -> None:
    domains = three_domains(case)
    gradients, _ = gradients_and_hessians(domains)
    found = gradient_distances([domain.derivatives() for domain in domains])
    torch.testing.assert_close(found, squared(gradients - gradients.mean(0)), **EXACT)


@given(domain_cases)
def test_hgp_distances_with_the_centre_of_the_mean_loss(case: Case) -> None:
    domains = three_domains(case)
    gradients, hessians = gradients_and_hessians(domains)
    own = torch.stack([hessian @ gradient for hessian, gradient in zip(hessians, gradients, strict=True)])
    centre = hessians.mean(0) @ gradients.mean(0)
    found = hgp_distances([domain.derivatives() for domain in domains], centre="mean_loss")
    torch.testing.assert_close(found, squared(own - centre), **EXACT)


@given(domain_cases)
def test_hgp_distances_with_the_centre_of_the_products(case: Case) -> None:
    domains = three_domains(case)
    gradients, hessians = gradients_and_hessians(domains)
    own = torch.stack([hessian @ gradient for hessian, gradient in zip(hessians, gradients, strict=True)])
    found = hgp_distances([domain.derivatives() for domain in domains], centre="mean_product")
    torch.testing.assert_close(found, squared(own - own.mean(0)), **EXACT)


@given(domain_cases)
def test_diagonal_distances(case: Case) -> None:
    domains = three_domains(case)
    _, hessians = gradients_and_hessians(domains)
    diagonals = hessians.diagonal(dim1=1, dim2=2)
    found = diagonal_distances([domain.derivatives() for domain in domains])
    torch.testing.assert_close(found, squared(diagonals - diagonals.mean(0)), **EXACT)


@given(domain_cases)
def test_frobenius_distances(case: Case) -> None:
    domains = three_domains(case)
    _, hessians = gradients_and_hessians(domains)
    found = frobenius_distances([domain.derivatives() for domain in domains])
    torch.testing.assert_close(found, squared(hessians - hessians.mean(0)), rtol=1e-9, atol=1e-9)


@given(domain_cases)
def test_spectral_distances(case: Case) -> None:
    domains = three_domains(case)
    _, hessians = gradients_and_hessians(domains)
    expected = torch.linalg.matrix_norm(hessians - hessians.mean(0), ord=2).square()
    found = spectral_distances([domain.derivatives() for domain in domains])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@given(domain_cases, st.integers(1, 5))
def test_sampled_hutchinson_is_the_estimate_it_claims_to_be(case: Case, probes: int) -> None:
    domains = three_domains(case)
    _, hessians = gradients_and_hessians(domains)
    generator = torch.Generator().manual_seed(5)

    def estimate(hessian: Tensor, signs: Tensor) -> Tensor:
        return (signs * (signs @ hessian)).mean(0)

    def draw() -> Tensor:
        bits = torch.randint(0, 2, (probes, *case.weight.shape), generator=generator)
        return (2 * bits - 1).double().flatten(1)

    centre = estimate(hessians.mean(0), draw())
    expected = torch.stack([estimate(hessian, draw()) - centre for hessian in hessians])
    derivatives = [domain.derivatives() for domain in domains]
    found = sampled_hutchinson_distances(derivatives, probes, torch.Generator().manual_seed(5))
    torch.testing.assert_close(found, squared(expected), **EXACT)


@given(domain_cases, st.integers(1, 300))
def test_expected_hutchinson_against_dense_hessians(case: Case, probes: int) -> None:
    domains = three_domains(case)
    _, hessians = gradients_and_hessians(domains)
    diagonals = hessians.diagonal(dim1=1, dim2=2)
    noise = torch.stack([off(hessian) + off(hessians.mean(0)) for hessian in hessians]) / probes
    found = expected_hutchinson_distances([domain.derivatives() for domain in domains], probes)
    torch.testing.assert_close(found, squared(diagonals - diagonals.mean(0)) + noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "detach_centre"),
    [
        ("cross_entropy", False),
        pytest.param("cross_entropy", True, marks=pytest.mark.slow),
        pytest.param("binary_cross_entropy", False, marks=pytest.mark.slow),
        pytest.param("binary_cross_entropy", True, marks=pytest.mark.slow),
        pytest.param("tanh", False, marks=pytest.mark.slow),
        ("tanh", True),
    ],
)
def test_expected_hutchinson_is_the_mean_of_sampled_draws(kind: str, detach_centre: bool) -> None:
    """Values and derivatives: the mean of 2,000 draws within five standard errors, and errors below 3 %."""
    case = make_case(kind, 9, 3, 3, 1)
    generator = torch.Generator().manual_seed(0)
    features = case.features.requires_grad_()
    batch = ha.HeadDerivatives.from_logits(features, case.logits.detach(), case.targets, case.loss)
    domains = batch.split([2, 3, 4])

    def value_and_derivative(distances) -> Tensor:
        total = distances(domains).sum()
        (derivative,) = torch.autograd.grad(total, features, retain_graph=True)
        return torch.cat([total.reshape(1), derivative.flatten()]).detach()

    draws = torch.stack(
        [
            value_and_derivative(lambda d: sampled_hutchinson_distances(d, 2, generator, detach_centre))
            for _ in range(2000)
        ]
    )
    expected = value_and_derivative(lambda d: expected_hutchinson_distances(d, 2, detach_centre))
    standard_error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - expected).abs() < 5 * standard_error + 1e-12).all()
    assert standard_error[0] < 0.03 * expected[0]


@given(domain_cases)
def test_hessian_squares_against_dense_hessians(case: Case) -> None:
    domains = three_domains(case)
    _, hessians = gradients_and_hessians(domains)
    derivatives = [domain.derivatives() for domain in domains]
    torch.testing.assert_close(hessian_squares(derivatives), squared(hessians), **EXACT)
    found = hessian_squares(derivatives, "off_diagonal")
    torch.testing.assert_close(found, torch.stack([off(hessian) for hessian in hessians]), **EXACT)


DISTANCES = {
    "gradient": gradient_distances,
    "hgp": hgp_distances,
    "hgp-mean-product": lambda d: hgp_distances(d, "mean_product"),
    "diagonal": diagonal_distances,
    "frobenius": frobenius_distances,
    "spectral": spectral_distances,
    "flatness": hessian_squares,
    "off-diagonal-flatness": lambda d: hessian_squares(d, "off_diagonal"),
    "expected-hutchinson": lambda d: expected_hutchinson_distances(d, 4),
    "sampled-hutchinson": lambda d: sampled_hutchinson_distances(d, 4, torch.Generator().manual_seed(0)),
}


@pytest.mark.no_cover  # the distances themselves are measured
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DISTANCES)
def test_distances_are_differentiable(name: str, kind: str) -> None:
    case = make_case(kind, 7, 3, 2, 2)

    def distances(features: Tensor, logits: Tensor) -> Tensor:
        batch = ha.HeadDerivatives.from_logits(features, logits, case.targets, case.loss)
        return DISTANCES[name](batch.split([1, 2, 4]))

    assert gradcheck(
        distances, (case.features.requires_grad_(), case.logits.detach().requires_grad_()), fast_mode=True
    )


NOT_DISTANCES = {"sampled-hutchinson", "expected-hutchinson", "flatness", "off-diagonal-flatness"}


@pytest.mark.parametrize("name", sorted(set(DISTANCES) - NOT_DISTANCES))
def test_equal_domains_have_no_distance(name: str) -> None:
    case = make_case("cross_entropy", 5, 3, 3, 0)
    distances = DISTANCES[name]([case.derivatives(), case.derivatives()])
    torch.testing.assert_close(distances, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-15)
