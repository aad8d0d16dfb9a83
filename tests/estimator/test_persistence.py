"""Saved estimators come back whole, or one sentence says why not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save, save_file
from sklearn.exceptions import NotFittedError

import hessalign as ha
from hessalign.exceptions import UntrustworthyWarning
from hessalign.metrics import evaluate
from hessalign.training import TrainedModel
from tests.estimator.samples import shifted_classes, shifted_line

LABELS = {
    "strings": np.array(["cat", "dog", "hühnchen"]),
    "objects": np.array(["cat", "dog", "hen"], dtype=object),
    "integers": np.array([-3, 7, 2**60]),
    "floats": np.array([1.0, 2.0, 4.0]),
}

FIRST_EDITION = Path(__file__).with_name("first_edition.safetensors")
FIRST_COEF = [
    [-1.190033070168982, 0.715005901337113, 0.04336808828246327],
    [1.2488974324890025, -0.7506349375640639, -0.2268708201749759],
    [-0.05886436232002081, 0.03562903622695102, 0.18350273189251481],
]


def fitted_classifier(labels: str = "strings", **params) -> ha.HessianAlignedClassifier:
    samples = shifted_classes()
    domains = np.array(["clinic", "field", "lab"])[samples.domains]
    classifier = ha.HessianAlignedClassifier(
        **{"method": "hgp", "alpha": 0.5, "beta": np.float64(2), **params}
    )
    return classifier.fit(samples.X, LABELS[labels][samples.y], sample_domain=domains)


@pytest.mark.parametrize("labels", LABELS)
def test_a_classifier_comes_back_whole(labels: str, tmp_path: Path) -> None:
    X = shifted_classes(seed=1).X
    classifier = fitted_classifier(labels, alpha=0, beta="auto", method="gradient")
    classifier.save(tmp_path / "head.safetensors")
    loaded = ha.HessianAlignedClassifier.load(tmp_path / "head.safetensors")
    assert loaded.get_params() == classifier.get_params()
    assert vars(loaded).keys() == vars(classifier).keys()
    for name, value in vars(classifier).items():
        if name == "auto_results_":
            for key, column in value.items():
                np.testing.assert_array_equal(loaded.auto_results_[key], column)
        else:
            np.testing.assert_array_equal(getattr(loaded, name), value)
    assert loaded.classes_.dtype == classifier.classes_.dtype
    np.testing.assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    np.testing.assert_array_equal(loaded.predict(X), classifier.predict(X))


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regressor_comes_back_whole(outputs: int, tmp_path: Path) -> None:
    samples = shifted_line()
    y = samples.y if outputs == 1 else np.column_stack([samples.y, -samples.y])
    regressor = ha.HessianAlignedRegressor("hgp", 0.1, 0.1, activation="softplus")
    regressor.fit(samples.X, y, sample_domain=samples.domains).save(tmp_path / "head.safetensors")
    loaded = ha.HessianAlignedRegressor.load(str(tmp_path / "head.safetensors"))
    np.testing.assert_array_equal(loaded.predict(samples.X), regressor.predict(samples.X))
    assert type(loaded.intercept_) is type(regressor.intercept_)
    with pytest.raises(
        ValueError, match=r"path: .* holds a HessianAlignedRegressor, not a HessianAlignedClass"
    ):
        ha.HessianAlignedClassifier.load(tmp_path / "head.safetensors")


def test_weights_by_class_come_back(tmp_path: Path) -> None:
    classifier = fitted_classifier(class_weight={"cat": 2.0, "hühnchen": 1.0, "dog": 1.0})
    classifier.save(tmp_path / "head.safetensors")
    loaded = ha.HessianAlignedClassifier.load(tmp_path / "head.safetensors")
    assert loaded.get_params() == classifier.get_params()


def test_a_file_of_the_first_edition_predicts_as_before_and_says_when_it_is_fitted_anew() -> None:
    classifier = ha.HessianAlignedClassifier.load(FIRST_EDITION)
    samples = shifted_classes()
    assert classifier.get_params()["C"] == 0.5
    assert classifier.classes_.tolist() == ["cat", "dog", "hen"]
    logits = samples.X @ classifier.coef_.T + classifier.intercept_
    assert (classifier.predict(samples.X) == classifier.classes_[logits.argmax(1)]).all()
    np.testing.assert_allclose(classifier.coef_, FIRST_COEF)
    names = classifier.classes_[samples.y]
    with pytest.warns(UntrustworthyWarning, match="were chosen in another unit"):
        classifier.fit(samples.X, names, sample_domain=samples.domains)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    fitted_classifier().save(path)
    content = path.read_bytes()
    for length in (0, 5, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"path: .*head.safetensors is cut short or no safetensors file"):
            ha.HessianAlignedClassifier.load(path)


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    classifier = fitted_classifier()
    classifier.save(path)
    content = path.read_bytes()
    for position in range(0, len(content), 5):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        try:
            loaded = ha.HessianAlignedClassifier.load(path)
        except ValueError as error:
            assert str(error).startswith("path: ")  # noqa: PT017 (some bytes are padding and change nothing)
        else:
            np.testing.assert_array_equal(loaded.coef_, classifier.coef_)
            np.testing.assert_array_equal(loaded.classes_, classifier.classes_)


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"path: .* holds no estimator of hessalign"):
        ha.HessianAlignedClassifier.load(path)
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="is cut short or no safetensors file"):
        ha.HessianAlignedClassifier.load(path)
    with pytest.raises(FileNotFoundError, match="absent"):
        ha.HessianAlignedClassifier.load(tmp_path / "absent.safetensors")


def test_what_is_in_the_file_can_be_read_by_anyone(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    classifier = fitted_classifier()
    classifier.save(path)
    np.testing.assert_array_equal(load(path.read_bytes())["coef"], classifier.coef_)
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    about = json.loads(header["__metadata__"]["estimator"])
    assert about["arrays"]["classes_"]["values"] == LABELS["strings"].tolist()
    assert about["versions"]["hessalign"] == ha.__version__


def test_what_cannot_be_saved_harms_no_file(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    with pytest.raises(NotFittedError):
        ha.HessianAlignedClassifier().save(path)
    samples = shifted_line()
    regressor = ha.HessianAlignedRegressor("none", activation=torch.sin)
    regressor.fit(samples.X, np.sin(samples.y))
    path.write_bytes(save({"kept": np.ones(1)}))
    with pytest.raises(ValueError, match="activation: only numbers and strings can be saved, got <built-in"):
        regressor.save(path)
    assert load(path.read_bytes())["kept"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["head.safetensors"]


def test_an_estimator_is_shared_with_a_card_and_comes_back_whole(tmp_path: Path) -> None:
    samples = shifted_classes(seed=1)
    classifier = fitted_classifier()
    domains = np.array(["a|b", "[north]", "lab"])[samples.domains]
    found = evaluate(
        LABELS["strings"][samples.y],
        probabilities=classifier.predict_proba(samples.X),
        domains=domains,
        classes=classifier.classes_,
    )
    classifier.save_pretrained(
        tmp_path / "head", data="Three [clinics].", selection="leave-one-domain-out", evaluation=found
    )
    classifier.save(tmp_path / "head.safetensors")
    content = (tmp_path / "head" / "model.safetensors").read_bytes()
    assert load(content).keys() == load((tmp_path / "head.safetensors").read_bytes()).keys()
    back = ha.HessianAlignedClassifier.from_pretrained(str(tmp_path / "head"))
    np.testing.assert_array_equal(back.predict_proba(samples.X), classifier.predict_proba(samples.X))
    card = (tmp_path / "head" / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: tabular-classification" in card
    assert "left out in turn" in card
    assert r"| a\|b |" in card
    assert f"{found.domains.values['accuracy'][list(found.domains.names).index('lab')]:.3f}" in card
    config = json.loads((tmp_path / "head" / "config.json").read_text())
    assert config["estimator"]["class_name"] == "HessianAlignedClassifier"
    assert config["estimator"]["params"]["alpha"] == 0.5


def test_a_shared_estimator_of_another_kind_is_refused(tmp_path: Path) -> None:
    fitted_classifier().save_pretrained(tmp_path / "head")
    with pytest.raises(ValueError, match="holds a HessianAlignedClassifier, not a HessianAlignedRegressor"):
        ha.HessianAlignedRegressor.from_pretrained(tmp_path / "head")
    with pytest.raises(ValueError, match=r"model: .* holds an estimator, not a trained run"):
        TrainedModel.load(tmp_path / "head")
    with pytest.raises(NotFittedError):
        ha.HessianAlignedClassifier().save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
