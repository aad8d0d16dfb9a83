"""Views of a sample are that one sample: in the loss, in penalties, in splits and in scores."""

import numpy as np
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate

import hessalign as ha
from hessalign.estimator import (
    AFRClassifier,
    DFRClassifier,
    FishrClassifier,
    GroupDROClassifier,
    IRMClassifier,
    JTTClassifier,
    VRExClassifier,
)
from tests.estimator.samples import shifted_classes, shifted_line

HEADS = [
    ha.HessianAlignedClassifier("none"),
    ha.HessianAlignedClassifier("hgp", 0.5, 0.5, domain_weight="equal"),
    ha.HessianAlignedClassifier("frobenius", 0.5, 0.5),
    GroupDROClassifier(adjustment=1.0),
    VRExClassifier(),
    IRMClassifier(),
    FishrClassifier(),
    JTTClassifier(3.0),
    AFRClassifier(),
    DFRClassifier(0.3, n_subsets=3),
]


@pytest.mark.filterwarnings("ignore::hessalign.exceptions.UntrustworthyWarning")
@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_copies_as_views_change_nothing(head) -> None:
    samples = shifted_classes()
    head = sklearn.clone(head).set_params(tol=1e-6)
    alone = sklearn.clone(head).fit(samples.X, samples.y, sample_domain=samples.domains)
    rows = np.arange(90).repeat(3)
    copied = head.fit(samples.X[rows], samples.y[rows], sample_domain=samples.domains[rows], sample_id=rows)
    close = 2e-2 if isinstance(head, DFRClassifier) else 1e-3  # liblinear goes through rows in a drawn order
    np.testing.assert_allclose(copied.coef_, alone.coef_, atol=close * np.abs(alone.coef_).max())
    assert copied.loss_ == pytest.approx(alone.loss_, rel=close)


def test_unequal_numbers_of_views_weigh_as_the_sample_does() -> None:
    samples = shifted_classes()
    times = np.arange(90) % 4 + 1
    rows = np.arange(90).repeat(times)
    noisy = samples.X[rows] + 0.1 * np.random.default_rng(0).normal(size=(len(rows), 3))
    order = np.random.default_rng(1).permutation(len(rows))
    found = ha.HessianAlignedClassifier("none", tol=1e-8).fit(
        noisy[order], samples.y[rows][order], sample_id=np.array([f"image {row}" for row in rows])[order]
    )
    expected = LogisticRegression(tol=1e-10, max_iter=1000).fit(noisy, samples.y[rows], 1 / times[rows])
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-5)


def test_a_regressor_takes_views() -> None:
    samples = shifted_line()
    rows = np.arange(90).repeat(2)
    alone = ha.HessianAlignedRegressor().fit(samples.X, samples.y, sample_domain=samples.domains)
    copied = ha.HessianAlignedRegressor().fit(
        samples.X[rows], samples.y[rows], sample_domain=samples.domains[rows], sample_id=rows
    )
    np.testing.assert_allclose(copied.coef_, alone.coef_, rtol=1e-6)


def with_wild_views(samples) -> tuple[np.ndarray, np.ndarray]:
    """Every sample, and then a view of it that no head could get right."""
    rows = np.arange(len(samples.y)).repeat(2)
    X = samples.X[rows]
    X[1::2] = 50 * np.random.default_rng(3).normal(size=X[1::2].shape)
    return rows, X


@pytest.mark.parametrize("with_domains", [True, False])
def test_auto_scores_samples_and_never_views(with_domains: bool) -> None:
    samples = shifted_classes()
    rows, X = with_wild_views(samples)
    kind = {"sample_domain": samples.domains} if with_domains else {"sample_group": samples.y}
    head = GroupDROClassifier("auto", scoring="accuracy", C=1.0)
    seen = []

    def scorer(fitted, X, y) -> float:
        seen.append(X)
        return fitted.score(X, y)

    head.set_params(scoring=scorer).fit(
        X, samples.y[rows], sample_id=rows, **{key: ids[rows] for key, ids in kind.items()}
    )
    plain = {row.tobytes() for row in samples.X}
    assert seen
    assert all(row.tobytes() in plain for scored in seen for row in scored)
    sizes = np.bincount(samples.domains) if with_domains else [18] * 5
    assert sorted({len(scored) for scored in seen}) == sorted({*sizes})


