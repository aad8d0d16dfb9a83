"""One sentence for every wrong argument, before any work is done."""

import numpy as np
import pytest

import hessalign as ha
from hessalign.exceptions import NoEffectWarning
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
        ({"method": "hutchinson", "probes": 0}, "probes: must be a whole number of at least 1, got 0"),
        ({"centre": "median"}, "centre: 'median' is not known; allowed are 'mean_loss'"),
        ({"tol": -1e-3}, "tol: must be a finite number of at least 0, got -0.001"),
        ({"max_iter": 0}, "max_iter: must be a whole number of at least 1, got 0"),
        ({"dtype": "float16"}, "dtype: 'float16' is not known; allowed are 'float64', 'float32'"),
        ({"alpha": True}, "alpha: must be 'auto' or a finite number of at least 0, got True"),
        ({"fit_intercept": "no"}, "fit_intercept: must be True or False, got 'no'"),
        ({"warm_start": 1}, "warm_start: must be True or False, got 1"),
        ({"domain_weight": "big"}, "domain_weight: 'big' is not known; allowed are 'size', 'equal'"),
        ({"scoring": "best"}, "scoring: 'best' is not known; allowed are None, a name of scikit-learn's"),
        ({"device": "abacus"}, "device: PyTorch has no device 'abacus' here"),
    ],
)
def test_bad_parameters_are_named(estimator: type, params: dict, message: str) -> None:
    samples = shifted_classes()
    with pytest.raises(ValueError, match=message):
        estimator(**params).fit(samples.X, samples.y, sample_domain=samples.domains)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (ha.HessianAlignedClassifier(C=0), "C: must be None, 'auto' or a finite number above 0, got 0"),
        (
            ha.HessianAlignedClassifier(C="weak"),
            "C: must be None, 'auto' or a finite number above 0, got 'weak'",
        ),
        (
            ha.HessianAlignedRegressor(l2=-1),
            "l2: must be None, 'auto' or a finite number of at least 0, got -1",
        ),
        (
            ha.HessianAlignedClassifier(class_weight="fair"),
            "class_weight: 'fair' is not known; allowed are 'bal",
        ),
        (
            ha.HessianAlignedClassifier(class_weight={0: -1}),
            r"class_weight\[0\]: must be a finite number above 0",
        ),
        (ha.HessianAlignedClassifier(class_weight={"cat": 1}), "class_weight: "),
        (ha.HessianAlignedRegressor(activation="relu"), "activation: 'relu' is not known; allowed are"),
    ],
)
def test_parameters_of_one_estimator_are_named(estimator, message: str) -> None:
    samples = shifted_classes()
    with pytest.raises(ValueError, match=message):
        estimator.fit(samples.X, samples.y, sample_domain=samples.domains)


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
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(89), "sample_weight: .*89"),
        (-np.ones(90), "sample_weight: weights must be at least 0, and not all 0, got values from -1 to -1"),
        (
            np.zeros(90),
            "sample_weight: (Sample weights must contain at least one|weights must be .* not all 0)",
        ),
        (np.full(90, np.nan), "sample_weight: .*NaN"),
        (
            ["clinic", "ward"] * 45,
            "sample_weight: must be numbers, got dtype <U6; domain ids go under sample_d",
        ),
    ],
)
def test_bad_weights_are_named(estimator: type, weight: object, message: str) -> None:
    samples = shifted_classes()
    with pytest.raises(ValueError, match=message):
        estimator().fit(samples.X, samples.y, weight, sample_domain=samples.domains)


@BOTH
@pytest.mark.parametrize("domains", [None, [0, 1] * 45])
def test_auto_needs_three_domains(estimator: type, domains: list[int] | None) -> None:
    samples = shifted_classes()
    found = "none; pass fit" if domains is None else "2"
    with pytest.raises(ValueError, match=f"'auto' needs at least 3 domains, .* got {found}"):
        estimator(beta="auto").fit(samples.X, samples.y, sample_domain=domains)


def test_a_strength_needs_two_domains_to_be_chosen() -> None:
    samples = shifted_classes()
    with pytest.raises(
        ValueError, match="C 'auto' needs at least 2 domains, each held out in turn, got none"
    ):
        ha.HessianAlignedClassifier("none", C="auto").fit(samples.X, samples.y)


@BOTH
def test_domains_that_never_arrive_are_missed(estimator: type) -> None:
    samples = shifted_classes()
    with pytest.warns(NoEffectWarning, match=r"no effect without sample_domain: .* params={'sample_domain'"):
        estimator().fit(samples.X, samples.y)
    with pytest.warns(NoEffectWarning, match=r"sample_weight holds integers: are they domain ids\?"):
        estimator().fit(samples.X, samples.y, samples.domains)


@BOTH
def test_one_domain_is_enough_where_nothing_is_aligned(estimator: type) -> None:
    samples = shifted_classes()
    with pytest.warns(NoEffectWarning):
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
        estimator().fit(X, samples.y, sample_domain=samples.domains)
    for factor in (1e160, 1e-160):
        with pytest.raises(
            ValueError, match=r"X: features must lie between 1e-75 and 1e[+]75 by absolute value"
        ):
            estimator().fit(samples.X * factor, samples.y, sample_domain=samples.domains)


def test_bad_targets_are_named() -> None:
    samples = shifted_classes()
    with pytest.raises(ValueError, match=r"y: targets must lie between 1e-75 and .* the largest is 2e[+]200"):
        ha.HessianAlignedRegressor().fit(samples.X, samples.y * 1e200, sample_domain=samples.domains)
    for kind, name in (("<U1", "<U1"), ("M8[s]", "datetime64")):
        with pytest.raises(ValueError, match=f"y: targets must be real numbers, got dtype {name}"):
            ha.HessianAlignedRegressor().fit(samples.X, np.ones(90, int).astype(kind))


def test_a_single_class_is_named() -> None:
    samples = shifted_classes()
    with pytest.raises(ValueError, match="y: a classifier needs at least 2 classes, got one class, hen"):
        ha.HessianAlignedClassifier().fit(samples.X, ["hen"] * 90, sample_domain=samples.domains)


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
