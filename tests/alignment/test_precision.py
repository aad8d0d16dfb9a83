"""float32 against float64, where what a penalty measures is small beside what it is computed from."""

import pytest
import torch
from torch import Tensor

import hessalign as ha

PENALTIES = {
    "gradient": ha.HessianAlignment("gradient", beta=1.0),
    "hgp": ha.HessianAlignment("hgp", 1.0, 0.0),
    "hgp-attached": ha.HessianAlignment("hgp", 1.0, 0.0, detach_centre=False),
    "hgp-mean-product": ha.HessianAlignment("hgp", 1.0, 0.0, centre="mean_product"),
    "diagonal": ha.HessianAlignment("diagonal", 1.0, 0.0),
    "frobenius": ha.HessianAlignment("frobenius", 1.0, 0.0),
    "spectral": ha.HessianAlignment("spectral", 1.0, 0.0),
    "expected": ha.HessianAlignment("hutchinson", 1.0, 0.0, probes=100, expected=True),
    "gradient-unbiased": ha.HessianAlignment("gradient", beta=1.0, unbiased=True),
    "hgp-unbiased": ha.HessianAlignment("hgp", 1.0, 0.0, centre="mean_product", unbiased=True),
    "diagonal-unbiased": ha.HessianAlignment("diagonal", 1.0, 0.0, unbiased=True),
    "frobenius-unbiased": ha.HessianAlignment("frobenius", 1.0, 0.0, unbiased=True),
    "flat": ha.HessianFlatness(1.0),
    "flat-off": ha.HessianFlatness(1.0, "off_diagonal"),
}
SAMPLES, WIDTH, CLASSES = 200, 64, 5


def batch(shift: float, offset: float, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Two domains with the same targets, their features ``shift`` apart, in float32."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(SAMPLES, WIDTH, generator=generator)
    other = one + shift * torch.randn(SAMPLES, WIDTH, generator=generator)
    head = 0.1 * torch.randn(WIDTH, CLASSES, generator=generator)
    features, targets = torch.cat([one, other]), torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    return (features + offset) * scale, features @ head, targets.repeat(2)


def value_and_derivatives(penalty, features: Tensor, logits: Tensor, targets: Tensor) -> list[Tensor]:
    features, logits = features.requires_grad_(), logits.requires_grad_()
    value = penalty(features, logits, targets, torch.arange(2).repeat_interleave(SAMPLES))
    return [value.detach(), *torch.autograd.grad(value, (features, logits))]


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize(
    ("shift", "offset", "scale"),
    [(4e-4, 0, 1), (1e-3, 0, 1), (1.0, 100, 1), (1.0, 0, 1e-3), (1.0, 0, 1e3), (4e-4, 0, 1e3)],
)
def test_float32_agrees_with_float64(name: str, shift: float, offset: float, scale: float) -> None:
    given = batch(shift, offset, scale)
    exact = value_and_derivatives(PENALTIES[name], given[0].double(), given[1].double(), given[2])
    found = value_and_derivatives(PENALTIES[name], *(tensor.detach().clone() for tensor in given))
    for single, double in zip(found, exact, strict=True):
        assert single.dtype == torch.float32
        assert (single.double() - double).norm() <= 1e-4 * double.norm()
        assert double.norm() > 0


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
@pytest.mark.parametrize(("shift", "offset"), [(4e-4, 0), (1.0, 100)])
def test_distances_of_two_hessians(norm: str, shift: float, offset: float) -> None:
    features, logits, targets = batch(shift, offset, 1)
    distances = []
    for dtype in (torch.float32, torch.float64):
        both = ha.HeadDerivatives.from_logits(features.to(dtype), logits.to(dtype), targets)
        distances.append(float(ha.hessian_distance(*both.split([SAMPLES, SAMPLES]), norm)))
    assert distances[0] == pytest.approx(distances[1], rel=1e-4)


@pytest.mark.parametrize("offset", [0, 100])
def test_gradient_variance(offset: float) -> None:
    features, logits, targets = batch(1.0, offset, 1)
    found = ha.HeadDerivatives.from_logits(features, logits, targets).gradient_variance()
    exact = ha.HeadDerivatives.from_logits(features.double(), logits.double(), targets).gradient_variance()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)
