"""Every hyper-parameter of every algorithm: it changes what is trained, or is known to be read by nothing."""

import warnings
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from pydantic.fields import FieldInfo
from torch import Tensor

from hessalign.algorithms import algorithm_names, get_algorithm
from hessalign.exceptions import NoEffectWarning
from tests.algorithms.images import WAITS, draw_batch, make_on_images

ELSEWHERE = {"batch_size", "dropout"}
"""Read by what draws batches, and by the backbone."""
TELLING = {
    ("and_mask", "tau"): 0.2,
    ("mldg", "meta_test_domains"): 1,
    ("transfer", "radius"): 1e-4,
}
"""Values that make a difference on these batches where those nearby do not."""
RARE = {
    ("cad", "variant"),
    ("cond_cad", "variant"),
    ("mldg", "variant"),
    ("sand_mask", "k"),
    ("sand_mask", "tau"),
    ("sand_mask", "variant"),
    ("transfer", "variant"),
}
"""Read in cases that these batches are not."""


def others(algorithm: str, name: str, field: FieldInfo, value: Any) -> Iterator[Any]:
    if (algorithm, name) in TELLING:
        yield TELLING[algorithm, name]
    elif get_origin(field.annotation) is Literal:
        yield from (choice for choice in get_args(field.annotation) if choice != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    else:
        yield value / 2 if value else 0.1


def trained(algorithm: str, hparams: dict[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        made = make_on_images(algorithm, hparams)
        optimizers = made.make_optimizers()
        for _ in range(5):
            made.update(draw_batch(generator), optimizers)
    return made.state_dict()


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(name, marks=() if name in ("dann", "hutchinson") else pytest.mark.slow)
        for name in algorithm_names()
    ],
)
def test_what_is_not_read_is_known(algorithm: str) -> None:
    hparams = get_algorithm(algorithm).hparams_class
    base = dict(WAITS.get(algorithm, {}))
    if "anneal_steps" in hparams.model_fields:
        base.setdefault("anneal_steps", 2)
    plain, values = trained(algorithm, base), hparams.with_defaults("large", base)
    for name, field in hparams.model_fields.items():
        if name in ELSEWHERE or (algorithm, name) in RARE:
            continue
        found = [
            trained(algorithm, {**base, name: value})
            for value in others(algorithm, name, field, getattr(values, name))
        ]
        same = [
            state.keys() == plain.keys() and all(torch.equal(state[key], plain[key]) for key in plain)
            for state in found
        ]
        assert all(same) == (name in hparams.unread), name


@pytest.mark.parametrize(
    ("algorithm", "space", "asked", "told"),
    [
        (
            "dann",
            "large",
            {"lr": 0.1},
            "settings: dann does not read lr; it has generator_lr and",
        ),
        ("adrmx", "large", {"weight_decay": "0.1"}, "settings: adrmx does not read weight_decay"),
        ("erm", "small", {"dropout": "0.5"}, "settings: images of 28 pixels are trained without dropout"),
        ("erm", "small", {"dropout": "0"}, None),
        ("erm", "large", {"dropout": "0.5", "lr": 0.1, "weight_decay": 0.1}, None),
        ("dann", "large", {"generator_lr": 0.1}, None),
    ],
)
def test_what_is_asked_for_and_not_read_is_told(
    algorithm: str, space: str, asked: dict[str, Any], told: str | None
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        get_algorithm(algorithm).hparams_class.check_read(algorithm, space, asked)
    sentences = [str(each.message) for each in caught]
    assert len(sentences) == (told is not None)
    assert all(sentence.startswith(told) for sentence in sentences)
