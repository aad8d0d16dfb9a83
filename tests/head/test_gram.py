"""Hand-written derivatives against autograd's of the plain formula, and what types they are computed in."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from hessalign.head.gram import (
    _WeightedSum,
    gram,
    hgp_products,
    squared_distances,
    squared_distances_to,
    squared_lengths,
    two_grams,
    weighted_gram,
    weighted_squares,
    weighted_sum,
)
from hessalign.head.losses import Curvature, DenseCurvature, DiagonalCurvature, SoftmaxCurvature

DOMAINS, SAMPLES, WIDTH, OUTPUTS = 3, 4, 5, 2
Formula = Callable[..., Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_()


def augmented(features: Tensor, bias: bool) -> Tensor:
    return F.pad(features, (0, 1), value=1.0) if bias else features


FEATURES = (DOMAINS, SAMPLES, WIDTH)
# The function, the plain formula, and the shapes of what both take.
SUMS: dict[str, tuple[Formula, Formula, list[tuple[int, ...]]]] = {
    "sum": (
        weighted_sum,
        lambda z, w, bias: w.mT @ augmented(z, bias),
        [FEATURES, (DOMAINS, SAMPLES, OUTPUTS)],
    ),
    "sum-of-two-types": (  # what weighted_sum does where features and weights differ in type
        _WeightedSum.apply,
        lambda z, w, bias: w.mT @ augmented(z, bias),
        [FEATURES, (DOMAINS, SAMPLES, OUTPUTS)],
    ),
    "squares": (
        weighted_squares,
        lambda z, w, bias: w.mT @ augmented(z, bias).square(),
        [FEATURES, (DOMAINS, SAMPLES, OUTPUTS)],
    ),
    "gram-of-features": (
        weighted_gram,
        lambda z, w, bias: augmented(z, bias).mT @ (w.unsqueeze(-1) * augmented(z, bias)),
        [FEATURES, (DOMAINS, SAMPLES)],
    ),
    "gram": (
        gram,
        lambda z, bias: augmented(z, bias) @ augmented(z, bias).mT,
        [(SAMPLES, WIDTH)],
    ),
    "gram-of-squares": (
        lambda z, bias: gram(z, bias, squares=True),
        lambda z, bias: augmented(z, bias).square() @ augmented(z, bias).square().mT,
        [(SAMPLES, WIDTH)],
    ),
    "one-sided": (
        lambda z, bias: two_grams(z, bias)[1],
        lambda z, bias: augmented(z, bias) @ augmented(z, bias).detach().mT,
        [(SAMPLES, WIDTH)],
    ),
    "lengths": (
        lambda z, bias: squared_lengths(z, bias, torch.float64),
        lambda z, bias: augmented(z, bias).square().sum(-1),
        [FEATURES],
    ),
    "lengths-of-squares": (
        lambda z, bias: squared_lengths(z, bias, torch.float64, squares=True),
        lambda z, bias: augmented(z, bias).square().square().sum(-1),
        [FEATURES],
    ),
    "distances": (
        lambda v, _bias: torch.stack(squared_distances(v)),
        lambda v, _bias: torch.stack([(v - v.mean(0)).square().sum(1), v.square().sum(1)]),
        [(DOMAINS, WIDTH)],
    ),
    "distances-to": (
        lambda v, c, _bias: squared_distances_to(v, c),
        lambda v, c, _bias: (v - c).square().sum(1),
        [(DOMAINS, WIDTH), (WIDTH,)],
    ),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_derivatives_are_those_of_the_formula(name: str, bias: bool) -> None:
    function, formula, shapes = SUMS[name]
    given = [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    found, expected = function(*given, bias), formula(*given, bias)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    weights = random(*expected.shape, seed=9).detach()
    slopes = [torch.autograd.grad((value * weights).sum(), given) for value in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)
    batched = torch.vmap(lambda *each: function(*each, bias))(*(torch.stack([v, 2 * v]) for v in given))
    torch.testing.assert_close(batched[1], function(*(2 * v for v in given), bias), rtol=1e-13, atol=1e-13)
    if name != "one-sided":  # whose constant factor a numerical derivative moves, too
        assert gradgradcheck(lambda *each: function(*each, bias), given, fast_mode=True)


@pytest.mark.parametrize("name", ["sum", "squares", "gram-of-features", "lengths", "lengths-of-squares"])
def test_float32_features_have_float64_sums_and_derivatives_of_their_own_type(name: str) -> None:
    function, _, shapes = SUMS[name]
    given = [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    single = given[0].detach().float().requires_grad_()
    double = single.detach().double().requires_grad_()
    found, expected = function(single, *given[1:], True), function(double, *given[1:], True)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    (slope,), (exact,) = (
        torch.autograd.grad(value.sum(), z) for value, z in ((found, single), (expected, double))
    )
    assert slope.dtype == torch.float32
    torch.testing.assert_close(slope.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sum", "sum-of-two-types", "distances"])
def test_forward_mode(name: str) -> None:
    function, formula, shapes = SUMS[name]
    given = tuple(random(*shape, seed=seed).detach() for seed, shape in enumerate(shapes))
    tangents = tuple(random(*shape, seed=5 + seed).detach() for seed, shape in enumerate(shapes))
    found, expected = (
        torch.func.jvp(partial(lambda rule, *each: rule(*each, True), rule), given, tangents)[1]
        for rule in (function, formula)
    )
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


CURVATURES: dict[str, Callable[[Tensor], Curvature]] = {
    "diagonal": DiagonalCurvature,
    "softmax": lambda values: SoftmaxCurvature(values.softmax(1)),
    "dense": lambda values: DenseCurvature(values.unsqueeze(2) * values.unsqueeze(1)),
}


@pytest.mark.parametrize("kind", CURVATURES)
def test_curvature_pulls_back(kind: str) -> None:
    curvature = CURVATURES[kind](random(SAMPLES, OUTPUTS))
    vectors, slopes = random(SAMPLES, 3, OUTPUTS, seed=1), random(SAMPLES, 3, OUTPUTS, seed=2)
    (expected,) = torch.autograd.grad((curvature.apply(vectors) * slopes).sum(), curvature.values)
    torch.testing.assert_close(curvature.pull_back(vectors, slopes), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", CURVATURES)
def test_rows_of_curvatures_are_those_of_the_matrices(kind: str) -> None:
    curvature = CURVATURES[kind](random(SAMPLES, OUTPUTS))
    found = curvature.rows(range(1, OUTPUTS))
    expected = curvature.dense().transpose(0, 1)[1:]
    torch.testing.assert_close(found, expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("kind", CURVATURES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("centre", ["mean_loss", "detached", "mean_product"])
def test_hgp_products(kind: str, bias: bool, weighted: bool, centre: str) -> None:
    """Two blocks of domains of different sizes; shares have a derivative, too, where they are a tensor."""
    sizes = [(2, 3), (1, 4)]
    features = [random(*size, WIDTH, seed=n) for n, size in enumerate(sizes)]
    logits = [random(*size, OUTPUTS, seed=2 + n) for n, size in enumerate(sizes)]
    residuals = [random(*size, OUTPUTS, seed=4 + n) for n, size in enumerate(sizes)]
    shares = [random(*size, 1, seed=6 + n) if weighted else 1 / size[1] for n, size in enumerate(sizes)]
    with_mean = centre != "mean_product"

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        curvatures = [CURVATURES[kind](values.flatten(0, 1)) for values in given[2:4]]
        return hgp_products(
            given[:2],
            given[4:6],
            curvatures,
            given[6:] or shares,
            torch.float64,
            bias,
            with_mean,
            centre == "detached",
        )

    def formula(*given: Tensor) -> tuple[Tensor, ...]:
        own_shares = given[6:] or shares
        domains = [(block, row) for block, (count, _) in enumerate(sizes) for row in range(count)]
        gradients, hessians = [], []
        for block, row in domains:
            z, share = augmented(given[block][row], bias), own_shares[block]
            a = share[row] if weighted else torch.full((len(z), 1), share, dtype=torch.float64)
            gradients.append((a * given[4 + block][row]).mT @ z)
            dense = CURVATURES[kind](given[2 + block][row]).dense()
            hessians.append(torch.einsum("icd,ij,ik,il->cjdk", dense, z, z, a))
        mean = torch.stack(gradients).mean(0)
        own = [torch.einsum("cjdk,dk->cj", h, g) for h, g in zip(hessians, gradients, strict=True)]
        middle = torch.einsum("cjdk,dk->cj", torch.stack(hessians).mean(0), mean)
        middle = middle if with_mean else torch.zeros_like(middle)
        return torch.stack(gradients), torch.stack(own), middle.detach() if centre == "detached" else middle

    given = [*features, *logits, *residuals, *(shares if weighted else [])]
    found, expected = function(*given), formula(*given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = [random(*value.shape, seed=10 + n).detach() for n, value in enumerate(expected)]

    def slopes(values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        total = sum((value * weight).sum() for value, weight in zip(values, weights, strict=True))
        return torch.autograd.grad(total, given)

    torch.testing.assert_close(slopes(found), slopes(expected), rtol=1e-11, atol=1e-11)
    if centre == "mean_loss":
        assert gradcheck(function, given, fast_mode=True)
    if kind == "softmax" and centre == "mean_loss":
        assert gradgradcheck(function, given, fast_mode=True)
