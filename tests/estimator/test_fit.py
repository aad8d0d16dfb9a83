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
from sklearn.metrics import get_scorer
from sklearn.preprocessing import scale
from torch import Tensor

import hessalign as ha
from hessalign.estimator.auto import deal
from hessalign.estimator.data import HeadData
from hessalign.estimator.data import Samples as Checked
from hessalign.estimator.objective import Objective
from hessalign.estimator.penalties import Alignment
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from tests.cases import SQUARED, sigmoid_loss, softmax_loss, squared_loss
from tests.estimator.samples import Samples, coloured, shifted_classes, shifted_line

pytestmark = pytest.mark.filterwarnings("ignore:.* does not read:hessalign.exceptions.NoEffectWarning")
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
    *,
    weight: np.ndarray | None = None,
    bias: bool = True,
) -> Callable[[Tensor], Tensor]:
    """What the docstrings say is minimised, by torch.func on whole Hessians, as a function of ``[W | b]``.

    On features divided by their root mean square. The weights are those of the distances themselves.
    """
    shares = torch.ones(len(samples.X)).double() if weight is None else torch.from_numpy(weight)
    scale = float(torch.sqrt((torch.from_numpy(samples.X).square().mean(1) * shares).sum() / shares.sum()))
    features, targets = torch.from_numpy(samples.X) / scale, torch.from_numpy(samples.y)
    decay = decay / scale**2

    def mean_loss(weight: Tensor, chosen: Tensor) -> Tensor:
        logits = features[chosen] @ weight[:, :-1].T + weight[:, -1]
        losses = torch.vmap(sample_loss)(logits, targets[chosen])
        return (losses * shares[chosen]).sum() / shares[chosen].sum()

    def free(derivative: Tensor) -> Tensor:
        """Without what belongs to an intercept that is none."""
        if bias:
            return derivative
        keep = torch.ones(derivative.shape[-1] // (features.shape[1] + 1), features.shape[1] + 1).bool()
        keep[:, -1] = False
        kept = derivative[..., keep.flatten()]
        return kept if derivative.ndim == 1 else kept[keep.flatten()]

    def objective(weight: Tensor) -> Tensor:
        everything = torch.arange(len(targets))
        value = mean_loss(weight, everything) + decay / 2 * weight[:, :-1].square().sum()
        if method == "none":
            return value
        members = [torch.from_numpy(np.flatnonzero(samples.domains == d)) for d in np.unique(samples.domains)]
        gradients = [free(torch.func.grad(mean_loss)(weight, chosen).flatten()) for chosen in members]
        size = weight.numel()
        hessians = [
            free(torch.func.hessian(mean_loss)(weight, chosen).reshape(size, size)) for chosen in members
        ]
        mean_gradient, mean = torch.stack(gradients).mean(0), torch.stack(hessians).mean(0)
        distances = [
            alpha * dense_distance(method, hessian, mean, gradient, mean_gradient)
            + beta * (gradient - mean_gradient).square().sum()
            for gradient, hessian in zip(gradients, hessians, strict=True)
        ]
        by_domain = torch.stack([shares[chosen].sum() for chosen in members]) / shares.sum()
        return value + torch.stack(distances) @ by_domain

    return objective


def fitted_head(estimator) -> Tensor:
    head = np.column_stack([np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)])
    return torch.from_numpy(head)


