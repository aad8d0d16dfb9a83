"""Distances between Hessians against dense norms."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

import hessalign as ha
from hessalign.exceptions import UntrustworthyWarning
from hessalign.head import spectral_norm
from tests.cases import Case, cases, make_case


def two_domains(case: Case) -> tuple[Case, Case]:
    half = len(case.features) // 2
    indices = torch.arange(len(case.features))
    return case.rows(indices[:half]), case.rows(indices[half:])


@given(cases(min_samples=2))
def test_frobenius_distance(case: Case) -> None:
    first, second = two_domains(case)
    expected = torch.linalg.matrix_norm(first.dense_hessian() - second.dense_hessian())
    distance = ha.hessian_distance(first.derivatives(), second.derivatives(), "frobenius")
    torch.testing.assert_close(distance, expected, rtol=1e-6, atol=1e-6)  # a difference of squares
    torch.testing.assert_close(distance.square(), expected.square(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("apart", [1e-5, 1e-7, 1e-9])
@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy"])
def test_distances_of_nearly_equal_domains_keep_their_digits(kind: str, apart: float) -> None:
    case = make_case(kind, 30, 12, 3, 0)
    moved = Case(
        case.features + apart * torch.randn(30, 12, dtype=torch.float64),
        case.weight,
        case.targets,
        case.loss,
        case.sample_loss,
    )
    difference = torch.linalg.matrix_norm(case.dense_hessian() - moved.dense_hessian())
    for norm, order in (("frobenius", "fro"), ("spectral", 2)):
        expected = torch.linalg.matrix_norm(case.dense_hessian() - moved.dense_hessian(), ord=order)
        distance = ha.hessian_distance(case.derivatives(), moved.derivatives(), norm)
        # The Hessians themselves are rounded, here and there.
        torch.testing.assert_close(distance, expected, rtol=1e-5, atol=1e-14)
    assert difference > 0


@given(cases(min_samples=2))
def test_spectral_distance(case: Case) -> None:
    first, second = two_domains(case)
    expected = torch.linalg.matrix_norm(first.dense_hessian() - second.dense_hessian(), ord=2)
    distance = ha.hessian_distance(first.derivatives(), second.derivatives(), "spectral")
    torch.testing.assert_close(distance, expected, rtol=1e-10, atol=1e-10)


@given(st.integers(1, 60), st.integers(0, 2**20))
def test_spectral_norm_of_any_symmetric_matrix(size: int, seed: int) -> None:
    matrix = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    matrix = matrix + matrix.T
    found = spectral_norm(lambda v: matrix @ v, like=matrix[0])
    torch.testing.assert_close(found, torch.linalg.matrix_norm(matrix, ord=2), rtol=1e-10, atol=1e-10)


def test_spectral_norm_warns_where_it_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hessalign.head.spectrum.MAX_LANCZOS_STEPS", 3)
    spread = torch.linspace(1, 2, 50, dtype=torch.float64)
    with pytest.warns(UntrustworthyWarning, match="did not converge in 3 Lanczos steps"):
        spectral_norm(lambda v: spread * v, like=spread)


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "tanh", "autograd"])
def test_distances_are_differentiable(norm: str, kind: str) -> None:
    case = make_case(kind, 6, 3, 2, 3)

    def distance(features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        both = ha.HeadDerivatives.from_logits(features, logits, case.targets, case.loss)
        return ha.hessian_distance(*both.split([2, 4]), norm)

    assert gradcheck(
        distance, (case.features.requires_grad_(), case.logits.detach().requires_grad_()), fast_mode=True
    )


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_equal_hessians_have_distance_and_derivative_zero(norm: str) -> None:
    case = make_case("cross_entropy", 5, 3, 3, 0)
    features = case.features.requires_grad_()
    derivatives = ha.HeadDerivatives.from_logits(features, case.logits, case.targets)
    distance = ha.hessian_distance(derivatives, derivatives, norm)
    distance.backward()
    assert distance == 0
    assert (features.grad == 0).all()


def test_unknown_norm_is_named() -> None:
    derivatives = make_case("cross_entropy", 5, 3, 3, 0).derivatives()
    with pytest.raises(ValueError, match="norm: 'nuclear' is not known; allowed are 'frobenius'"):
        ha.hessian_distance(derivatives, derivatives, "nuclear")


WIDE_HEAD = """
import resource, torch, hessalign as ha
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def domain(n):
    features, logits = torch.randn(n, 2048, requires_grad=True), torch.randn(n, 65, requires_grad=True)
    return ha.HeadDerivatives.from_logits(features, logits, torch.randint(0, 65, (n,)))
domain(2)
before = peak()
ha.hessian_distance(domain(32), domain(32)).backward()
for penalty in ha.HessianAlignment("frobenius"), ha.HessianAlignment("hutchinson", probes=300, expected=True):
    penalty.from_derivatives([domain(32), domain(32)]).backward()
ha.hessian_distance(domain(32), domain(32), "spectral")
print((peak() - before) * 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss counts KiB on Linux only")
def test_a_wide_head_needs_no_memory_for_its_hessian() -> None:
    """At C = 65, d = 2048 one Hessian in float32 would take 71 GB."""
    result = subprocess.run([sys.executable, "-c", WIDE_HEAD], capture_output=True, text=True, check=True)
    parameters = 65 * 2049
    assert int(result.stdout) < 4 * parameters**2 / 100
    assert int(result.stdout) < 512 * 2**20