def test_a_split_has_all_views_of_a_sample_on_one_side() -> None:
    samples = shifted_classes()
    rows, X = with_wild_views(samples)
    kinds = {"sample_domain": samples.domains[rows], "sample_id": rows}
    folds = list(ha.LeaveOneDomainOut().split(X, **kinds))
    for domain, (train, test) in enumerate(folds):
        assert not {*rows[train]} & {*rows[test]}
        assert (test % 2 == 0).all()
        assert len(test) == (samples.domains == domain).sum()
        assert len(train) == 2 * (samples.domains != domain).sum()
    with sklearn.config_context(enable_metadata_routing=True):
        found = cross_validate(
            ha.HessianAlignedClassifier("none"),
            X,
            samples.y[rows],
            cv=ha.LeaveOneDomainOut(),
            params=kinds,
            return_indices=True,
        )
    assert [test.tolist() for test in found["indices"]["test"]] == [test.tolist() for _, test in folds]


def test_dfr_and_afr_take_a_sample_with_its_views_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = shifted_classes()
    rows = np.arange(90).repeat(3)
    noisy = samples.X[rows] + 0.1 * np.random.default_rng(0).normal(size=(270, 3))
    seen = []
    original = LogisticRegression.fit

    def fit(self, X, y, sample_weight=None):
        seen.append((X, sample_weight))
        return original(self, X, y, sample_weight)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    head = DFRClassifier(n_subsets=2).fit(
        noisy, samples.y[rows], sample_group=samples.y[rows], sample_id=rows
    )
    assert head.group_size_ == 30
    assert [len(X) for X, _ in seen] == [270] * 6
    np.testing.assert_allclose(seen[0][1], 1 / 3)
    uneven = samples.y.copy()
    uneven[:40] = 0
    seen.clear()
    head = DFRClassifier(n_subsets=2).fit(noisy, uneven[rows], sample_group=uneven[rows], sample_id=rows)
    assert {len(X) for X, _ in seen} == {9 * head.group_size_}

    afr = AFRClassifier().fit(noisy, samples.y[rows], sample_id=rows)
    assert afr.converged_


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.arange(6) % 2}, "sample_id, y: all rows of a sample are views of it and have the same y"),
        ({"sample_weight": [1, 2, 1, 1, 1, 1]}, "same sample_weight; those of sample 0 do not"),
        ({"sample_domain": [0, 0, 0, 0, 0, 1]}, "same sample_domain; those of sample 2 do not"),
        ({"sample_id": [0, 1]}, "sample_id: must hold one sample id for each of the 6 samples"),
        ({"sample_id": [0.5] * 6}, "sample_id: sample ids must be integers or strings"),
    ],
)
def test_views_that_contradict_their_sample_are_one_sentence(changes: dict, message: str) -> None:
    given = {"X": np.eye(6), "y": [0, 0, 1, 1, 0, 0], "sample_id": [0, 0, 1, 1, 2, 2], **changes}
    with pytest.raises(ValueError, match=message):
        ha.HessianAlignedClassifier("none").fit(**given)


def test_ids_of_which_each_is_there_once_are_as_none() -> None:
    samples = shifted_classes()
    alone = ha.HessianAlignedClassifier("none").fit(samples.X, samples.y)
    named = ha.HessianAlignedClassifier("none").fit(samples.X, samples.y, sample_id=np.arange(90))
    assert (alone.coef_ == named.coef_).all()
