"""Transformers: what is written, by hand on small data; whole again from a file; scikit-learn's contract."""

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn import config_context
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from hessalign.estimator import (
    DomainCentering,
    DomainInformedFeatures,
    DomainWhitening,
    ISRCov,
    ISRMean,
)
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning

ALL = [ISRMean(), ISRCov(), DomainCentering(with_std=True), DomainWhitening()]
ALL += [DomainInformedFeatures(2, interactions=True)]
Random = np.random.Generator


@pytest.mark.no_cover  # the other tests are measured
@pytest.mark.filterwarnings("ignore::hessalign.exceptions.HessalignWarning")  # the checks know no domains
@parametrize_with_checks(ALL)
def test_scikit_learns_checks(estimator, check) -> None:
    check(estimator)


def spurious(random: Random, samples: int = 3000, classes: int = 2, domains: int = 3) -> tuple:
    """Two invariant features and two that move with class and domain, hidden by a rotation."""
    y, site = random.integers(0, classes, samples), random.integers(0, domains, samples)
    spurious_means = 2 * random.normal(size=(domains, classes, 2))
    spread = np.array([1.0, 2.0, 0.5])[:domains]
    own = random.normal(size=(samples, 2)) + np.eye(2)[y % 2]
    other = spurious_means[site, y] + spread[site, None] * random.normal(size=(samples, 2))
    rotation = np.linalg.qr(random.normal(size=(4, 4)))[0]
    return np.hstack([own, other]) @ rotation, y, site, rotation


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("transformer", [ISRMean(components=2), ISRCov(components=2)])
def test_the_spurious_subspace_is_found(transformer, classes: int) -> None:
    X, y, site, rotation = spurious(np.random.default_rng(0), classes=classes)
    fitted = transformer.fit(X, y, sample_domain=site)
    # What is left of the spurious directions, and of the invariant ones.
    left = fitted.transform(rotation)
    assert np.abs(left[2:]).max() < 0.15
    np.testing.assert_allclose(left[:2], rotation[:2], atol=0.15)
    np.testing.assert_allclose(fitted.components_ @ fitted.components_.T, np.eye(2), atol=1e-12)


def test_isr_mean_is_the_rule_written_out() -> None:
    X, y, site, _ = spurious(np.random.default_rng(1), samples=60)
    fitted = ISRMean(classes=1).fit(X, y, sample_domain=site)
    means = np.array([X[(y == 1) & (site == e)].mean(0) for e in range(3)])
    values, vectors = np.linalg.eigh((means - means.mean(0)).T @ (means - means.mean(0)))
    directions = vectors[:, values > 1e-9]
    assert directions.shape[1] == 2
    expected = X - X @ directions @ directions.T
    np.testing.assert_allclose(fitted.transform(X), expected, atol=1e-9)
    half = ISRMean(classes=[1], scale=0.5).fit(X, y, sample_domain=site).transform(X)
    np.testing.assert_allclose(half, (X + expected) / 2, atol=1e-9)


def test_isr_cov_of_two_domains_is_the_published_rule() -> None:
    X, y, site, _ = spurious(np.random.default_rng(1), samples=400, domains=2)
    fitted = ISRCov(components=2, classes=0).fit(X, y, sample_domain=site)
    first, second = (np.cov(X[(y == 0) & (site == e)].T, bias=True) for e in range(2))
    values, vectors = np.linalg.eigh(second - first)
    chosen = vectors[:, np.argsort(-np.abs(values))[:2]]
    np.testing.assert_allclose(fitted.components_.T @ fitted.components_, chosen @ chosen.T, atol=1e-9)