def assert_minimises_what_is_documented(
    fitted, plain, samples: Samples, decay: float, sample_loss: Callable, **kind
) -> None:
    """Stationary in the objective whose units are the plain fit's loss and distances, by whole Hessians."""

    def at(head: Tensor, method: str, alpha: float, beta: float, decay: float = 0.0) -> Tensor:
        return dense_objective(samples, method, alpha, beta, decay, sample_loss, **kind)(head)

    def scaled(estimator) -> Tensor:
        return fitted_head(estimator) * torch.tensor([estimator.scale_] * samples.X.shape[1] + [1.0])

    start, head, method = scaled(plain), scaled(fitted), fitted.method
    loss = float(at(start, "none", 0, 0))
    hessian, gradient = float(at(start, method, 1, 0)) - loss, float(at(start, method, 0, 1)) - loss
    alpha = fitted.alpha_ * loss / hessian if fitted.alpha_ else 0.0
    beta = fitted.beta_ * loss / gradient if fitted.beta_ else 0.0

    def objective(weight: Tensor) -> Tensor:
        return at(weight, method, alpha, beta, decay)

    slope = torch.func.grad(objective)(head)
    if not fitted.fit_intercept:
        slope = slope[:, :-1]
    assert fitted.converged_
    assert slope.abs().max() < 1e-6
    assert float(objective(head)) == pytest.approx(fitted.objective_, rel=1e-6)
    assert fitted.loss_ == pytest.approx(float(at(head, "none", 0, 0)))
    assert fitted.loss_ + fitted.penalty_ <= fitted.objective_
    # The promise of the units: so much may alignment cost, and no more.
    assert fitted.objective_ <= plain.objective_ + (fitted.alpha_ + fitted.beta_) * plain.loss_ + 1e-9


@pytest.mark.parametrize("method", ALIGNMENTS)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_classifier_ends_where_the_documented_objective_is_flat(
    method: str, classes: int, fit_intercept: bool
) -> None:
    samples = shifted_classes(classes=classes)
    # Heavier weights end at a kink of the spectral norm, where no gradient vanishes.
    weights = (0.02, 0.02) if method == "spectral" else (0.5, 0.3)
    kind = {"C": 0.5, "probes": PROBES, "tol": 1e-9, "fit_intercept": fit_intercept, "max_iter": 5000}
    fitted = ha.HessianAlignedClassifier(method, *weights, **kind)
    fitted.fit(samples.X, samples.y, sample_domain=samples.domains)
    plain = ha.HessianAlignedClassifier("none", **kind).fit(samples.X, samples.y)
    if classes == 2:
        samples = Samples(samples.X, samples.y[:, None].astype(float), samples.domains)
    sample_loss = sigmoid_loss if classes == 2 else softmax_loss
    assert_minimises_what_is_documented(
        fitted, plain, samples, 1 / (0.5 * len(samples.X)), sample_loss, bias=fit_intercept
    )
    assert fit_intercept or (fitted.intercept_ == 0).all()


def test_a_kink_of_the_spectral_norm_ends_the_search_with_a_warning() -> None:
    """No gradient vanishes there, and the norm has no second derivative for Newton's steps."""
    generator = np.random.default_rng(1)
    X, domains = generator.normal(size=(30, 2)), np.arange(30) % 2
    y = (X[:, 0] + 0.8 * (domains - 0.5) * X[:, 1] + 0.3 * generator.normal(size=30) > 0).astype(int)
    with pytest.warns(ConvergenceWarning, match="kinks"):
        fitted = ha.HessianAlignedClassifier("spectral", 0.5, 0.5).fit(X, y, sample_domain=domains)
    assert fitted.score(X, y) > 0.6


@pytest.mark.parametrize("method", ["gradient", "hgp", "diagonal"])
@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
def test_regressor_ends_where_the_documented_objective_is_flat(method: str, activation: str) -> None:
    samples = shifted_line()
    outputs = np.column_stack([samples.y, 0.3 * samples.y**2])
    samples = Samples(samples.X, outputs / np.abs(outputs).max(), samples.domains)
    kind = {"activation": activation, "l2": 2.0, "tol": 1e-9, "max_iter": 5000}
    alpha = 0.0 if method == "diagonal" and activation == "identity" else 0.2
    fitted = ha.HessianAlignedRegressor(method, alpha, 0.3, **kind)
    fitted.fit(samples.X, samples.y, sample_domain=samples.domains)
    plain = ha.HessianAlignedRegressor("none", **kind).fit(samples.X, samples.y)
    sample_loss = squared_loss(SQUARED[activation])
    assert_minimises_what_is_documented(fitted, plain, samples, 2 / len(samples.X), sample_loss)


