"""Metrics of slices against scikit-learn's on each slice, and one sentence for every wrong argument."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    roc_auc_score,
)
from sklearn.model_selection import cross_validate

import hessalign as ha
from hessalign.exceptions import UntrustworthyWarning
from hessalign.metrics import (
    HIGHER_IS_BETTER,
    OF_ONE_CLASS,
    Scorer,
    count_groups,
    evaluate,
    is_metric,
    measure_split,
)


def by_scikit_learn(labels: np.ndarray, probabilities: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Every metric but the calibration error, by one call each."""
    present, predicted = np.unique(labels), probabilities.argmax(1)
    kind = {"sample_weight": weight}
    areas = [
        roc_auc_score(labels == c, probabilities[:, c], **kind)
        for c in present
        if 0 < (labels == c).sum() < len(labels)
    ]
    recalls = [accuracy_score(labels[labels == c], predicted[labels == c], sample_weight=weight[labels == c])
               for c in present]  # fmt: skip
    return {
        "accuracy": accuracy_score(labels, predicted, **kind),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": f1_score(labels, predicted, labels=present, average="macro", zero_division=0, **kind),
        "auroc": float(np.mean(areas)) if areas else float("nan"),
        "log_loss": log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1]), **kind),
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, weight: np.ndarray, bins: int) -> float:
    """Sample by sample."""
    error = 0.0
    for b in range(bins):
        confidence = probabilities.max(1)
        chosen = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        right = probabilities.argmax(1) == labels
        error += abs((weight * (right - confidence))[chosen].sum()) / weight.sum()
    return float(error)


@given(st.integers(0, 10**6), st.sampled_from([2, 3, 5]), st.booleans())
def test_each_slice_is_what_scikit_learn_says_of_it(seed: int, classes: int, weighted: bool) -> None:
    random = np.random.default_rng(seed)
    samples = int(random.integers(2, 60))
    labels, domains = random.integers(0, classes, samples), random.integers(0, 3, samples)
    # Few distinct values, so that there are ties.
    probabilities = random.integers(1, 4, (samples, classes)).astype(float)
    probabilities /= probabilities.sum(1, keepdims=True)
    weight = random.uniform(0.1, 3, samples) if weighted else np.ones(samples)
    found = evaluate(
        labels, probabilities, domains=domains, sample_weight=weight if weighted else None,
        classes=np.arange(classes), bins=7,
    )  # fmt: skip
    slices = [(found.overall, np.full(samples, True))]
    for part, codes in ((found.domains, domains), (found.groups, domains * classes + labels)):
        names = np.unique(codes)
        assert part.counts.tolist() == [int((codes == name).sum()) for name in names]
        slices += [
            ({metric: values[i] for metric, values in part.values.items()}, codes == name)
            for i, name in enumerate(names)
        ]
    for values, rows in slices:
        expected = by_scikit_learn(labels[rows], probabilities[rows], weight[rows])
        expected["ece"] = calibration_error(labels[rows], probabilities[rows], weight[rows], 7)
        assert values.keys() == expected.keys() == HIGHER_IS_BETTER.keys()
        for metric, value in expected.items():
            assert values[metric] == pytest.approx(value, abs=1e-9, nan_ok=True), metric