def test_each_domain_is_centred_and_whitened_by_itself() -> None:
    random = np.random.default_rng(0)
    site = np.array(["a"] * 30 + ["b"] * 50)
    X = random.normal(size=(80, 3)) @ random.normal(size=(3, 3)) + 5 * (site == "b")[:, None]
    centred = DomainCentering(with_std=True).fit(X, sample_domain=site)
    np.testing.assert_allclose(centred.means_[1], X[30:].mean(0))
    expected = np.concatenate([(part - part.mean(0)) / part.std(0) for part in (X[:30], X[30:])])
    np.testing.assert_allclose(centred.transform(X, sample_domain=site), expected)
    np.testing.assert_allclose(centred.fit_transform(X, sample_domain=site), expected)
    white = DomainWhitening().fit(X, sample_domain=site)
    covariance = ledoit_wolf(X[30:] - X[30:].mean(0), assume_centered=True)[0]
    expected = (X[30:] - X[30:].mean(0)) @ np.linalg.inv(sqrtm(covariance).real)
    np.testing.assert_allclose(white.transform(X[30:], sample_domain=site[30:]), expected, atol=1e-9)
    # A new domain by its own samples; without ids by the average of the sources.
    new = 3 * random.normal(size=(40, 3)) + 9
    moved = DomainCentering().fit(X, sample_domain=site).transform(new, sample_domain=["c"] * 40)
    np.testing.assert_allclose(moved, new - new.mean(0))
    average = DomainCentering().fit(X, sample_domain=site).transform(new)
    np.testing.assert_allclose(average, new - (X[:30].mean(0) + X[30:].mean(0)) / 2)
    unknown = white.transform(new)
    middle = np.linalg.inv(sqrtm(white.covariances_.mean(0)).real)
    np.testing.assert_allclose(unknown, (new - white.means_.mean(0)) @ middle, atol=1e-9)


def test_domains_are_told_by_where_their_means_lie_among_the_sources() -> None:
    random = np.random.default_rng(0)
    site = np.repeat(["a", "b", "c"], 40)
    X = random.normal(size=(120, 4)) + 3 * random.normal(size=(3, 4)).repeat(40, axis=0)
    informed = DomainInformedFeatures(interactions=True)
    found = informed.fit_transform(X, sample_domain=site)
    means = np.array([X[site == name].mean(0) for name in "abc"])
    centred = means - means.mean(0)
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    told = found[:, 4:6]
    assert found.shape == (120, 4 + 2 + 8)
    np.testing.assert_array_equal(found[:, :4], X)
    for code, name in enumerate("abc"):
        np.testing.assert_allclose(
            np.abs(told[site == name]), np.abs(np.sqrt(3) * left[code, :2]) + 0 * X[:40, :2]
        )
    np.testing.assert_allclose(found[:, 6:], np.hstack([X * told[:, :1], X * told[:, 1:]]))
    np.testing.assert_allclose(np.square(told).mean(0), 1)
    assert informed.get_feature_names_out().tolist()[3:8] == [
        "x3",
        "domain0",
        "domain1",
        "x0 domain0",
        "x1 domain0",
    ]
    # A new domain is told by its own samples; without ids, by the middle of the sources.
    new = informed.transform(X[:40] + 1, sample_domain=["new"] * 40)[:, 4:6]
    expected = informed.components_ @ (means[0] + 1 - means.mean(0))
    np.testing.assert_allclose(new, np.tile(expected, (40, 1)))
    np.testing.assert_array_equal(informed.transform(X)[:, 4:], 0)


def test_a_head_that_is_told_the_domain_follows_a_relation_that_changes_with_it() -> None:
    random = np.random.default_rng(1)
    place = np.array([-2.0, -1.0, 1.0, 2.0, 1.5])  # the last one is new
    site = np.arange(5).repeat(200)
    X = np.column_stack([random.normal(size=1000), place[site] + 0.1 * random.normal(size=1000)])
    y = (X[:, 0] * place[site] > 0).astype(int)
    sources = site < 4
    with config_context(enable_metadata_routing=True):
        scores = []
        for interactions in (False, True):
            informed = DomainInformedFeatures(interactions=interactions)
            head = LogisticRegression().fit(
                informed.fit_transform(X[sources], sample_domain=site[sources]), y[sources]
            )
            scores.append(
                head.score(informed.transform(X[~sources], sample_domain=site[~sources]), y[~sources])
            )
    assert scores[0] < 0.7
    assert scores[1] > 0.95


def test_domains_reach_them_in_a_pipeline() -> None:
    X, y, site, _ = spurious(np.random.default_rng(0), samples=300)
    with config_context(enable_metadata_routing=True):
        for transformer in (ISRMean(), DomainWhitening()):
            pipeline = make_pipeline(transformer, LogisticRegression()).fit(X, y, sample_domain=site)
            assert pipeline[0].domains_.tolist() == [0, 1, 2]
        expected = LogisticRegression().fit(DomainWhitening().fit_transform(X, sample_domain=site), y)
        np.testing.assert_allclose(pipeline[-1].coef_, expected.coef_)