@pytest.mark.parametrize("method", ALIGNMENTS[:-1])
def test_weights_of_samples_are_those_of_the_documented_means(method: str) -> None:
    samples = shifted_classes()
    weight = np.random.default_rng(1).uniform(0.2, 3, len(samples.y))
    kind = {"C": 0.5, "probes": PROBES, "tol": 1e-9, "max_iter": 5000}
    fitted = ha.HessianAlignedClassifier(method, 0.5, 0.3, **kind)
    fitted.fit(samples.X, samples.y, weight, sample_domain=samples.domains)
    plain = ha.HessianAlignedClassifier("none", **kind).fit(samples.X, samples.y, weight)
    decay = 1 / (0.5 * weight.sum())
    assert_minimises_what_is_documented(fitted, plain, samples, decay, softmax_loss, weight=weight)


def test_the_other_centre_of_hgp_has_another_solution() -> None:
    samples = shifted_classes()
    heads = []
    for centre in ("mean_loss", "mean_product"):
        classifier = ha.HessianAlignedClassifier("hgp", 5.0, 0.0, centre=centre)
        heads.append(fitted_head(classifier.fit(samples.X, samples.y, sample_domain=samples.domains)))
    assert (heads[0] - heads[1]).abs().max() > 1e-3


@pytest.mark.parametrize("load", [load_iris, load_digits])
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("strength", [0.1, 1.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_without_alignment_it_is_logistic_regression(
    load: Callable, classes: int, strength: float, fit_intercept: bool
) -> None:
    X, y = (of[:600] for of in load(return_X_y=True))
    X, y = scale(X[y < classes]), y[y < classes]
    domains = np.arange(len(y)) % 3
    expected = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000, fit_intercept=fit_intercept).fit(
        X, y
    )
    found = ha.HessianAlignedClassifier("hgp", 0.0, 0.0, C=strength, fit_intercept=fit_intercept, tol=1e-8)
    found.fit(X, y, sample_domain=domains)
    assert found.converged_
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-4)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, atol=1e-4)
    nearly = ha.HessianAlignedClassifier("hgp", 1e-6, 1e-6, C=strength, fit_intercept=fit_intercept, tol=1e-8)
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
    found = ha.HessianAlignedRegressor("hgp", 0.0, 0.0, l2=l2, tol=1e-10).fit(
        X, y, sample_domain=np.arange(len(y)) % 2
    )
    assert found.coef_.shape == expected.coef_.shape
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-6)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, atol=1e-6)
    np.testing.assert_allclose(found.predict(X), expected.predict(X), atol=1e-6)


@settings(max_examples=5)
@given(seed=st.integers(0, 1000), method=st.sampled_from(["gradient", "hgp", "hutchinson", "frobenius"]))
def test_order_of_samples_and_names_of_domains_do_not_matter(seed: int, method: str) -> None:
    samples = shifted_classes(seed=seed % 7)
    fitted = ha.HessianAlignedClassifier(method, 0.2, 0.2, tol=1e-8).fit(
        samples.X, samples.y, sample_domain=samples.domains
    )
    random = np.random.default_rng(seed)
    shuffled = samples.rows(random.permutation(len(samples.y)))
    names = random.permutation(np.array(["clinic", "field", "école"]))[shuffled.domains]
    again = ha.HessianAlignedClassifier(method, 0.2, 0.2, tol=1e-8).fit(
        shuffled.X, shuffled.y, sample_domain=names
    )
    np.testing.assert_allclose(again.coef_, fitted.coef_, atol=1e-5)
    np.testing.assert_allclose(again.intercept_, fitted.intercept_, atol=1e-5)
    assert again.domains_.tolist() == ["clinic", "field", "école"]


@pytest.mark.parametrize("method", ALIGNMENTS)
def test_alignment_brings_the_domains_together(method: str) -> None:
    samples = shifted_classes(samples=300)
    shares = []
    for weight in (0.01, 0.03) if method == "spectral" else (0.1, 1.0):
        classifier = ha.HessianAlignedClassifier(method, weight, weight, probes=PROBES)
        classifier.fit(samples.X, samples.y, sample_domain=samples.domains)
        plain = ha.HessianAlignedClassifier("none").fit(samples.X, samples.y)
        units = 1 if method == "gradient" else 2
        shares.append(classifier.penalty_ / (units * weight * plain.loss_))  # 1 at the plain fit
    assert shares[1] < shares[0] < 1
    assert method == "spectral" or shares[1] < 0.8