def test_balanced_accuracy_and_calibration_are_those_of_the_libraries() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 4, 500), random.dirichlet(np.ones(4), 500)
    found = evaluate(labels, probabilities).overall
    assert found["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, probabilities.argmax(1))
    )
    expected = torchmetrics.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), 4, n_bins=15
    )
    assert found["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_the_worst_and_both_means() -> None:
    labels = ["cow", "cow", "cow", "dog", "cow", "dog", "dog"]
    right = [1, 1, 0, 1, 0, 1, 1]
    domains = ["a", "a", "a", "a", "b", "b", "b"]
    second = [0.9 if (label == "dog") == bool(hit) else 0.1 for label, hit in zip(labels, right, strict=True)]
    training = count_groups(["cow"] * 6 + ["dog"] * 4, domains=["a"] * 5 + ["b"] * 5)
    assert training == {("a", "cow"): 5, ("b", "cow"): 1, ("b", "dog"): 4}
    found = evaluate(labels, second, domains=domains, training_counts=training)
    groups = found.groups
    assert list(groups.names) == [("a", "cow"), ("a", "dog"), ("b", "cow"), ("b", "dog")]
    np.testing.assert_allclose(groups.values["accuracy"], [2 / 3, 1, 0, 1])
    assert (groups.worst("accuracy"), groups.worst_name("accuracy")) == (0, ("b", "cow"))
    assert groups.mean("accuracy") == pytest.approx((2 / 3 + 1 + 0 + 1) / 4)
    assert groups.training_mean("accuracy") == pytest.approx(0.5 * 2 / 3 + 0.1 * 0 + 0.4 * 1)
    assert found.overall["accuracy"] == pytest.approx(5 / 7)
    # Of a loss the largest is the worst; the AUROC of one class is not defined and counts nowhere.
    assert groups.worst("log_loss") == groups.values["log_loss"].max()
    assert np.isnan(groups.worst("auroc"))
    assert groups.worst_name("auroc") is None
    assert np.isnan(groups.mean("auroc"))
    summary = found.summary()
    assert summary["worst_group_accuracy"] == found.value("worst-group-accuracy") == 0
    assert summary["training_mean_group_accuracy"] == groups.training_mean("accuracy")
    assert summary["mean_domain_accuracy"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert "training_mean_domain_accuracy" not in summary
    assert np.isnan(found.domains.training_mean("accuracy"))
    frame = groups.to_frame()
    assert frame.columns[:4] == ["domain", "class", "samples", "training_share"]
    assert frame["domain"].to_list() == ["a", "a", "b", "b"]
    assert found.domains.to_frame().columns[:2] == ["domain", "samples"]


def test_attributes_may_be_the_groups() -> None:
    found = evaluate([0, 1, 1, 0], [0.1, 0.9, 0.2, 0.1], groups=["wet", "dry", "wet", "dry"])
    assert list(found.groups.names) == ["dry", "wet"]
    assert found.groups.values["accuracy"].tolist() == [1.0, 0.5]
    assert found.groups.to_frame().columns[0] == "group"
    assert found.domains is None
    assert evaluate([0, 1], [0.1, 0.9]).groups is None
    shares = evaluate([0, 1, 1], [0.1, 0.9, 0.2], groups=["a", "b", "b"], training_counts={"a": 3, "c": 1})
    assert shares.groups.training_shares.tolist() == [0.75, 0.0]


@pytest.mark.parametrize("outputs", [1, 3])
def test_logits_and_probabilities_of_every_container_are_the_same(outputs: int) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20, outputs)) if outputs > 1 else random.normal(size=20)
    labels = random.integers(0, max(2, outputs), 20)
    probabilities = (
        torch.softmax(torch.from_numpy(logits), 1) if outputs > 1 else torch.sigmoid(torch.from_numpy(logits))
    )
    expected = evaluate(labels, logits=logits).summary()
    for given_probabilities in (probabilities, probabilities.numpy(), probabilities.tolist()):
        assert evaluate(labels.tolist(), given_probabilities).summary() == pytest.approx(expected)
    names = pl.Series(np.array(["cow", "dog", "hen"])[labels].tolist())
    assert evaluate(names, logits=torch.from_numpy(logits)).summary() == pytest.approx(expected)
    # The order of the classes is the caller's.
    if outputs == 3:
        turned = evaluate(labels, probabilities.numpy()[:, ::-1], classes=[2, 1, 0])
        assert turned.summary() == pytest.approx(expected)


def test_classes_that_nobody_has_are_classes_all_the_same() -> None:
    assert evaluate([0, 2], [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]).overall["accuracy"] == 1
    found = evaluate(["b"], [[0.7, 0.2, 0.1]], classes=["a", "b", "c"]).overall
    assert found["accuracy"] == 0
    assert np.isnan(found["auroc"])


def test_a_probability_of_zero_is_no_infinite_loss() -> None:
    assert np.isfinite(evaluate([1, 0], [0.0, 0.1]).overall["log_loss"])
    single = torch.tensor([0.0, 0.1])
    assert evaluate([1, 0], single).overall["log_loss"] == pytest.approx(
        log_loss([1, 0], single.numpy()), rel=1e-5
    )


