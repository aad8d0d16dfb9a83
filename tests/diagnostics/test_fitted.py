"""A report straight from fitted estimators: features, scores, loss, bias and labels are those of its head."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

import hessalign as ha
from hessalign.exceptions import UntrustworthyWarning

FEW = {"replicates": 0, "eigenvalues": 2, "top_samples": 2}
CLASSES = np.array(["cat", "dog", "eel"])


class Data:
    """Three hospitals, three classes in words."""

    def __init__(self, classes: int = 3, samples: int = 180) -> None:
        random = np.random.default_rng(0)
        self.codes = random.integers(0, classes, samples)
        self.X = random.normal(size=(samples, 4)) + 0.7 * self.codes[:, None]
        self.y = CLASSES[self.codes % 3]
        self.domains = np.array(["a", "b", "c"])[np.arange(samples) % 3]
        self.X[self.domains == "b", 0] += 1


def assert_same(report: ha.AlignmentReport, other: ha.AlignmentReport) -> None:
    assert report.names == other.names
    for name in report.tables:
        assert_frame_equal(report.to_frame(name), other.to_frame(name), rel_tol=1e-9, abs_tol=1e-12)


def unwarned(*arguments: Any, **options: Any) -> ha.AlignmentReport:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ha.alignment_report(*arguments, **FEW, **options)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_logistic_regression_is_its_features_scores_and_labels(classes: int, fit_intercept: bool) -> None:
    data = Data(classes)
    model = LogisticRegression(fit_intercept=fit_intercept).fit(data.X, data.y)
    names = CLASSES[1:2] if classes == 2 else CLASSES
    expected = unwarned(
        data.X,
        model.decision_function(data.X),
        data.codes.astype(float) if classes == 2 else data.codes,
        data.domains,
        bias=fit_intercept,
        output_names=names.tolist(),
    )
    report = unwarned(model, data.X, data.y, data.domains)
    assert (
        report.to_frame("groups")["group"].unique(maintain_order=True).to_list() == CLASSES[:classes].tolist()
    )
    for name in set(report.tables) - {"groups"}:
        assert_frame_equal(report.to_frame(name), expected.to_frame(name), rel_tol=1e-9, abs_tol=1e-12)
    parts = report.to_frame("parts")["attribute"].unique(maintain_order=True).to_list()
    assert ("error" in parts) == ("confidence" in parts) == fit_intercept


def test_without_a_bias_there_is_no_derivative_of_one() -> None:
    """Against dense Hessians of d columns; in both ways of computing them, and for all quantities."""
    data = Data()
    model = LogisticRegression(fit_intercept=False).fit(data.X, data.y)
    report = unwarned(model, data.X, data.y, data.domains)
    features, codes = torch.from_numpy(data.X), torch.from_numpy(data.codes)
    derivatives = {
        name: ha.HeadDerivatives.from_logits(
            features[rows], torch.from_numpy(model.decision_function(data.X[rows])), codes[rows], bias=False
        )
        for name in "abc"
        for rows in [data.domains == name]
    }
    for first, second in ("ab", "ac", "bc"):
        difference = derivatives[first].hessian() - derivatives[second].hessian()
        assert difference.shape == (12, 12)
        found = dict(
            report.to_frame().filter(first=first, second=second).select("quantity", "distance").iter_rows()
        )
        gradients = derivatives[first].gradient() - derivatives[second].gradient()
        assert found["gradient"] == pytest.approx(float(gradients.norm()), rel=1e-9)
        assert found["Hessian Frobenius"] == pytest.approx(float(difference.norm()), rel=1e-9)
        assert found["Hessian diagonal"] == pytest.approx(float(difference.diagonal().norm()), rel=1e-9)
        spectral = float(torch.linalg.eigvalsh(difference).abs().max())
        assert found["Hessian spectral"] == pytest.approx(spectral, rel=1e-8)
    totals = report.to_frame("parts").group_by("first", "second", "derivative").agg(pl.col("share").sum())
    assert totals["share"].to_list() == pytest.approx([1] * 6)


def test_features_of_a_pipeline_are_what_its_last_step_sees() -> None:
    data = Data()
    steps = StandardScaler(), PCA(3)
    pipeline = make_pipeline(*steps, LogisticRegression()).fit(data.X, data.y)
    seen = pipeline[:-1].transform(data.X)
    expected = unwarned(pipeline[-1], seen, data.y, data.domains)
    assert_same(unwarned(pipeline, data.X, data.y, data.domains), expected)
    search = GridSearchCV(make_pipeline(*steps, LogisticRegression()), {"logisticregression__C": [1.0]}, cv=2)
    search.fit(data.X, data.y)
    assert_same(unwarned(search, data.X, data.y, data.domains), expected)


@pytest.mark.parametrize("make", [torch.from_numpy, np.ndarray.tolist, pl.DataFrame])
def test_samples_may_come_in_any_container(make: Callable[[np.ndarray], Any]) -> None:
    data = Data()
    samples = make(data.X)
    model = LogisticRegression().fit(samples if isinstance(samples, pl.DataFrame) else data.X, data.y)
    labels = pl.Series(data.y) if isinstance(samples, pl.DataFrame) else data.y.tolist()
    assert_same(
        unwarned(model, samples, labels, data.domains),
        unwarned(model, data.X, data.y, data.domains)
        if not isinstance(samples, pl.DataFrame)
        else unwarned(model, samples, data.y, data.domains),
    )


def test_sparse_samples_and_coefficients() -> None:
    data = Data()
    model = SGDClassifier(loss="log_loss", random_state=0).fit(csr_matrix(data.X), data.y)
    expected = unwarned(model, data.X, data.y, data.domains)
    assert_same(unwarned(model.sparsify(), csr_matrix(data.X), data.y, data.domains), expected)


def test_our_own_estimators() -> None:
    data = Data()
    classifier = ha.HessianAlignedClassifier("hgp", alpha=0.1, beta=0.1)
    classifier.fit(data.X, data.y, sample_domain=data.domains)
    expected = unwarned(
        data.X, classifier.decision_function(data.X), data.codes, data.domains, output_names=CLASSES.tolist()
    )
    assert_same(unwarned(classifier, data.X, data.y, data.domains), expected)
    data = Data(samples=600)
    targets = np.tanh(data.X @ [0.3, -0.2, 0.1, 0.0])
    regressor = ha.HessianAlignedRegressor("hgp", activation="tanh").fit(
        data.X, targets, sample_domain=data.domains
    )
    report = unwarned(regressor, data.X, targets, data.domains)
    assert report.attributes[3] == "curvature"
    logits = data.X @ regressor.coef_ + regressor.intercept_
    assert_same(report, unwarned(data.X, logits, targets, data.domains, loss=ha.SquaredError("tanh")))


@pytest.mark.parametrize("model", [Ridge(), LinearRegression(fit_intercept=False)])
def test_linear_regressors(model: Any) -> None:
    data = Data()
    targets = data.X @ [1.0, 0.5, 0.0, -1.0] + 0.1 * data.codes
    report = unwarned(model.fit(data.X, targets), data.X, targets, data.domains)
    assert ("error" in report.to_frame("parts")["attribute"]) == model.fit_intercept


def test_one_against_the_rest_is_read_as_such() -> None:
    data = Data()
    model = SGDClassifier(loss="log_loss", random_state=0).fit(data.X, data.y)
    report = unwarned(model, data.X, data.y, data.domains)
    expected = unwarned(
        data.X,
        model.decision_function(data.X),
        np.eye(3)[data.codes],
        data.domains,
        loss="binary_cross_entropy",
        output_names=CLASSES.tolist(),
    )
    assert_same(report, expected)


def test_discriminant_analysis_is_a_softmax() -> None:
    data = Data()
    model = LinearDiscriminantAnalysis().fit(data.X, data.y)
    expected = unwarned(
        data.X, model.decision_function(data.X), data.y, data.domains, output_names=CLASSES.tolist()
    )
    assert_same(unwarned(model, data.X, data.y, data.domains), expected)


def test_scores_that_are_no_logits_are_told() -> None:
    data = Data()
    model = LinearSVC().fit(data.X, data.y)
    with pytest.warns(UntrustworthyWarning, match="logits: LinearSVC was not fitted by cross-entropy"):
        report = ha.alignment_report(model, data.X, data.y, data.domains, **FEW)
    assert report.notes[0].startswith("logits: LinearSVC")
    unwarned(model, data.X, data.y, data.domains, loss="cross_entropy")  # asked for, so no surprise


FITTED = LogisticRegression().fit(Data().X, Data().y)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((LogisticRegression(), Data().X), {}, "features: this LogisticRegression is not fitted"),
        (
            (RandomForestClassifier(2).fit(Data().X, Data().y), Data().X),
            {},
            "features: RandomForestClassifier ends in RandomForestClassifier, which has no coef_",
        ),
        (
            (make_pipeline(StandardScaler(), PCA(2)).fit(Data().X), Data().X),
            {},
            "features: Pipeline ends in PCA, which has no coef_",
        ),
        (
            (SVC(kernel="linear").fit(Data(4).X, Data(4).codes), Data(4).X),
            {"y": Data(4).codes},
            "features: the scores of SVC are not those of its coefficients",
        ),
        ((Data().X, FITTED), {}, "logits: got a LogisticRegression; a fitted estimator comes first"),
        (
            (FITTED, Data().X[:, :3]),
            {},
            "logits: LogisticRegression takes samples of 4 features, got an array",
        ),
        (
            (FITTED, Data().X),
            {"bias": False},
            "bias: LogisticRegression was fitted with an intercept, got Fal",
        ),
        ((FITTED, Data().X), {"y": ["cow"] * 180}, "y: 'cow' is no class; allowed are 'cat', 'dog', 'eel'"),
        ((FITTED, Data().X), {"y": Data().y[:9]}, "y: must hold one class id for each of the 180 samples"),
        (
            (PoissonRegressor().fit(Data().X, Data().codes), Data().X),
            {"y": Data().codes},
            "features: the predictions of PoissonRegressor are not those of its coefficients",
        ),
        (
            (Data().X, Data().X),
            {"y": ["a", "b"] * 90},
            "y: 2 different labels cannot be matched to 4 classes",
        ),
        (
            (Data().X, Data().X),
            {"y": ["a", "b"] * 90, "output_names": ["a", "c", "d", "e"]},
            "y: 'b' is no class; allowed are 'a', 'c', 'd', 'e'",
        ),
        (
            (Data().X, Data().X),
            {"y": Data().codes, "loss": ha.CrossEntropy(class_weight=[1.0, 2.0, 1.0, 1.0])},
            "loss: a report weighs all samples of a domain alike",
        ),
        ((Data().X, Data().X), {"y": Data().codes, "bias": "no"}, "bias: must be True or False, got 'no'"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[Any, Any], options: dict[str, Any], message: str) -> None:
    data = Data()
    settings = {"y": data.y, **options}
    with pytest.raises(ValueError, match=message):
        ha.alignment_report(*arguments, settings.pop("y"), data.domains, **FEW, **settings)


def test_labels_in_words_beside_plain_arrays() -> None:
    """In the order of the names given; without names ascending, as scikit-learn has its classes."""
    data = Data()
    logits = FITTED.decision_function(data.X)
    names = CLASSES.tolist()
    expected = unwarned(data.X, logits, data.codes, data.domains, output_names=names)
    assert_same(unwarned(data.X, logits, data.y, data.domains), expected)
    turned = unwarned(data.X, logits[:, ::-1], data.y, data.domains, output_names=names[::-1])
    assert_frame_equal(turned.to_frame(), expected.to_frame(), rel_tol=1e-9)


def test_one_logit_is_binary() -> None:
    data = Data(classes=2)
    logits = LogisticRegression().fit(data.X, data.y).decision_function(data.X)
    report = unwarned(data.X, logits, data.y, data.domains)
    expected = unwarned(data.X, logits, data.codes, data.domains, loss="binary_cross_entropy")
    assert_frame_equal(report.to_frame(), expected.to_frame())
    assert report.to_frame("groups")["group"].unique(maintain_order=True).to_list() == ["cat", "dog"]
