"""One sentence for every wrong argument, before any work is done."""

import numpy as np
import pytest

import hessalign as ha
from tests.estimator.samples import shifted_classes

BOTH = pytest.mark.parametrize("estimator", [ha.HessianAlignedClassifier, ha.HessianAlignedRegressor])


@BOTH
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "coral"}, "method: 'coral' is not known; allowed are 'none', 'gradient', 'hgp'"),
        ({"alpha": -1}, "alpha: must be 'auto' or a finite number of at least 0, got -1"),
        ({"alpha": "large"}, "alpha: must be 'auto' or a finite number of at least 0, got 'large'"),
        ({"beta": float("nan")}, "beta: must be 'auto' or a finite number of at least 0, got nan"),
        ({"method": "hutchinson", "probes": 0}, "probes: 'hutchinson' needs a whole number of at least 1"),
        ({"centre": "median"}, "centre: 'median' is not known; allowed are 'mean_loss'"),
        ({"tol": -1e-3}, "tol: must be a finite number of at least 0, got -0.001"),
        ({"max_iter": 0}, "max_iter: must be a whole number of at least 1, got 0"),
        ({"dtype": "float16"}, "dtype: 'float16' is not known; allowed are 'float64' and 'float32'"),
        ({"device": "abacus"}, "device: PyTorch has no device 'abacus' here"),
    ],
)
def test_bad_parameters_are_named(estimator: type, params: dict, message: str) -> None:
    samples = shifted_classes()
    with pytest.raises(ValueError, match=message):
        estimator(**params).fit(samples.X, samples.y, samples.domains)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (ha.HessianAlignedClassifier(C=0), "C: must be a number above 0, got 0"),
        (ha.HessianAlignedClassifier(C="weak"), "C: must be a number above 0, got 'weak'"),
        (ha.HessianAlignedRegressor(l2=-1), "l2: must be a finite number of at least 0, got -1"),
        (ha.HessianAlignedRegressor(activation="relu"), "activation: 'relu' is not known; allowed are"),
    ],
)
def test_parameters_of_one_estimator_are_named(estimator, message: str) -> None:
    samples = shifted_classes()
    with pytest.raises(ValueError, match=message):
        estimator.fit(samples.X, samples.y, samples.domains)


@BOTH
@pytest.mark.parametrize(
    ("domains", "message"),
    [
        (np.zeros(89, dtype=int), r"one domain id for each of the 90 samples, got an array of shape \(89,\)"),
        (np.zeros((90, 2), dtype=int), r"for each of the 90 samples, got an array of shape \(90, 2\)"),
        (np.linspace(0, 1, 90), "domain ids must be integers or strings, got dtype float64"),
        (["clinic"] * 45 + [None] * 45, "all integers or all strings, got values of type NoneType, str"),
        (["clinic"] * 90, "alignment needs at least 2 domains, got only clinic; without alignment leave"),
    ],
)
def test_bad_domains_are_named(estimator: type, domains: object, message: str) -> None:
    samples = shifted_classes()
    with pytest.raises(ValueError, match=f"sample_domain: .*{message}"):
        estimator().fit(samples.X, samples.y, sample_domain=domains)


@BOTH
@pytest.mark.parametrize("domains", [None, [0, 1] * 45])
def test_auto_needs_three_domains(estimator: type, domains: list[int] | None) -> None:
    samples = shifted_classes()
    count = 1 if domains is None else 2
    with pytest.raises(ValueError, match=f"'auto' needs at least 3 domains, .* got {count}"):
        estimator(beta="auto").fit(samples.X, samples.y, sample_domain=domains)


@BOTH
def test_one_domain_is_enough_where_nothing_is_aligned(estimator: type) -> None:
    samples = shifted_classes()
    without = estimator("hgp").fit(samples.X, samples.y)
    for settings in ({"method": "none"}, {"alpha": 0, "beta": 0}, {"method": "gradient", "beta": 0}):
        one = estimator(**settings).fit(samples.X, samples.y, sample_domain=["clinic"] * 90)
        np.testing.assert_array_equal(one.coef_, without.coef_)
    assert without.penalty_ == 0
    assert without.domains_.tolist() == [0]


@BOTH
def test_bad_features_are_named(estimator: type) -> None:
    samples = shifted_classes()
    X = samples.X.copy()
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        estimator().fit(X, samples.y, samples.domains)
    with pytest.raises(ValueError, match="X: the objective overflows for features this large"):
        estimator("frobenius", 1.0, 1.0).fit(samples.X * 1e160, samples.y, samples.domains)


def test_a_single_class_is_named() -> None:
    samples = shifted_classes()
    with pytest.raises(ValueError, match="y: a classifier needs at least 2 classes, got one class, hen"):
        ha.HessianAlignedClassifier().fit(samples.X, ["hen"] * 90, samples.domains)


@pytest.mark.parametrize("method", ["gradient", "hgp", "hutchinson", "diagonal", "frobenius"])
def test_a_class_may_be_missing_from_a_domain(method: str) -> None:
    samples = shifted_classes(classes=3)
    domains = np.where(samples.domains == samples.domains[0], "clinic", "ward")
    kept = (domains != "clinic") | (samples.y != samples.y[0])
    classifier = ha.HessianAlignedClassifier(method).fit(
        samples.X[kept], samples.y[kept], sample_domain=domains[kept]
    )
    assert np.isfinite(classifier.coef_).all()
    assert classifier.classes_.tolist() == sorted(set(samples.y))
    assert classifier.domains_.tolist() == ["clinic", "ward"]