def test_samples_without_weight_count_nowhere() -> None:
    found = evaluate([0, 1, 1], [0.1, 0.9, 0.2], domains=[0, 0, 1], sample_weight=[1, 1, 0])
    assert found.overall["accuracy"] == 1
    assert found.domains.worst("accuracy") == 1
    assert np.isnan(found.domains.values["accuracy"][1])


def test_scores_of_estimators_take_domains_and_groups() -> None:
    random = np.random.default_rng(0)
    y, site = random.integers(0, 3, 120), np.repeat([0, 1, 2], 40)
    X = random.normal(size=(120, 4)) + y[:, None] * (site[:, None] < 2)
    classifier = LogisticRegression().fit(X, y)
    found = evaluate(y, classifier.predict_proba(X), domains=site)
    score = Scorer("worst-group-log-loss")(classifier, X, y, sample_domain=site)
    assert score == -found.groups.worst("log_loss")
    assert Scorer("ece")(classifier, X, y) == -found.overall["ece"]
    by_attribute = Scorer("worst_group_accuracy")(classifier, X, y, sample_group=site)
    assert by_attribute == found.domains.worst("accuracy")
    with config_context(enable_metadata_routing=True):
        scores = cross_validate(
            ha.HessianAlignedClassifier("none"), X, y, scoring=Scorer("worst_domain_accuracy"),
            params={"sample_domain": site}, cv=3,
        )  # fmt: skip
    assert len(scores["test_score"]) == 3
    for name in ("worst_group_accuracy", "mean-domain-auroc", "ece"):
        assert is_metric(name)
    for name in ("accuracy", "f1_macro", None, "worst_group_f1"):
        assert not is_metric(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probabilities": None}, "probabilities, logits: exactly one is needed, got neither"),
        ({"logits": [0.1, 0.2, 0.3]}, "probabilities, logits: exactly one is needed, got both"),
        ({"probabilities": [0.1, 0.9, 1.2]}, "must lie between 0 and 1 .* logits go under logits="),
        ({"probabilities": [[0.5, 0.2]] * 3}, "probabilities: .* add up to 1 .* sums up to 0.7"),
        ({"probabilities": [0.1, np.nan, 0.2]}, "probabilities: must be finite, got NaN"),
        (
            {"probabilities": [0, 1, 1]},
            r"probabilities: must be real numbers, .* int64 of shape \(3,\), as pred",
        ),
        ({"probabilities": np.eye(2, dtype=int)[[0, 1, 1]]}, r"probabilities: .* int64 of shape \(3, 2\)"),
        ({"probabilities": torch.tensor([True, False, True])}, "probabilities: .* an array of bool"),
        ({"probabilities": None, "logits": [0, 1, 1]}, r"logits: must be real numbers, .* of shape \(3,\)"),
        ({"probabilities": None, "logits": np.eye(2, dtype=bool)[[0, 1, 1]]}, "logits: .* an array of bool"),
        ({"probabilities": [0.1, 0.2]}, "targets: must hold one class id for each of the 2 samples"),
        ({"probabilities": "x"}, "probabilities: must be an array"),
        ({"probabilities": np.ones((3, 2, 2)) / 2}, "probabilities: must have shape"),
        ({"targets": [0.5, 1, 0]}, "targets: class ids must be integers or strings, got dtype float64"),
        ({"targets": [0, 1, 2]}, "targets: hold 3 classes where 2 are predicted; name all of them"),
        ({"classes": 2}, "classes: must be an array or a list, got 2"),
        ({"classes": [0]}, "classes: must name each of the 2 classes once, got 1 names"),
        ({"classes": [0, 0]}, "classes: must name each of the 2 classes once, got 2 names, 1 of them dis"),
        ({"classes": ["a", "b"]}, "targets: 0 is none of the classes; allowed are 'a', 'b'"),
        ({"domains": [0, 1]}, "domains: must hold one domain id for each of the 3 samples"),
        ({"groups": [0, 1]}, "groups: must hold one group id for each of the 3 samples"),
        ({"sample_weight": [1, 1, -1]}, "sample_weight: must hold one finite weight of at least 0"),
        ({"sample_weight": [0, 0, 0]}, "sample_weight: .* not all 0"),
        ({"training_counts": {0: 1}}, "training_counts: are of groups, but neither groups nor domains"),
        ({"domains": [0, 0, 1], "training_counts": {0: 1}}, r"none of the groups \(0, 0\), .* the ids given"),
        ({"groups": [0, 0, 1], "training_counts": {0: -1}}, r"training_counts\[0\]: must be a finite number"),
        ({"groups": [0, 0, 1], "training_counts": [1]}, "training_counts: must map group ids to counts"),
        ({"bins": 0}, "bins: must be a whole number of at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(**{"targets": [0, 1, 0], "probabilities": [0.1, 0.9, 0.2]} | arguments)


@pytest.mark.parametrize("predicted", [[0.0, 1.0, 0.0], np.eye(2)[[0, 1, 0]]])
def test_probabilities_that_may_be_predicted_classes_are_doubted(predicted) -> None:
    with pytest.warns(UntrustworthyWarning, match="probabilities: all are 0 or 1, as of predicted classes"):
        assert evaluate([0, 1, 1], predicted).overall["accuracy"] == pytest.approx(2 / 3)


def test_whole_numbers_may_be_logits_of_several_classes() -> None:
    assert evaluate([0, 1], logits=[[2, -1], [0, 3]]).overall["accuracy"] == 1


def test_the_prediction_is_told_before_logarithms_round_it() -> None:
    close = np.array([[1e-17, 2e-17], [2e-17, 1e-17]])  # equal, once the logarithm of their sum is taken off
    assert evaluate([1, 0], logits=close).overall["accuracy"] == 1


@given(st.integers(0, 10**6), st.sampled_from([2, 4]))
def test_a_split_is_measured_as_its_slice_of_an_evaluation(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    labels, domains = random.integers(0, classes, 40), random.integers(0, 2, 40)
    logits, counts = random.normal(size=(40, classes)).round(1), random.integers(0, 9, classes)
    whole = evaluate(labels, logits=logits, domains=domains, classes=range(classes))
    for domain in whole.domains.names:
        rows = domains == domain
        found = measure_split(labels[rows], logits[rows], counts)
        here = evaluate(
            labels[rows], logits=logits[rows], groups=labels[rows], classes=range(classes),
            training_counts=dict(enumerate(counts)) if counts[np.unique(labels[rows])].any() else None,
        )  # fmt: skip
        place = whole.domains.names.index(domain)
        for name, value in found.items():
            if name.startswith("training_mean") and here.groups.training_shares is None:
                assert np.isnan(value)
            else:
                np.testing.assert_equal(value, here.value(name))
        for metric, values in whole.domains.values.items():
            np.testing.assert_equal(found[metric], values[place])  # to the last bit


def test_what_a_split_cannot_tell() -> None:
    one_class = measure_split(np.array([1, 1]), np.zeros((2, 3)))
    nothing = measure_split(np.zeros(0, dtype=int), np.zeros((0, 3)), np.ones(3, dtype=int))
    undefined = [name for name, value in one_class.items() if np.isnan(value)]
    assert undefined == ["auroc", *(f"training_mean_group_{metric}" for metric in OF_ONE_CLASS)]
    assert np.isnan([*nothing.values()]).all()


def test_many_classes_are_ranked_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels, logits = random.integers(0, 7, 50), random.normal(size=(50, 7)).round(1)
    expected = measure_split(labels, logits)
    monkeypatch.setattr("hessalign.metrics.slicing.ENTRIES_AT_ONCE", 100)
    assert measure_split(labels, logits) == expected | {
        name: pytest.approx(np.nan, nan_ok=True) for name, value in expected.items() if np.isnan(value)
    }


def test_names_that_are_not_known() -> None:
    found = evaluate([0, 1], [0.1, 0.9], domains=["a", "b"])
    with pytest.raises(ValueError, match="name: 'worst' is not known here; allowed are accuracy, "):
        found.value("worst")
    with pytest.raises(ValueError, match="metric: 'f1' is not known; allowed are 'accuracy'"):
        found.domains.mean("f1")
    for name, message in (("f1", "allowed are accuracy"), ("worst_group_auroc", "needs one of them")):
        with pytest.raises(ValueError, match=message):
            Scorer(name)(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), [[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="sample_domain: 'worst_domain_ece' needs the domain"):
        Scorer("worst_domain_ece")(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), [[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="domains, groups: one of them is needed"):
        count_groups([0, 1])
    with pytest.raises(ValueError, match="targets: must be an array"):
        count_groups(3, groups=[1])
