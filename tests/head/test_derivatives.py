"""Every closed form against torch.func in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

import hessalign as ha
from hessalign.head.losses import resolve_loss
from tests.cases import KINDS, Case, cases, make_case

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@given(cases())
def test_values_of_the_losses(case: Case) -> None:
    loss = resolve_loss(case.loss)
    found = loss.values(case.logits, loss.prepare_targets(case.logits, case.targets))
    torch.testing.assert_close(found, case.sample_losses(case.weight), **EXACT)


@given(cases())
def test_gradient(case: Case) -> None:
    expected = torch.func.grad(case.mean_loss)(case.weight)
    torch.testing.assert_close(case.derivatives().gradient(), expected, **EXACT)


@given(cases())
def test_hessian(case: Case) -> None:
    torch.testing.assert_close(case.derivatives().hessian(), case.dense_hessian(), **EXACT)


@given(cases())
def test_diagonal(case: Case) -> None:
    expected = case.dense_hessian().diagonal().view_as(case.weight)
    torch.testing.assert_close(case.derivatives().diagonal(), expected, **EXACT)


@given(cases(), st.integers(0, 3))
def test_hvp_of_one_and_of_several_vectors(case: Case, vectors: int) -> None:
    shape = case.weight.shape if vectors == 0 else (vectors, *case.weight.shape)
    v = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(vectors))
    gradient = torch.func.grad(case.mean_loss)
    expected = torch.stack(
        [torch.func.jvp(gradient, (case.weight,), (one,))[1] for one in v.reshape(-1, *case.weight.shape)]
    )
    torch.testing.assert_close(case.derivatives().hvp(v), expected.view(shape), **EXACT)


@given(cases())
def test_gradient_variance(case: Case) -> None:
    per_sample = torch.func.jacrev(case.sample_losses)(case.weight)
    expected = per_sample.var(0, unbiased=False)
    torch.testing.assert_close(case.derivatives().gradient_variance(), expected, rtol=1e-9, atol=1e-9)


@given(cases(min_samples=2), st.integers(1, 6))
def test_inner_product_of_two_domains(case: Case, first_size: int) -> None:
    first_size = min(first_size, len(case.features) - 1)
    indices = torch.arange(len(case.features))
    first, second = case.rows(indices[:first_size]), case.rows(indices[first_size:])
    expected = (first.dense_hessian() * second.dense_hessian()).sum()
    torch.testing.assert_close(first.derivatives().inner(second.derivatives()), expected, **EXACT)


def test_inner_product_of_different_losses() -> None:
    softmax, squared = make_case("cross_entropy", 5, 3, 2, 0), make_case("tanh", 4, 3, 2, 1)
    expected = (softmax.dense_hessian() * squared.dense_hessian()).sum()
    torch.testing.assert_close(softmax.derivatives().inner(squared.derivatives()), expected, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "quantity",
    [
        lambda d: d.gradient(),
        lambda d: d.hessian(),
        lambda d: d.diagonal(),
        lambda d: d.gradient_variance(),
        lambda d: d.hvp(torch.ones_like(d.gradient())),
        lambda d: d.inner(d),
    ],
    ids=["gradient", "hessian", "diagonal", "variance", "hvp", "inner"],
)
@pytest.mark.parametrize("rows_in_cache", [1024, 3])
def test_derivatives_with_respect_to_features_and_logits(
    kind: str, quantity, rows_in_cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hessalign.head.gram.ROWS_IN_CACHE", rows_in_cache)
    case = make_case(kind, 4, 3, 2, 0)

    def function(features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return quantity(ha.HeadDerivatives.from_logits(features, logits, case.targets, case.loss))

    assert gradcheck(
        function, (case.features.requires_grad_(), case.logits.detach().requires_grad_()), fast_mode=True
    )


@pytest.mark.parametrize("kind", ["cross_entropy", "tanh", "autograd"])
@pytest.mark.parametrize("rows_in_cache", [1024, 3])
def test_second_derivatives_and_function_transforms(
    kind: str, rows_in_cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hand-written backward passes can be differentiated again, and work under torch.func."""
    monkeypatch.setattr("hessalign.head.gram.ROWS_IN_CACHE", rows_in_cache)
    case = make_case(kind, 4, 3, 2, 0)
    derivatives = case.derivatives()

    def quantities(features: torch.Tensor) -> torch.Tensor:
        moved = ha.HeadDerivatives(features, derivatives.residual, derivatives.curvature)
        vector = torch.ones_like(derivatives.gradient())
        return torch.stack([moved.hvp(vector).sum(), moved.diagonal().sum(), moved.hessian().sum()])

    assert gradgradcheck(quantities, (case.features.requires_grad_(),), fast_mode=True)
    both = torch.stack([case.features, 2 * case.features]).detach()
    expected = torch.stack([quantities(both[0]), quantities(both[1])])
    torch.testing.assert_close(torch.vmap(quantities)(both), expected)
    jacobian = torch.autograd.functional.jacobian(quantities, both[0])
    torch.testing.assert_close(torch.func.jacrev(quantities)(both[0]), jacobian)