@pytest.mark.parametrize("method", ALIGNMENTS[:-1])
@pytest.mark.parametrize("factor", [0.01, 1000.0])
def test_the_scale_of_the_features_changes_nothing(method: str, factor: float) -> None:
    samples = shifted_classes()
    fitted = ha.HessianAlignedClassifier(method, 0.3, 0.3, C=0.5, tol=1e-8)
    fitted.fit(samples.X, samples.y, sample_domain=samples.domains)
    scaled = ha.HessianAlignedClassifier(method, 0.3, 0.3, C=0.5 / factor**2, tol=1e-8)
    scaled.fit(factor * samples.X, samples.y, sample_domain=samples.domains)
    np.testing.assert_allclose(factor * scaled.coef_, fitted.coef_, atol=1e-4)
    np.testing.assert_allclose(scaled.intercept_, fitted.intercept_, atol=1e-4)
    assert scaled.penalty_ == pytest.approx(fitted.penalty_, rel=1e-4)


@pytest.mark.parametrize("factor", [0.01, 1000.0])
def test_the_scale_of_the_features_changes_no_choice(factor: float) -> None:
    samples = shifted_classes()
    heads = [
        ha.HessianAlignedClassifier("gradient", beta="auto").fit(X, samples.y, sample_domain=samples.domains)
        for X in (samples.X, factor * samples.X)
    ]
    assert pytest.approx(heads[1].C_ * factor**2) == heads[0].C_
    assert heads[0].beta_ == heads[1].beta_
    np.testing.assert_array_equal(heads[1].predict(factor * samples.X), heads[0].predict(samples.X))


@pytest.mark.parametrize("method", ["gradient", "hgp"])
@pytest.mark.parametrize("factor", [0.01, 1000.0])
def test_the_scales_of_features_and_targets_change_nothing(method: str, factor: float) -> None:
    samples = shifted_line()
    fitted = ha.HessianAlignedRegressor(method, 0.3, 0.3, l2=2.0, tol=1e-9)
    fitted.fit(samples.X, samples.y, sample_domain=samples.domains)
    scaled = ha.HessianAlignedRegressor(method, 0.3, 0.3, l2=2.0 * factor**2, tol=1e-9)
    scaled.fit(factor * samples.X, 7 * factor * samples.y, sample_domain=samples.domains)
    np.testing.assert_allclose(scaled.coef_ / 7, fitted.coef_, atol=1e-5)


@pytest.mark.parametrize("method", ["gradient", "hgp", "hutchinson", "diagonal", "frobenius"])
def test_an_unseen_domain_gains_where_colour_misleads(method: str) -> None:
    samples = coloured([0.8, 0.9, 0.1], samples=1000)
    source, target = samples.rows(samples.domains < 2), samples.rows(samples.domains == 2)
    plain = LogisticRegression().fit(source.X, source.y)
    aligned = ha.HessianAlignedClassifier(method, 1.0, 1.0)
    aligned.fit(source.X, source.y, sample_domain=source.domains)
    assert plain.score(target.X, target.y) < 0.3
    assert aligned.score(target.X, target.y) > plain.score(target.X, target.y) + 0.15
    assert aligned.score(source.X, source.y) < plain.score(source.X, source.y)


def saturating() -> Samples:
    X, y = load_digits(return_X_y=True)
    domains = np.random.default_rng(0).integers(0, 3, len(y))
    return Samples(X / 4 * np.array([0.7, 1.0, 1.6])[domains][:, None], y, domains)


def test_weights_of_one_cannot_collapse_and_heavier_ones_say_so() -> None:
    samples = saturating()
    classifier = ha.HessianAlignedClassifier("diagonal", alpha=0.1, beta=0.0, C=1e-4)
    classifier.fit(samples.X, samples.y, sample_domain=samples.domains)
    assert classifier.loss_ < np.log(10)
    assert classifier.score(samples.X, samples.y) > 0.8
    with pytest.warns(UntrustworthyWarning, match=r"swamps the loss, .* above the 2.3 of the best constant"):
        classifier.set_params(alpha=1e4).fit(samples.X, samples.y, sample_domain=samples.domains)


