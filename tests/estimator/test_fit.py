"""Fitted heads: stationary points of the documented objective, whatever the order of the samples."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import scale
from torch import Tensor

import hessalign as ha
from hessalign.estimator.objective import HeadData, Objective
from tests.cases import SQUARED, sigmoid_loss, softmax_loss, squared_loss
from tests.estimator.samples import Samples, coloured, shifted_classes, shifted_line

PROBES = 7
ALIGNMENTS = ["gradient", "hgp", "hutchinson", "diagonal", "frobenius", "spectral"]


def dense_distance(
    method: str, hessian: Tensor, mean: Tensor, gradient: Tensor, mean_gradient: Tensor
) -> Tensor:
    """The documented Hessian distance of a domain, from whole Hessians."""
    difference = hessian - mean
    off = sum(h.square().sum() - h.diagonal().square().sum() for h in (hessian, mean))
    return {
        "none": lambda: torch.zeros(()),
        "gradient": lambda: torch.zeros(()),
        "hgp": lambda: (hessian @ gradient - mean @ mean_gradient).square().sum(),
        "diagonal": lambda: difference.diagonal().square().sum(),
        "hutchinson": lambda: difference.diagonal().square().sum() + off / PROBES,
        "frobenius": lambda: difference.square().sum(),
        "spectral": lambda: torch.linalg.eigvalsh(difference).abs().max().square(),
    }[method]()


def dense_objective(
    samples: Samples,
    method: str,
    alpha: float,
    beta: float,
    decay: float,
    sample_loss: Callable,
    intercept: bool = True,
) -> Callable[[Tensor], Tensor]:
    """What the docstrings say is minimised, by torch.func on whole Hessians, as a function of ``[W | b]``."""
    features, targets = torch.from_numpy(samples.X), torch.from_numpy(samples.y)

    def mean_loss(weight: Tensor, chosen: Tensor) -> Tensor:
        logits = features[chosen] @ weight[:, :-1].T + weight[:, -1]
        return torch.vmap(sample_loss)(logits, targets[chosen]).mean()

    def objective(weight: Tensor) -> Tensor:
        everything = torch.arange(len(targets))
        value = mean_loss(weight, everything) + decay / 2 * weight[:, :-1].square().sum()
        if method == "none":
            return value
        members = [torch.from_numpy(np.flatnonzero(samples.domains == d)) for d in np.unique(samples.domains)]
        aligned = torch.ones_like(weight, dtype=torch.bool)
        aligned[:, -1] = intercept
        aligned = aligned.flatten()
        gradients = [torch.func.grad(mean_loss)(weight, chosen).flatten()[aligned] for chosen in members]
        size = weight.numel()
        hessians = [torch.func.hessian(mean_loss)(weight, chosen).reshape(size, size) for chosen in members]
        hessians = [hessian[aligned][:, aligned] for hessian in hessians]
        mean_gradient, mean = torch.stack(gradients).mean(0), torch.stack(hessians).mean(0)
        distances = [
            alpha * dense_distance(method, hessian, mean, gradient, mean_gradient)
            + beta * (gradient - mean_gradient).square().sum()
            for gradient, hessian in zip(gradients, hessians, strict=True)
        ]
        return value + torch.stack(distances).mean()

    return objective


def fitted_head(estimator) -> Tensor:
    head = np.column_stack([np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)])
    return torch.from_numpy(head)


def assert_stationary(estimator, objective: Callable[[Tensor], Tensor]) -> None:
    head = fitted_head(estimator)
    gradient = torch.func.grad(objective)(head)
    if not estimator.fit_intercept:
        gradient = gradient[:, :-1]
    assert estimator.converged_
    assert gradient.abs().max() < 1e-7
    assert gradient.abs().max() == pytest.approx(estimator.gradient_norm_, abs=1e-10)
    assert float(objective(head)) == pytest.approx(estimator.objective_, rel=1e-10)
    assert estimator.loss_ + estimator.penalty_ <= estimator.objective_


@pytest.mark.parametrize("method", ["none", *ALIGNMENTS])
@pytest.mark.parametrize("classes", [2, 3])
def test_classifier_ends_where_the_documented_objective_is_flat(method: str, classes: int) -> None:
    samples = shifted_classes(classes=classes)
    # Heavier weights end at a kink of the spectral norm, where no gradient vanishes.
    alpha, beta = (0.3, 0.2) if method == "spectral" else (2.0, 3.0)
    classifier = ha.HessianAlignedClassifier(method, alpha=alpha, beta=beta, C=0.5, probes=PROBES)
    classifier.fit(samples.X, samples.y, sample_domain=samples.domains)
    if classes == 2:
        samples = Samples(samples.X, samples.y[:, None].astype(float), samples.domains)
    sample_loss = sigmoid_loss if classes == 2 else softmax_loss
    decay = 1 / (0.5 * len(samples.X))
    assert_stationary(classifier, dense_objective(samples, method, alpha, beta, decay, sample_loss))


@pytest.mark.parametrize("method", ["none", *ALIGNMENTS])
@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
def test_regressor_ends_where_the_documented_objective_is_flat(method: str, activation: str) -> None:
    samples = shifted_line()
    outputs = np.column_stack([samples.y, 0.3 * samples.y**2])
    samples = Samples(samples.X, outputs / np.abs(outputs).max(), samples.domains)
    regressor = ha.HessianAlignedRegressor(
        method, alpha=0.2, beta=0.3, activation=activation, l2=2.0, probes=PROBES, max_iter=5000
    )
    regressor.fit(samples.X, samples.y, sample_domain=samples.domains)
    sample_loss = squared_loss(SQUARED[activation])
    decay = 2 / len(samples.X)
    assert_stationary(regressor, dense_objective(samples, method, 0.2, 0.3, decay, sample_loss))


def test_without_an_intercept_the_rest_is_stationary() -> None:
    samples = shifted_classes()
    classifier = ha.HessianAlignedClassifier("diagonal", 2.0, 3.0, fit_intercept=False)
    classifier.fit(samples.X, samples.y, sample_domain=samples.domains)
    assert (classifier.intercept_ == 0).all()
    objective = dense_objective(samples, "diagonal", 2.0, 3.0, 1 / len(samples.X), softmax_loss, False)
    assert_stationary(classifier, objective)


def test_the_other_centre_of_hgp_has_another_solution() -> None:
    samples = shifted_classes()
    heads = []
    for centre in ("mean_loss", "mean_product"):
        classifier = ha.HessianAlignedClassifier("hgp", 5.0, 0.0, centre=centre)
        heads.append(fitted_head(classifier.fit(samples.X, samples.y, samples.domains)))
    assert (heads[0] - heads[1]).abs().max() > 1e-3


@pytest.mark.parametrize("load", [load_iris, load_digits])
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("strength", [0.1, 1.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_without_alignment_it_is_logistic_regression(
    load: Callable, classes: int, strength: float, fit_intercept: bool
) -> None:
    X, y = load(return_X_y=True)
    X, y = scale(X[y < classes]), y[y < classes]
    domains = np.arange(len(y)) % 3
    expected = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000, fit_intercept=fit_intercept).fit(
        X, y
    )
    found = ha.HessianAlignedClassifier("hgp", 0.0, 0.0, C=strength, fit_intercept=fit_intercept)
    found.fit(X, y, sample_domain=domains)
    assert found.converged_
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-4)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, atol=1e-4)
    nearly = ha.HessianAlignedClassifier("hgp", 1e-9, 1e-9, C=strength, fit_intercept=fit_intercept)
    nearly.fit(X, y, sample_domain=domains)
    np.testing.assert_allclose(nearly.coef_, expected.coef_, atol=1e-4)


@pytest.mark.parametrize("l2", [0.3, 20.0])
@pytest.mark.parametrize("outputs", [1, 2])
def test_without_alignment_it_is_ridge_regression(l2: float, outputs: int) -> None:
    X, y = load_diabetes(return_X_y=True)
    X, y = scale(X), scale(y)
    if outputs == 2:
        y = np.column_stack([y, y**2])
    expected = Ridge(alpha=l2).fit(X, y)
    found = ha.HessianAlignedRegressor("hgp", 0.0, 0.0, l2=l2).fit(X, y, np.arange(len(y)) % 2)
    assert found.coef_.shape == expected.coef_.shape
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-6)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, atol=1e-6)
    np.testing.assert_allclose(found.predict(X), expected.predict(X), atol=1e-6)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), method=st.sampled_from(["gradient", "hgp", "hutchinson", "frobenius"]))
def test_order_of_samples_and_names_of_domains_do_not_matter(seed: int, method: str) -> None:
    samples = shifted_classes(seed=seed % 7)
    fitted = ha.HessianAlignedClassifier(method, 1.0, 1.0).fit(samples.X, samples.y, samples.domains)
    random = np.random.default_rng(seed)
    shuffled = samples.rows(random.permutation(len(samples.y)))
    names = random.permutation(np.array(["clinic", "field", "école"]))[shuffled.domains]
    again = ha.HessianAlignedClassifier(method, 1.0, 1.0).fit(shuffled.X, shuffled.y, names)
    np.testing.assert_allclose(again.coef_, fitted.coef_, atol=1e-5)
    np.testing.assert_allclose(again.intercept_, fitted.intercept_, atol=1e-5)
    assert again.domains_.tolist() == ["clinic", "field", "école"]


@pytest.mark.parametrize("method", ALIGNMENTS)
def test_alignment_brings_the_domains_together(method: str) -> None:
    samples = shifted_classes(samples=300)
    differences = []
    for weight in (0.0, 0.1, 0.3) if method == "spectral" else (0.0, 30.0, 3000.0):
        classifier = ha.HessianAlignedClassifier(method, weight, weight, probes=PROBES)
        classifier.fit(samples.X, samples.y, samples.domains)
        head = fitted_head(classifier)
        features = torch.from_numpy(samples.X)
        logits = features @ head[:, :-1].T + head[:, -1]
        penalty = ha.HessianAlignment(
            method, 1.0, 1.0, **({"probes": PROBES, "expected": True} if method == "hutchinson" else {})
        )
        y, domains = torch.from_numpy(samples.y), torch.from_numpy(samples.domains)
        differences.append(penalty(features, logits, y, domains).item())
    assert differences[2] < differences[1] < differences[0]
    assert method == "spectral" or differences[2] < 0.5 * differences[0]


@pytest.mark.parametrize("method", ["gradient", "hgp", "hutchinson", "diagonal", "frobenius"])
def test_an_unseen_domain_gains_where_colour_misleads(method: str) -> None:
    samples = coloured([0.8, 0.9, 0.1], samples=1000)
    source, target = samples.rows(samples.domains < 2), samples.rows(samples.domains == 2)
    plain = LogisticRegression().fit(source.X, source.y)
    aligned = ha.HessianAlignedClassifier(method, 1e3, 1e3).fit(source.X, source.y, source.domains)
    assert plain.score(target.X, target.y) < 0.3
    assert aligned.score(target.X, target.y) > plain.score(target.X, target.y) + 0.15
    assert aligned.score(source.X, source.y) < plain.score(source.X, source.y)


def test_auto_finds_the_weight_that_helps_held_out_domains() -> None:
    samples = coloured([0.9, 0.5, 0.1], samples=300)
    names = np.array(["a", "b", "c"])[samples.domains]
    found = ha.HessianAlignedClassifier("gradient", beta="auto").fit(samples.X, samples.y, names)
    tried = found.auto_results_
    assert tried["scores"].shape == tried["converged"].shape == (len(tried["beta"]), 3)
    assert found.beta_ == tried["beta"][tried["mean_score"].argmax()] > 0
    assert found.alpha_ == 0
    for row, beta in ((0, 0.0), (5, 100.0)):
        assert tried["beta"][row] == beta
        rest, held_out = samples.rows(names != "b"), samples.rows(names == "b")
        fold = ha.HessianAlignedClassifier("gradient", beta=beta).fit(rest.X, rest.y, rest.domains)
        assert tried["scores"][row, 1] == pytest.approx(fold.score(held_out.X, held_out.y))
    same = ha.HessianAlignedClassifier("gradient", beta=found.beta_).fit(samples.X, samples.y, names)
    assert (same.coef_ == found.coef_).all()
    found.set_params(beta=1.0).fit(samples.X, samples.y, names)
    assert not hasattr(found, "auto_results_")


def test_auto_tries_alpha_with_the_beta_it_chose() -> None:
    samples = shifted_line(samples=60)
    found = ha.HessianAlignedRegressor("hgp", "auto", "auto", max_iter=5000)
    found.fit(samples.X, samples.y, samples.domains)
    tried = found.auto_results_
    half = len(tried["beta"]) // 2
    assert (tried["alpha"][:half] == 0).all()
    assert (tried["beta"][half:] == found.beta_).all()
    assert found.beta_ == tried["beta"][tried["mean_score"][:half].argmax()]
    assert found.alpha_ == tried["alpha"][half + tried["mean_score"][half:].argmax()]
    rest, held_out = samples.rows(samples.domains != 0), samples.rows(samples.domains == 0)
    plain = ha.HessianAlignedRegressor("none").fit(rest.X, rest.y)
    error = np.square(plain.predict(held_out.X) - held_out.y).mean()
    assert tried["scores"][0, 0] == pytest.approx(-error)


def test_a_warm_start_goes_on_from_the_last_fit() -> None:
    samples = shifted_classes()
    cold = ha.HessianAlignedClassifier("hgp", 2.0, 2.0).fit(samples.X, samples.y, samples.domains)
    warm = ha.HessianAlignedClassifier("hgp", 2.0, 2.0, warm_start=True)
    with pytest.warns(ConvergenceWarning):
        warm.set_params(max_iter=3).fit(samples.X, samples.y, samples.domains)
    warm.set_params(max_iter=1000).fit(samples.X, samples.y, samples.domains)
    assert 0 < warm.n_iter_ < cold.n_iter_
    np.testing.assert_allclose(warm.coef_, cold.coef_, atol=1e-5)
    warm.fit(samples.X, samples.y, samples.domains)
    assert warm.n_iter_ == 0
    warm.fit(samples.X[:, :2], samples.y, samples.domains)  # another shape: a cold start
    assert warm.coef_.shape == (3, 2)


def test_a_fit_that_was_stopped_says_so() -> None:
    samples = shifted_classes()
    classifier = ha.HessianAlignedClassifier(max_iter=2)
    with pytest.warns(ConvergenceWarning, match="did not converge: after 4 iterations .* raise max_iter"):
        classifier.fit(samples.X, samples.y, samples.domains)
    assert not classifier.converged_
    with pytest.warns(ConvergenceWarning, match="rounding allows no further step: raise tol"):
        classifier.set_params(max_iter=1000, tol=0).fit(samples.X, samples.y, samples.domains)


@pytest.mark.parametrize(
    ("method", "samples", "seed"), [("frobenius", 1000, 0), ("frobenius", 1000, 2), ("gradient", 4000, 0)]
)
def test_rounding_of_the_value_does_not_end_a_fit(method: str, samples: int, seed: int) -> None:
    source = coloured([0.8, 0.9], samples=samples, seed=seed)
    classifier = ha.HessianAlignedClassifier(method, 1e3, 1e3).fit(source.X, source.y, source.domains)
    assert classifier.converged_


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("method", ["none", *ALIGNMENTS[:-1]])  # all but the spectral norm
def test_products_with_the_hessian_of_the_objective(method: str, fit_intercept: bool) -> None:
    samples = shifted_classes()
    kind = {"probes": PROBES, "expected": True} if method == "hutchinson" else {}
    weights = (0.0, 0.0) if method == "none" else (2.0, 3.0)
    penalty = ha.HessianAlignment(
        "gradient" if method == "none" else method, *weights, detach_centre=False, **kind
    )
    codes = samples.domains.astype(np.intp)
    data = HeadData.from_arrays(samples.X, samples.y, codes, 3, penalty.loss, "cpu")
    objective = Objective(data, penalty, decay=0.1, fit_intercept=fit_intercept)
    random = np.random.default_rng(0)
    theta = torch.from_numpy(random.normal(size=(3, 4)))
    free = torch.ones(3, 4, dtype=torch.bool)
    free[:, -1] = fit_intercept
    written_out = dense_objective(samples, method, *weights, 0.1, softmax_loss, fit_intercept)
    dense = torch.func.hessian(written_out)(theta)
    dense = dense.reshape(12, 12) * free.ravel() * free.ravel()[:, None]
    products = objective.hessian(theta.numpy().ravel()) @ np.eye(12)
    np.testing.assert_allclose(products, dense.numpy(), rtol=1e-8, atol=1e-10)


def test_float32_is_close_to_float64() -> None:
    samples = shifted_classes()
    double = ha.HessianAlignedClassifier("frobenius", 1.0, 1.0)
    single = ha.HessianAlignedClassifier("frobenius", 1.0, 1.0, dtype="float32", tol=1e-4)
    for classifier in (double, single):
        classifier.fit(samples.X, samples.y, samples.domains)
    assert single.coef_.dtype == np.float64
    np.testing.assert_allclose(single.coef_, double.coef_, atol=1e-2)


def test_any_activation_that_can_be_differentiated() -> None:
    samples = shifted_line()
    named = ha.HessianAlignedRegressor("hgp", 0.1, 0.1, activation="tanh")
    own = ha.HessianAlignedRegressor("hgp", 0.1, 0.1, activation=SQUARED["tanh"])
    y = np.tanh(samples.y)
    for regressor in (named, own):
        regressor.fit(samples.X, y, samples.domains)
    np.testing.assert_allclose(own.coef_, named.coef_, atol=1e-5)
    np.testing.assert_allclose(own.predict(samples.X), named.predict(samples.X), atol=1e-5)
    assert np.abs(named.predict(samples.X)).max() < 1


def test_device_other_than_the_default(device: torch.device) -> None:
    samples = shifted_classes()
    here = ha.HessianAlignedClassifier("hgp", 1.0, 1.0).fit(samples.X, samples.y, samples.domains)
    there = ha.HessianAlignedClassifier("hgp", 1.0, 1.0, device=str(device))
    there.fit(samples.X, samples.y, samples.domains)
    np.testing.assert_allclose(there.coef_, here.coef_, atol=1e-5)


def test_a_class_may_be_missing_from_a_domain() -> None:
    samples = shifted_classes()
    kept = samples.rows((samples.domains != 1) | (samples.y != 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = ha.HessianAlignedClassifier("hgp", 1.0, 1.0).fit(kept.X, kept.y, kept.domains)
    assert fitted.converged_
    assert len(fitted.classes_) == 3
