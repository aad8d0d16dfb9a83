"""Odd arguments: the right head, or one sentence that names what is wrong; never another head."""
# ruff: noqa: E501 (tables of wrong arguments)

import os
import re
import warnings

import numpy as np
import polars as pl
import pytest
import torch
from scipy import sparse

import hessalign as ha
from hessalign.exceptions import HessalignWarning
from tests.estimator.samples import shifted_classes

CALLS = 800 if os.environ.get("CI") else 60
NAMED = re.compile(
    r"X|y\b|sample_domain|sample_weight|alpha|beta|\bC\b|l2|tol|max_iter|method|feature|sample|class|label|target"
    r"|domain_weight|scoring|device|dtype|fit_intercept|warm_start|centre|probes"
)

Random = np.random.Generator


def same_features(random: Random, X: np.ndarray) -> object:
    """The same numbers in another container."""
    kinds = [X, X.tolist(), pl.DataFrame(X), torch.from_numpy(X), X.astype(object), np.asfortranarray(X)]
    return kinds[random.integers(len(kinds))]


def same_ids(random: Random, codes: np.ndarray, *, order: bool = True) -> object:
    """The same domains or classes under other names, whose order is the same."""
    names = np.array(["a", "b", "c"])[codes]
    numbers = [codes, codes.tolist(), codes.astype(np.int8) + 5, torch.from_numpy(codes), pl.Series(codes)]
    words = [names, names.tolist(), names.astype(object), pl.Series(names.tolist())]
    kinds = numbers + words
    return kinds[random.integers(len(kinds))]


def same_weights(random: Random, samples: int) -> object:
    ones = np.ones(samples)
    kinds = [None, ones, ones.tolist(), 3, pl.Series(ones), torch.ones(samples), ones.astype(int)]
    return kinds[random.integers(len(kinds))]


def bad(random: Random, X: np.ndarray, y: np.ndarray, domains: np.ndarray) -> tuple[dict, dict]:
    """Parameters and arguments of a fit of which one is wrong."""
    samples = len(y)
    holes = X.copy()
    holes[random.integers(samples), random.integers(X.shape[1])] = random.choice([np.nan, np.inf, -np.inf])
    arguments = {"X": X, "y": y, "sample_domain": domains}
    wrong = [
        {"X": holes}, {"X": X[:-1]}, {"X": X[0]}, {"X": X[:, :0]}, {"X": X[:0], "y": y[:0]}, {"X": None},
        {"X": sparse.csr_array(X)}, {"X": X + 1j}, {"X": [["a"] * 3] * samples}, {"X": X[:, :, None]},
        {"X": X * 1e200}, {"X": "X"}, {"X": 3}, {"X": [[1.0], [1.0, 2.0]]},
        {"y": y[:-1]}, {"y": None}, {"y": y + 0.5}, {"y": np.zeros(samples)}, {"y": np.stack([y, y], 1)},
        {"y": [None] * samples}, {"y": np.where(y == 0, np.nan, y)}, {"y": y + 1j},
        {"y": ["a", 1, None] * (samples // 3)},
        {"sample_domain": domains[:-1]}, {"sample_domain": domains + 0.5}, {"sample_domain": np.zeros(samples, int)},
        {"sample_domain": [None] * samples}, {"sample_domain": "clinic"}, {"sample_domain": np.stack([domains] * 2)},
        {"sample_domain": [["a"], ["b", "c"]]}, {"sample_domain": {"a": 1}}, {"sample_domain": 3},
        {"sample_weight": -np.ones(samples)}, {"sample_weight": np.zeros(samples)}, {"sample_weight": "heavy"},
        {"sample_weight": np.full(samples, np.nan)}, {"sample_weight": np.ones(samples - 1)},
        {"sample_weight": np.ones((samples, 2))}, {"sample_weight": ["a"] * samples}, {"sample_weight": 1j},
    ]  # fmt: skip
    params = [
        {"method": None}, {"method": ["hgp"]}, {"alpha": -1}, {"alpha": "1"}, {"alpha": None}, {"alpha": np.inf},
        {"beta": [1]}, {"beta": True}, {"C": -1}, {"C": "1"}, {"C": np.nan}, {"C": True}, {"tol": -1}, {"tol": None},
        {"max_iter": 0}, {"max_iter": 1.5}, {"max_iter": "10"}, {"probes": 0, "method": "hutchinson"},
        {"centre": None}, {"dtype": "float16"}, {"dtype": np.float32}, {"device": "abacus"}, {"device": 1.5},
        {"fit_intercept": 1}, {"warm_start": "no"}, {"class_weight": "x"}, {"class_weight": {9: 1.0}},
        {"class_weight": [1.0]}, {"domain_weight": None}, {"scoring": "x"}, {"scoring": 3},
        {"C": "auto", "domains": None},
    ]  # fmt: skip
    choice = int(random.integers(len(wrong) + len(params)))
    if choice < len(wrong):
        return {}, arguments | wrong[choice]
    chosen = dict(params[choice - len(wrong)])
    if "domains" in chosen:
        arguments["sample_domain"] = chosen.pop("domains")
    return chosen, arguments


@pytest.mark.filterwarnings("ignore:.* does not read:hessalign.exceptions.NoEffectWarning")
def test_the_same_samples_in_other_containers_give_the_same_head() -> None:
    random = np.random.default_rng(0)
    samples = shifted_classes(samples=60)
    for _ in range(CALLS // 9):
        method = random.choice(["none", "gradient", "hgp", "diagonal"])
        reference = ha.HessianAlignedClassifier(method, 0.1, 0.1)
        reference.fit(samples.X, samples.y, sample_domain=samples.domains)
        again = ha.HessianAlignedClassifier(method, 0.1, 0.1).fit(
            same_features(random, samples.X),
            same_ids(random, samples.y),
            same_weights(random, len(samples.y)),
            sample_domain=same_ids(random, samples.domains),
        )
        # A weight of 3 for each makes C count for more.
        if np.isclose(again.coef_, reference.coef_, atol=1e-6).all():
            continue
        threes = ha.HessianAlignedClassifier(method, 0.1, 0.1)
        threes.fit(samples.X, samples.y, 3 * np.ones(60), sample_domain=samples.domains)
        np.testing.assert_allclose(again.coef_, threes.coef_, atol=1e-6)


def test_what_is_wrong_is_named_in_one_sentence() -> None:
    random = np.random.default_rng(1)
    samples = shifted_classes(samples=60)
    for _ in range(CALLS):
        params, arguments = bad(random, samples.X, samples.y, samples.domains)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HessalignWarning)
            with pytest.raises((ValueError, TypeError)) as caught:
                ha.HessianAlignedClassifier(**params).fit(**arguments)
        message = str(caught.value)
        assert NAMED.search(message), (params, arguments, message)
        assert "operand" not in message, message


@pytest.mark.parametrize("estimator", [ha.HessianAlignedClassifier, ha.HessianAlignedRegressor])
def test_odd_but_right_domains(estimator: type) -> None:
    samples = shifted_classes(samples=60)
    alone = samples.domains.copy()
    alone[0] = 7  # one sample, and so one class
    for domains in (alone, np.arange(60), samples.domains == 0, np.array(["", " ", "\n"])[samples.domains]):
        fitted = estimator("hgp", 0.1, 0.1).fit(samples.X, samples.y, sample_domain=domains)
        assert np.isfinite(fitted.coef_).all()
        assert len(fitted.domains_) == len(set(domains.tolist()))
        plain = estimator("none").fit(samples.X, samples.y)
        assert fitted.objective_ <= plain.objective_ + 0.2 * plain.loss_ + 1e-6