def test_auto_finds_the_weight_that_helps_held_out_domains() -> None:
    samples = coloured([0.9, 0.5, 0.1], samples=300)
    names = np.array(["a", "b", "c"])[samples.domains]
    found = ha.HessianAlignedClassifier("gradient", beta="auto", scoring="accuracy")
    found.fit(samples.X, samples.y, sample_domain=names)
    tried = found.auto_results_
    assert tried["scores"].shape == tried["converged"].shape == tried["refused"].shape == (len(tried["C"]), 3)
    (chosen,) = np.flatnonzero(tried["chosen"])
    assert (found.C_, found.alpha_, found.beta_) == tuple(
        tried[key][chosen] for key in ("C", "alpha", "beta")
    )
    assert found.beta_ > 0
    assert not tried["refused"][chosen].any()
    assert tried["refused"].any()  # heavy weights collapse here, and are never chosen
    plain = tried["beta"] == 0
    assert (
        tried["mean_score"][chosen] > tried["mean_score"][plain].max() + tried["standard_error"][plain].min()
    )
    rest, held_out = samples.rows(names != "b"), samples.rows(names == "b")
    for row in (0, 3):
        fold = ha.HessianAlignedClassifier("none", C=tried["C"][row]).fit(rest.X, rest.y)
        assert tried["scores"][row, 1] == pytest.approx(fold.score(held_out.X, held_out.y), abs=0.01)
    same = ha.HessianAlignedClassifier("gradient", beta=found.beta_, C=found.C_)
    same.fit(samples.X, samples.y, sample_domain=names)
    np.testing.assert_array_equal(same.coef_, found.coef_)
    found.set_params(beta=1.0).fit(samples.X, samples.y, sample_domain=names)
    assert not hasattr(found, "auto_results_")


@pytest.mark.no_cover  # others measure a search
@pytest.mark.parametrize("scoring", [None, "accuracy", "balanced_accuracy", get_scorer("neg_brier_score")])
def test_auto_stays_at_zero_where_alignment_only_seems_to_help(scoring) -> None:
    random = np.random.default_rng(0)
    y, domains = random.integers(0, 2, 240), np.repeat(["a", "b", "c", "d"], 60)
    X = random.normal(size=(240, 4)) + 0.7 * y[:, None]
    found = ha.HessianAlignedClassifier("hgp", "auto", "auto", scoring=scoring)
    found.fit(X, y, sample_domain=domains)
    assert (found.alpha_, found.beta_) == (0, 0)
    plain = ha.HessianAlignedClassifier("none", C="auto", scoring=scoring).fit(X, y, sample_domain=domains)
    assert found.C_ == plain.C_
    np.testing.assert_allclose(found.coef_, plain.coef_, atol=1e-6)


def test_the_choice_follows_the_one_standard_error_rule() -> None:
    samples = shifted_line(samples=60)
    found = ha.HessianAlignedRegressor("hgp", "auto", "auto")
    found.fit(samples.X, samples.y, sample_domain=samples.domains)
    tried = found.auto_results_
    admitted = ~tried["refused"].any(1)
    best = np.flatnonzero(admitted)[tried["mean_score"][admitted].argmax()]
    difference = tried["scores"][best] - tried["scores"]
    between = difference.std(1, ddof=1) / np.sqrt(3)
    assert (tried["standard_error"] >= between - 1e-12).all()
    within = admitted & (difference.mean(1) <= tried["standard_error"])
    smallest = (tried["alpha"] + tried["beta"])[within].min()
    assert found.alpha_ + found.beta_ == smallest
    (chosen,) = np.flatnonzero(tried["chosen"])
    same = (tried["alpha"] == found.alpha_) & (tried["beta"] == found.beta_) & admitted
    assert tried["mean_score"][chosen] == tried["mean_score"][same].max()
    rest, held_out = samples.rows(samples.domains != 0), samples.rows(samples.domains == 0)
    plain = ha.HessianAlignedRegressor("none", l2=tried["l2"][0]).fit(rest.X, rest.y)
    error = np.square(plain.predict(held_out.X) - held_out.y).mean()
    assert tried["scores"][0, 0] == pytest.approx(-error, rel=1e-2)


