"""Every option of every method: it changes the result, or somebody is told that it does not, once."""

import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import hessalign as ha

METHODS = ("gradient", "hgp", "hutchinson", "diagonal", "frobenius", "spectral")
PROBES = {"probes": 3, "expected": True}


def batch() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    domains = torch.arange(24) % 3
    features = features + domains.unsqueeze(1)
    weight = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return features, features @ weight.T, torch.arange(24) // 3 % 2, domains


def told(make: Any) -> tuple[Any, list[str]]:
    """A result, and the names of the options without effect."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = make()
    found = [re.search(r"([a-z, ]+): '\w+' does not read", str(each.message)) for each in caught]
    names = [match[1].strip().split(", ") for match in found if match is not None]
    assert len(names) <= 1
    return result, names[0] if names else []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("alpha", 0.7),
        ("alpha", torch.tensor(0.7)),
        ("beta", 0.7),
        ("centre", "mean_product"),
        ("unbiased", True),
        ("bias", False),
        ("reduction", "sum"),
        ("loss", ha.CrossEntropy(label_smoothing=0.1)),
    ],
)
def test_an_option_of_the_penalty(method: str, option: str, value: object) -> None:
    base = PROBES if method == "hutchinson" else {}
    if option == "unbiased" and method == "spectral":
        pytest.skip("refused")
    plain, unread = told(lambda: ha.HessianAlignment(method, **base)(*batch()))
    assert unread == []
    other, unread = told(lambda: ha.HessianAlignment(method, **base, **{option: value})(*batch()))
    assert (unread == [option]) == bool(other == plain)
    assert unread in ([], [option])


@pytest.mark.parametrize("method", ["none", *METHODS])
@pytest.mark.parametrize(
    ("option", "value"), [("alpha", 0.7), ("beta", 0.7), ("probes", 7), ("centre", "mean_product")]
)
@pytest.mark.parametrize(
    "estimator",
    [ha.HessianAlignedClassifier, pytest.param(ha.HessianAlignedRegressor, marks=pytest.mark.slow)],
)
def test_an_option_of_an_estimator(estimator: type, method: str, option: str, value: object) -> None:
    features, _, targets, domains = (given.numpy() for given in batch())

    def coefficients(**options: object) -> np.ndarray:
        # With the identity some Hessians have no distance, of which another warning tells.
        kind = {} if estimator is ha.HessianAlignedClassifier else {"activation": "sigmoid"}
        head = estimator(method, max_iter=2, **kind, **options)
        return head.fit(features, targets, sample_domain=domains).coef_

    plain, unread = told(coefficients)
    assert unread == []
    other, unread = told(lambda: coefficients(**{option: value}))
    assert unread == ([option] if np.array_equal(plain, other) else [])


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_of_zero_and_a_default_ask_for_nothing(method: str) -> None:
    base = PROBES if method == "hutchinson" else {}
    for options in ({"alpha": 0.0}, {"alpha": 0}, {"alpha": 1e-4}, {"centre": None}):
        assert told(lambda given=options: ha.HessianAlignment(method, **base, **given))[1] == []