def test_single_logit_may_be_flat() -> None:
    case = make_case("binary_cross_entropy", 6, 3, 1, 0)
    flat = ha.HeadDerivatives.from_logits(
        case.features, case.logits.squeeze(1), case.targets.squeeze(1), "binary_cross_entropy"
    )
    torch.testing.assert_close(flat.hessian(), case.derivatives().hessian(), rtol=0, atol=0)


def test_split_gives_the_derivatives_of_the_parts() -> None:
    case = make_case("cross_entropy", 7, 3, 3, 0)
    first, second = case.derivatives().split([3, 4])
    indices = torch.arange(7)
    torch.testing.assert_close(first.hessian(), case.rows(indices[:3]).dense_hessian(), **EXACT)
    torch.testing.assert_close(second.hessian(), case.rows(indices[3:]).dense_hessian(), **EXACT)
    assert (len(first), len(second)) == (3, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    case = make_case("cross_entropy", 12, 4, 3, 0)
    features = case.features.to(dtype).requires_grad_()
    logits = case.logits.to(dtype).requires_grad_()
    derivatives = ha.HeadDerivatives.from_logits(features, logits, case.targets)
    exact = ha.HeadDerivatives.from_logits(features.double(), logits.double(), case.targets)
    assert derivatives.hessian().dtype == torch.float32
    torch.testing.assert_close(derivatives.hessian().double(), exact.hessian(), rtol=1e-5, atol=1e-6)
    derivatives.hessian().square().sum().backward()
    assert features.grad.dtype == logits.grad.dtype == dtype
    assert features.grad.isfinite().all()


FEATURES, LOGITS, TARGETS = torch.randn(4, 3), torch.randn(4, 2), torch.tensor([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FEATURES[:0], LOGITS[:0], TARGETS[:0]), "features: an empty domain"),
        ((FEATURES, LOGITS, TARGETS + 1), "targets: class ids must lie between 0 and 1 .* from 1 to 2"),
        ((FEATURES, LOGITS, TARGETS - 1), "targets: class ids must lie between 0 and 1 .* from -1 to 0"),
        ((FEATURES, LOGITS * float("nan"), TARGETS), "logits: all values must be finite"),
        ((FEATURES, LOGITS / 0, TARGETS), "logits: all values must be finite"),
        ((FEATURES * float("nan"), LOGITS, TARGETS), "features: all values must be finite"),
        ((FEATURES[:3], LOGITS, TARGETS), "features, logits and targets: must have one row for each sample"),
        ((FEATURES, LOGITS, TARGETS[:3]), "features, logits and targets: must have one row for each sample"),
        ((FEATURES[0], LOGITS, TARGETS), "features: must be a floating-point tensor of shape"),
        ((FEATURES.long(), LOGITS, TARGETS), "features: must be a floating-point tensor"),
        ((FEATURES, LOGITS.unsqueeze(0), TARGETS), "logits: must be a floating-point tensor"),
        ((FEATURES, LOGITS, TARGETS.float()), "targets: class ids must be integers"),
        ((FEATURES, LOGITS, LOGITS), "targets: .* must be probabilities"),
        ((FEATURES, LOGITS, torch.ones(4, 3)), "targets: cross_entropy takes .* of shape"),
        ((FEATURES, LOGITS[:, :1], TARGETS), "logits: cross_entropy needs at least 2 columns"),
        ((FEATURES, LOGITS, TARGETS, "binary_cross_entropy"), "targets: binary_cross_entropy takes"),
        ((FEATURES, LOGITS, 2 + LOGITS.abs(), "binary_cross_entropy"), "targets: .* between 0 and 1"),
        ((FEATURES, LOGITS, LOGITS * float("nan"), ha.SquaredError()), "targets: .* finite"),
        ((FEATURES, LOGITS, TARGETS, "hinge"), "loss: 'hinge' is not known; allowed are"),
    ],
)
def test_bad_input_is_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ha.HeadDerivatives.from_logits(*arguments)


def test_bad_vectors_and_partners_are_named() -> None:
    derivatives = ha.HeadDerivatives.from_logits(FEATURES, LOGITS, TARGETS)
    with pytest.raises(ValueError, match=r"v: the last two axes must be \(2, 4\)"):
        derivatives.hvp(torch.ones(2, 3))
    other = ha.HeadDerivatives.from_logits(FEATURES[:, :2], LOGITS, TARGETS)
    with pytest.raises(ValueError, match="domains: all must have the same numbers of features and outputs"):
        derivatives.inner(other)


def test_bad_activations_are_named() -> None:
    with pytest.raises(ValueError, match="activation: 'relu6' is not known; allowed are 'identity'"):
        ha.SquaredError("relu6")
    with pytest.raises(ValueError, match="activation: must work element-wise"):
        ha.HeadDerivatives.from_logits(FEATURES, LOGITS, LOGITS, ha.SquaredError(lambda a: a.sum(1)))