@pytest.mark.parametrize("method", ["none", "hgp", "diagonal"])
@pytest.mark.parametrize("domain_weight", ["size", "equal"])
def test_a_weight_of_two_is_the_sample_twice_and_of_zero_none(method: str, domain_weight: str) -> None:
    samples = shifted_classes()
    counts = np.random.default_rng(0).integers(0, 3, len(samples.y))
    repeated = samples.rows(np.repeat(np.arange(len(counts)), counts))
    heads = []
    for rows, weight in ((samples, counts), (repeated, None)):
        classifier = ha.HessianAlignedClassifier(
            method, 0.5, 0.5, domain_weight=domain_weight, class_weight="balanced", tol=1e-8
        )
        heads.append(
            fitted_head(classifier.fit(rows.X, rows.y, sample_weight=weight, sample_domain=rows.domains))
        )
    np.testing.assert_allclose(heads[0], heads[1], atol=1e-5)


def test_weights_of_samples_classes_and_domains_are_those_of_logistic_regression() -> None:
    samples = shifted_classes()
    weight = np.random.default_rng(0).uniform(0.1, 2, len(samples.y))
    for by_class in ("balanced", {0: 2.0, 1: 0.5, 2: 1.0}):
        expected = LogisticRegression(C=0.7, class_weight=by_class, tol=1e-8, max_iter=1000)
        expected.fit(samples.X, samples.y, weight)
        found = ha.HessianAlignedClassifier("none", C=0.7, class_weight=by_class, tol=1e-8)
        found.fit(samples.X, samples.y, weight)
        np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-4)
    totals = np.bincount(samples.domains, weight)
    equal = weight * (weight.sum() / 3 / totals)[samples.domains]
    expected = LogisticRegression(C=0.7, tol=1e-8, max_iter=1000).fit(samples.X, samples.y, equal)
    found = ha.HessianAlignedClassifier("none", C=0.7, domain_weight="equal", tol=1e-8)
    found.fit(samples.X, samples.y, weight, sample_domain=samples.domains)
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-4)


def test_domains_that_agree_have_nothing_to_align() -> None:
    samples = shifted_classes()
    X, y = np.tile(samples.X, (2, 1)), np.tile(samples.y, 2)
    classifier = ha.HessianAlignedClassifier("hgp", 1.0, 1.0)
    with pytest.warns(NoEffectWarning, match="alpha and beta above 0 have no effect: the domains agree"):
        classifier.fit(X, y, sample_domain=np.repeat(["a", "b"], len(samples.y)))
    assert classifier.penalty_ == 0


def test_the_hessian_of_least_squares_has_nothing_to_align() -> None:
    samples = shifted_line()
    for method in ("diagonal", "hutchinson", "frobenius", "spectral"):
        regressor = ha.HessianAlignedRegressor(method, 1.0, 0.0)
        with pytest.warns(NoEffectWarning, match=f"the Hessian that '{method}' compares depends on the"):
            regressor.fit(samples.X, samples.y, sample_domain=samples.domains)
        assert regressor.alpha_ == 0


def test_a_warm_start_goes_on_from_the_last_fit() -> None:
    samples = shifted_classes()
    cold = ha.HessianAlignedClassifier("hgp", 2.0, 2.0, tol=1e-8).fit(
        samples.X, samples.y, sample_domain=samples.domains
    )
    warm = ha.HessianAlignedClassifier("hgp", 2.0, 2.0, tol=1e-8, warm_start=True)
    with pytest.warns(ConvergenceWarning):
        warm.set_params(max_iter=3).fit(samples.X, samples.y, sample_domain=samples.domains)
    warm.set_params(max_iter=1000).fit(samples.X, samples.y, sample_domain=samples.domains)
    assert 0 < warm.n_iter_ < cold.n_iter_
    np.testing.assert_allclose(warm.coef_, cold.coef_, atol=1e-5)
    warm.fit(samples.X, samples.y, sample_domain=samples.domains)
    assert warm.n_iter_ == 0
    warm.fit(samples.X[:, :2], samples.y, sample_domain=samples.domains)  # another shape: a cold start
    assert warm.coef_.shape == (3, 2)


