"""Rotated samples: with fewer rows than features a search has the same answer in fewer columns."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hessalign as ha
from hessalign.estimator import AFRClassifier, DFRClassifier, FishrClassifier, VRExClassifier, auto, problem
from hessalign.estimator import data as data_module
from hessalign.estimator.data import HeadData
from hessalign.estimator.data import Samples as Checked
from hessalign.estimator.objective import Objective
from hessalign.estimator.penalties import (
    Alignment,
    GradientVariance,
    Penalty,
    RiskVariance,
    Slope,
    WorstGroup,
)
from tests.estimator.samples import Samples, shifted_classes, shifted_line

PENALTIES: dict[str, Penalty | None] = {
    "none": None,
    **{
        method: Alignment(method, 5, "mean_loss")  # type: ignore[arg-type]
        for method in ("gradient", "hgp", "hutchinson", "diagonal", "frobenius", "spectral")
    },
    "V-REx": RiskVariance(),
    "IRM": Slope(),
    "Fishr": GradientVariance(),
    "group DRO": WorstGroup(),
}


def wide(width: int, samples: Samples) -> Samples:
    """The same samples with more features than there are of them, of different scales."""
    random = np.random.default_rng(3)
    mixed = samples.X @ random.normal(size=(samples.X.shape[1], width))
    return Samples(
        mixed + random.normal(size=mixed.shape) * np.linspace(0.1, 1, width), samples.y, samples.domains
    )


def head_data(fit_intercept: bool, weight: np.ndarray | None = None) -> HeadData:
    samples = wide(50, shifted_classes(36))
    codes, ones = samples.domains.astype(np.intp), np.ones(36)
    return HeadData.of(
        Checked(samples.X, samples.y, codes, None, ones), codes, ones if weight is None else weight,
        ha.CrossEntropy(), 3, fit_intercept=fit_intercept, dtype="float64", device="cpu",
    )  # fmt: skip


def weights_of(penalty: Penalty | None, name: str) -> dict[str, float]:
    names = [] if penalty is None else list(penalty.names)
    return {each: 0.7 for each in names if not (name == "gradient" and each == "alpha")}


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_rotated_objective_is_the_same_one(name: str, fit_intercept: bool) -> None:
    random = np.random.default_rng(0)
    data = head_data(fit_intercept, random.uniform(0.5, 2, 36))
    rotated = data.rotated()
    assert rotated.shape == (3, 36 + fit_intercept)
    penalty = PENALTIES[name]
    weights = weights_of(penalty, name)
    whole, reduced = (Objective(each, ha.CrossEntropy(), 0.1, penalty, weights) for each in (data, rotated))
    # Any head in the space of the features, as each is that a search comes to.
    theta = random.normal(size=(3, 36)) @ data.rows.numpy() / 20
    inside = rotated.theta(data.head(theta))
    np.testing.assert_allclose(rotated.head(inside), data.head(theta), atol=1e-12)
    np.testing.assert_allclose(reduced.terms(inside), whole.terms(theta), rtol=1e-8)
    value, gradient = whole.value_and_gradient(theta.ravel())
    own_value, own_gradient = reduced.value_and_gradient(inside.ravel())
    assert own_value == pytest.approx(value, rel=1e-8)
    # A gradient is to a head as the features are: their root mean square apart it is turned like one.
    turned = rotated.head(own_gradient.reshape(rotated.shape))
    np.testing.assert_allclose(turned, data.head(gradient.reshape(data.shape)), atol=1e-7)
    assert rotated.steepest(own_gradient) == pytest.approx(data.steepest(gradient), rel=1e-6)
    if penalty is not None:
        names = list(weights)
        found, expected = (o.distances(penalty, names, t) for o, t in ((reduced, inside), (whole, theta)))
        assert found == pytest.approx(expected, rel=1e-8)


def test_flat_is_flat_along_the_features() -> None:
    data = head_data(True).rotated()
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        gradient = random.normal(size=data.shape) * 10.0 ** random.integers(-2, 3, size=data.shape[1])
        gradient[:, -1] *= random.choice([0, 1])
        steepest = data.steepest(gradient.ravel())
        assert steepest == pytest.approx(
            max(np.abs(gradient[:, :-1] @ data.basis.numpy().T).max(), np.abs(gradient[:, -1]).max())
        )
        for factor in (1e-3, 0.3, 0.999, 1.001, 2, 100):
            is_flat = data.is_flat(gradient.ravel(), factor * steepest)
            assert is_flat == (factor > 1)
            seen.add(is_flat)
    assert seen == {True, False}


SEARCHES: dict[str, tuple[Callable[[], Any], bool]] = {
    "diagonal": (
        lambda: ha.HessianAlignedClassifier("diagonal", "auto", 0.1, C=0.01, tol=1e-9), True
    ),
    "hgp": (lambda: ha.HessianAlignedClassifier("hgp", "auto", 0.1, C=0.01, tol=1e-9), True),
    "V-REx": (lambda: VRExClassifier("auto", C="auto", tol=1e-9), True),
    "Fishr": (lambda: FishrClassifier("auto", C=0.01, tol=1e-9), True),
    "AFR": (lambda: AFRClassifier("auto", C=0.01, tol=1e-9), True),
    "regressor": (lambda: ha.HessianAlignedRegressor("gradient", beta="auto", tol=1e-9), True),
    "DFR, which knows the axes": (lambda: DFRClassifier("auto", n_subsets=2), False),
}  # fmt: skip


@pytest.mark.no_cover  # others measure a search
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_finds_the_same(name: str, monkeypatch) -> None:
    make, is_rotated = SEARCHES[name]
    samples = wide(80, shifted_line(60) if name == "regressor" else shifted_classes(60))
    monkeypatch.setattr(auto, "PATH_TOLERANCE", 0.0)
    monkeypatch.setattr(problem, "PATH_TOLERANCE", 0.0)
    rotations: list[int] = []
    original = HeadData.rotated

    def rotated(data: HeadData) -> HeadData:
        found = original(data)
        rotations.append(found.shape[1] < data.shape[1])
        return found

    monkeypatch.setattr(HeadData, "rotated", rotated)
    found = []
    for share in (data_module.FEW_ROWS, 0.0):
        monkeypatch.setattr(data_module, "FEW_ROWS", share)
        head = make()
        head.fit(samples.X, samples.y, sample_domain=samples.domains)
        found.append(head)
    # Each of three folds, and none where few rows are never few.
    assert rotations == ([True] * 3 + [False] * 3 if is_rotated else [])
    rotated, whole = (each.auto_results_ for each in found)
    np.testing.assert_array_equal(rotated["chosen"], whole["chosen"])
    np.testing.assert_allclose(rotated["scores"], whole["scores"], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found[0].coef_, found[1].coef_, rtol=1e-6, atol=1e-9)


def test_samples_that_gain_nothing_stay_as_they_are() -> None:
    samples = shifted_classes(36)
    codes, ones = samples.domains.astype(np.intp), np.ones(36)
    data = HeadData.of(
        Checked(samples.X, samples.y, codes, None, ones), codes, ones, ha.CrossEntropy(), 3,
        fit_intercept=True, dtype="float64", device="cpu",
    )  # fmt: skip
    assert data.rotated() is data
    rotated = head_data(True).rotated()
    assert rotated.rotated() is rotated
