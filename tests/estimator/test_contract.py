"""The estimators keep scikit-learn's contract, and domain ids reach them through its tools."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import hessalign as ha
from hessalign.exceptions import NoEffectWarning
from tests.estimator.samples import coloured, shifted_classes


@pytest.mark.no_cover  # the other tests are measured
@pytest.mark.filterwarnings("ignore::hessalign.exceptions.NoEffectWarning")  # the checks know no domains
@parametrize_with_checks([ha.HessianAlignedClassifier(), ha.HessianAlignedRegressor()])
def test_scikit_learns_checks(estimator, check) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hessalign.exceptions.NoEffectWarning")
@parametrize_with_checks(
    [
        ha.HessianAlignedClassifier("hutchinson", dtype="float32"),
        ha.HessianAlignedRegressor("gradient", warm_start=True),
    ],
    expected_failed_checks=lambda estimator: (
        {"check_sample_weight_equivalence_on_dense_data": "asks for more digits than float32 has"}
        if estimator.dtype == "float32"
        else {}
    ),
)
def test_scikit_learns_checks_of_other_parameters(estimator, check) -> None:
    check(estimator)


def test_the_library_lists_the_estimators_and_nothing_alike() -> None:
    assert {"HessianAlignedClassifier", "LeaveOneDomainOut"} <= set(dir(ha))
    with pytest.raises(AttributeError, match="HessianAligned"):
        ha.HessianAligned  # noqa: B018


def test_domains_reach_pipelines_and_searches_by_metadata_routing() -> None:
    samples = coloured([0.9, 0.8, 0.6], samples=200)
    pipeline = make_pipeline(StandardScaler(), ha.HessianAlignedClassifier("gradient", beta=1.0))
    with config_context(enable_metadata_routing=True):
        pipeline.fit(samples.X, samples.y, sample_domain=samples.domains)
        assert pipeline[-1].domains_.tolist() == [0, 1, 2]
        params = {"sample_domain": samples.domains}
        found = cross_validate(
            pipeline, samples.X, samples.y, params=params, cv=ha.LeaveOneDomainOut(), return_estimator=True
        )
        assert [fold[-1].domains_.tolist() for fold in found["estimator"]] == [[1, 2], [0, 2], [0, 1]]
        search = GridSearchCV(
            pipeline, {"hessianalignedclassifier__beta": [0.0, 1.0]}, cv=ha.LeaveOneDomainOut()
        )
        search.fit(samples.X, samples.y, **params)
    assert search.n_splits_ == 3
    assert search.best_estimator_[-1].domains_.tolist() == [0, 1, 2]
    scores = np.array([search.cv_results_[f"split{fold}_test_score"] for fold in range(3)])
    assert (scores[:, 0] != scores[:, 1]).any()


def test_groups_reach_the_splitter_only_and_params_the_fit_too() -> None:
    samples = coloured([0.9, 0.8, 0.6], samples=50)
    classifier = ha.HessianAlignedClassifier("gradient", beta=10.0)
    arguments = {"groups": samples.domains, "cv": ha.LeaveOneDomainOut()}
    with pytest.warns(NoEffectWarning, match="groups= reaches the splitter only"):
        plain = cross_val_score(classifier, samples.X, samples.y, **arguments)
    none = cross_val_score(ha.HessianAlignedClassifier("none"), samples.X, samples.y, **arguments)
    assert (plain == none).all()
    aligned = cross_val_score(
        classifier, samples.X, samples.y, **arguments, params={"sample_domain": samples.domains}
    )
    assert (aligned != none).any()


def test_domains_reach_searches_without_metadata_routing() -> None:
    samples = coloured([0.9, 0.8, 0.6], samples=200)
    search = GridSearchCV(
        ha.HessianAlignedClassifier("gradient"), {"beta": [0.0, 1.0]}, cv=ha.LeaveOneDomainOut()
    )
    search.fit(samples.X, samples.y, groups=samples.domains, sample_domain=samples.domains)
    fold = ha.HessianAlignedClassifier("gradient", beta=1.0)
    train, test = samples.rows(samples.domains != 1), samples.rows(samples.domains == 1)
    expected = fold.fit(train.X, train.y, sample_domain=train.domains).score(test.X, test.y)
    assert search.cv_results_["split1_test_score"][1] == expected


def test_a_clone_fits_the_same_head() -> None:
    samples = shifted_classes()
    fitted = ha.HessianAlignedClassifier("diagonal", alpha=0.5, beta=0.2)
    fitted.fit(samples.X, samples.y, sample_domain=samples.domains)
    again = clone(fitted).fit(samples.X, samples.y, sample_domain=samples.domains)
    assert not hasattr(clone(fitted), "coef_")
    assert (again.coef_ == fitted.coef_).all()
    assert (again.intercept_ == fitted.intercept_).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_predictions_agree_with_each_other(classes: int) -> None:
    samples = shifted_classes(classes=classes)
    names = np.array(["cat", "dog", "hen"])[samples.y]
    fitted = ha.HessianAlignedClassifier("hgp", 0.5, 0.5).fit(samples.X, names, sample_domain=samples.domains)
    probabilities = fitted.predict_proba(samples.X)
    logits = samples.X @ fitted.coef_.T + fitted.intercept_
    np.testing.assert_allclose(fitted.decision_function(samples.X), logits.squeeze())
    if classes == 2:
        logits = np.column_stack([np.zeros(len(logits)), logits])
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(samples.X)), expected)
    assert (fitted.predict(samples.X) == fitted.classes_[probabilities.argmax(1)]).all()