def test_a_fit_that_was_stopped_says_so() -> None:
    samples = shifted_classes()
    classifier = ha.HessianAlignedClassifier(max_iter=2)
    with pytest.warns(ConvergenceWarning, match="did not converge: after 4 iterations .* raise max_iter"):
        classifier.fit(samples.X, samples.y, sample_domain=samples.domains)
    assert not classifier.converged_
    with pytest.warns(ConvergenceWarning, match="rounding allows no further step: raise tol"):
        classifier.set_params(max_iter=1000, tol=0).fit(samples.X, samples.y, sample_domain=samples.domains)


@pytest.mark.parametrize(("method", "samples"), [("frobenius", 1000), ("gradient", 4000)])
def test_rounding_of_the_value_does_not_end_a_fit(method: str, samples: int) -> None:
    source = coloured([0.8, 0.9], samples=samples)
    classifier = ha.HessianAlignedClassifier(method, 1.0, 1.0, tol=1e-9)
    classifier.fit(source.X, source.y, sample_domain=source.domains)
    assert classifier.converged_


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("method", ["none", *ALIGNMENTS[:-1]])  # all but the spectral norm
def test_products_with_the_hessian_of_the_objective(method: str, fit_intercept: bool) -> None:
    samples = shifted_classes()
    weights = (0.0, 0.0) if method == "none" else (2.0, 3.0)
    ones = np.ones(len(samples.y))
    codes = samples.domains.astype(np.intp)
    loss = ha.CrossEntropy()
    data = HeadData.of(
        Checked(samples.X, samples.y, codes, None, ones), codes, ones, loss, 3,
        fit_intercept=fit_intercept, dtype="float64", device="cpu",
    )  # fmt: skip
    penalty = None if method == "none" else Alignment(method, PROBES, "mean_loss")
    by_name = {"alpha": weights[0], "beta": weights[1]}
    if method == "gradient":
        del by_name["alpha"]
    objective = Objective(data, loss, 0.1 / data.scale**2, penalty, by_name)
    theta = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4)))
    if not fit_intercept:
        theta[:, -1] = 0
    dense = torch.func.hessian(
        dense_objective(samples, method, *weights, 0.1, softmax_loss, bias=fit_intercept)
    )(theta).reshape(12, 12)
    free = np.ones((3, 4), dtype=bool)
    free[:, -1] = fit_intercept
    expected = dense.numpy()[free.ravel()][:, free.ravel()]
    flat = theta.numpy().ravel()[free.ravel()]
    products = objective.hessian(flat) @ np.eye(flat.size)
    np.testing.assert_allclose(products, expected, rtol=1e-8, atol=1e-10)


def test_float32_is_close_to_float64() -> None:
    samples = shifted_classes()
    double = ha.HessianAlignedClassifier("frobenius", 0.3, 0.3)
    single = ha.HessianAlignedClassifier("frobenius", 0.3, 0.3, dtype="float32")
    for classifier in (double, single):
        classifier.fit(samples.X, samples.y, sample_domain=samples.domains)
    assert single.coef_.dtype == np.float64
    np.testing.assert_allclose(single.coef_, double.coef_, atol=1e-2)


def test_any_activation_that_can_be_differentiated() -> None:
    samples = shifted_line()
    named = ha.HessianAlignedRegressor("hgp", 0.1, 0.1, activation="tanh", tol=1e-8)
    own = ha.HessianAlignedRegressor("hgp", 0.1, 0.1, activation=SQUARED["tanh"], tol=1e-8)
    y = np.tanh(samples.y)
    for regressor in (named, own):
        regressor.fit(samples.X, y, sample_domain=samples.domains)
    np.testing.assert_allclose(own.coef_, named.coef_, atol=1e-5)
    np.testing.assert_allclose(own.predict(samples.X), named.predict(samples.X), atol=1e-5)
    assert np.abs(named.predict(samples.X)).max() < 1


