"""DomainBed's seeds and splits, to the last digit."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessalign.datasets import seed_hash, split_indices


@pytest.mark.parametrize(
    ("arguments", "seed"),
    [
        ((0, 0), 894182419),
        ((0, 1), 1514274641),
        ((0, 2), 1325548499),
        ((1, 0), 785910682),
        ((1, 1), 1442673865),
        ((2, 0), 472130416),
        ((2, 1), 181139023),
        (("VLCS", "ERM", [1, 2], 1, 0), 360234358),
        (("VLCS", "ERM", [0], 0, 0), 1721972278),
        (("RotatedMNIST", "HGP", [0], 0, 0), 563870196),
        (("PACS", "HGP", [0, 1], 3, 2), 1225855936),
    ],
)
def test_seeds_are_domain_beds(arguments: tuple[object, ...], seed: int) -> None:
    assert seed_hash(*arguments) == seed


def test_one_argument_is_hashed_as_a_tuple() -> None:
    assert seed_hash("x") == int(hashlib.md5(b"('x',)").hexdigest(), 16) % 2**31


def test_splits_are_domain_beds() -> None:
    inside, outside = split_indices(10, trial_seed=0, domain=0)
    assert outside == [2, 3]
    assert inside == [8, 1, 4, 5, 0, 9, 6, 7]
    assert split_indices(100, 0, 0)[1][:10] == [1, 62, 30, 11, 58, 46, 33, 45, 47, 77]


def test_numpy_numbers_split_as_pythons_do() -> None:
    assert split_indices(50, np.int64(1), np.int64(2)) == split_indices(50, 1, 2)


@given(
    samples=st.integers(0, 300),
    trial_seed=st.integers(0, 5),
    domain=st.integers(0, 9),
    holdout_fraction=st.floats(0, 1, exclude_max=True),
)
def test_every_sample_is_on_one_side(
    samples: int, trial_seed: int, domain: int, holdout_fraction: float
) -> None:
    inside, outside = split_indices(samples, trial_seed, domain, holdout_fraction)
    assert sorted(inside + outside) == list(range(samples))
    assert len(outside) == int(holdout_fraction * samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0, 0), "samples: must be a whole number of at least 0, got -1"),
        ((10, -1, 0), "trial_seed: must be a whole number of at least 0, got -1"),
        ((2.5, 0, 0), "samples: must be a whole number of at least 0, got 2.5"),
        ((10, "1", 0), "trial_seed: must be a whole number of at least 0, got '1'"),
        ((10, 0, 0, "half"), "holdout_fraction: must be a finite number .* got 'half'"),
        ((10, 0, -1), "domain: must be a whole number of at least 0, got -1"),
        ((10, 0, 0, 1.0), "holdout_fraction: must be a finite number of at least 0 and below 1, got 1.0"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_indices(*arguments)