@pytest.mark.parametrize("transformer", ALL)
def test_a_transformer_comes_back_whole(transformer, tmp_path: Path) -> None:
    X, y, site, _ = spurious(np.random.default_rng(0), samples=200)
    names = np.array(["clinic", "field", "lab"])[site]
    fitted = transformer.fit(X, y, sample_domain=names)
    fitted.save(tmp_path / "transformer.safetensors")
    loaded = type(transformer).load(tmp_path / "transformer.safetensors")
    assert loaded.get_params() == fitted.get_params()
    assert loaded.domains_.tolist() == ["clinic", "field", "lab"]
    # The same numbers in another order in memory: their products may round otherwise.
    np.testing.assert_allclose(loaded.transform(X), fitted.transform(X), rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match="holds a "):
        next(type(other) for other in ALL if type(other) is not type(transformer)).load(
            tmp_path / "transformer.safetensors"
        )


def test_what_has_no_effect_or_is_not_to_be_trusted_says_so() -> None:
    X, y, site, _ = spurious(np.random.default_rng(0), samples=60)
    for transformer in (ISRMean(), ISRCov(), DomainCentering()):
        with pytest.warns(NoEffectWarning, match="no effect across domains without sample_domain"):
            transformer.fit(X, y)
    with pytest.warns(NoEffectWarning, match="only one domain, clinic, so no direction can be removed"):
        unchanged = ISRMean().fit(X, y, sample_domain=["clinic"] * 60)
    np.testing.assert_array_equal(unchanged.transform(X), X)
    for X_of_one, site_of_one, why in (
        (X, ["clinic"] * 60, "one domain"),
        (X[[0] * 60], site, "the domains' m"),
    ):
        with pytest.warns(NoEffectWarning, match=f"no effect: {why}"):
            informed = DomainInformedFeatures().fit(X_of_one, sample_domain=site_of_one)
        np.testing.assert_array_equal(informed.transform(X_of_one), X_of_one)
    with pytest.warns(UntrustworthyWarning, match="covariances from so few differ by chance"):
        ISRCov().fit(X[:12], y[:12], sample_domain=site[:12])
    centering = DomainCentering().fit(X, sample_domain=site)
    with pytest.warns(UntrustworthyWarning, match=r"fewer than 2 samples are not to be trusted: 7 \(1\)"):
        centering.transform(X[:1], sample_domain=[7])
    with pytest.warns(UntrustworthyWarning, match="fewer than 5 samples"):
        DomainWhitening(shrinkage="none").fit(X[:4], sample_domain=[0] * 4)
    with pytest.warns(UntrustworthyWarning, match=r"4 \(1\) and 45 more"):
        DomainCentering().fit(np.tile(X, (1, 1))[:50], sample_domain=np.arange(50))


@pytest.mark.parametrize(
    ("transformer", "arguments", "message"),
    [
        (ISRMean(components=0), {}, "components: must be None or a whole number of at least 1, got 0"),
        (ISRMean(scale=2), {}, "scale: must be a finite number of at least 0 and of at most 1, got 2"),
        (DomainInformedFeatures(0), {}, "components: must be None or a whole number of at least 1, got 0"),
        (DomainInformedFeatures(interactions=1), {}, "interactions: must be True or False, got 1"),
        (ISRCov(classes=["x"]), {}, r"classes: must be labels of y, 0, 1, got \['x'\]"),
        (ISRMean(), {"sample_domain": [0, 1]}, "sample_domain: must hold one domain id for each of the 60"),
        (ISRMean(), {"y": np.arange(60) / 7}, "y: class labels must be"),
        (ISRMean(), {"y": np.repeat([0, 1], 30), "sample_domain": np.repeat(["a", "b"], 30)},
         "no class has samples in 2 domains"),
        (DomainCentering(with_std="yes"), {}, "with_std: must be True or False, got 'yes'"),
        (DomainWhitening(shrinkage="much"), {}, "shrinkage: 'much' is not known; allowed are 'ledoit_wolf'"),
        (DomainCentering(), {"X": np.full((60, 2), np.nan)}, "Input X contains NaN"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(transformer, arguments: dict, message: str) -> None:
    X, y, site, _ = spurious(np.random.default_rng(0), samples=60)
    given = {"X": X, "y": y, "sample_domain": site} | arguments
    with pytest.raises(ValueError, match=message):
        transformer.fit(given["X"], given["y"], sample_domain=given["sample_domain"])