def test_device_other_than_the_default(device: torch.device) -> None:
    samples = shifted_classes()
    here = ha.HessianAlignedClassifier("hgp", 1.0, 1.0).fit(
        samples.X, samples.y, sample_domain=samples.domains
    )
    there = ha.HessianAlignedClassifier("hgp", 1.0, 1.0, device=str(device))
    there.fit(samples.X, samples.y, sample_domain=samples.domains)
    np.testing.assert_allclose(there.coef_, here.coef_, atol=1e-5)


def test_a_class_may_be_missing_from_a_domain() -> None:
    samples = shifted_classes()
    kept = samples.rows((samples.domains != 1) | (samples.y != 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = ha.HessianAlignedClassifier("hgp", 1.0, 1.0).fit(kept.X, kept.y, sample_domain=kept.domains)
    assert fitted.converged_
    assert len(fitted.classes_) == 3


def test_many_domains_are_held_out_in_five_parts() -> None:
    random = np.random.default_rng(0)
    domains = np.repeat(np.arange(8), [40, 10, 20, 30, 10, 10, 20, 10])
    y = random.integers(0, 2, len(domains))
    X = random.normal(size=(len(domains), 3)) + y[:, None] + 0.3 * random.normal(size=(8, 3))[domains]
    parts = deal(np.bincount(domains))
    assert len(parts) == 5
    assert sorted(domain for part in parts for domain in part) == list(range(8))
    assert max(np.isin(domains, part).sum() for part in parts) == 40
    found = ha.HessianAlignedClassifier("none", C="auto").fit(X, y, sample_domain=domains)
    tried = found.auto_results_
    assert tried["scores"].shape == (7, 8)
    for part in parts:
        rest = ~np.isin(domains, part)
        fold = ha.HessianAlignedClassifier("none", C=tried["C"][3]).fit(X[rest], y[rest])
        for domain in part:
            log_probabilities = fold.predict_log_proba(X[domains == domain])
            expected = log_probabilities[np.arange(len(log_probabilities)), y[domains == domain]].mean()
            assert tried["scores"][3, domain] == pytest.approx(expected, abs=2e-3)


def test_domains_of_one_sample_do_not_spoil_a_regression() -> None:
    random = np.random.default_rng(0)
    domains = np.repeat(np.arange(30), [1] * 10 + [40] * 20)
    X = random.normal(size=(810, 20)) + 0.3 * random.normal(size=(30, 20))[domains]
    y = X @ random.normal(size=20) + random.normal(size=810) + 0.3 * random.normal(size=30)[domains]
    known = domains < 25
    plain, aligned, equal = (
        ha.HessianAlignedRegressor(method, 1.0, 1.0, domain_weight=weight)
        .fit(X[known], y[known], sample_domain=domains[known])
        .score(X[~known], y[~known])
        for method, weight in (("none", "size"), ("hgp", "size"), ("hgp", "equal"))
    )
    assert aligned > plain - 0.02
    assert equal < aligned


def test_a_quadratic_objective_is_solved_at_once_whatever_its_weights() -> None:
    samples = shifted_line(samples=200, width=6)
    for weights in ((1e-3, 1e-2), (1e3, 1e3)):
        fitted = ha.HessianAlignedRegressor("hgp", *weights, tol=1e-12)
        fitted.fit(samples.X, samples.y, sample_domain=samples.domains)
        assert fitted.converged_
        assert fitted.n_iter_ <= 6
    twice = np.hstack([samples.X, samples.X])  # singular, as without decay
    singular = ha.HessianAlignedRegressor("gradient", beta=0.1, l2=0, tol=1e-6)
    singular.fit(twice, samples.y, sample_domain=samples.domains)
    assert singular.converged_
    assert np.abs(singular.coef_).max() < 10
    plain = [
        ha.HessianAlignedRegressor("none", l2=0).fit(X, samples.y).predict(X) for X in (twice, samples.X)
    ]
    np.testing.assert_allclose(*plain, atol=1e-6)
