"""Balanced batches for a plain DataLoader."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hessalign.exceptions import UntrustworthyWarning
from hessalign.loop import DomainBalancedSampler
from hessalign.loop.sampler import draw_samples

DOMAINS = ["b", "a", "b", "b", "c", "a", "b", "b", "b", "c"]
repeats = pytest.mark.filterwarnings("ignore:samples_per_domain. domain 'a' and . others have fewer samples")
"""Domains a and c have two samples each."""


@repeats
def test_every_batch_has_as_many_samples_of_every_domain() -> None:
    dataset = TensorDataset(torch.arange(10))
    sampler = DomainBalancedSampler(DOMAINS, 3, batches=20)
    batches = list(DataLoader(dataset, batch_sampler=sampler))
    assert len(batches) == len(sampler) == 20
    for (rows,) in batches:
        assert [DOMAINS[row] for row in rows] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert {int(row) for (rows,) in batches for row in rows} == set(range(10))


@repeats
def test_a_pass_sees_as_many_samples_as_there_are() -> None:
    assert len(DomainBalancedSampler(np.arange(600) % 3, 32)) == 600 // 96
    assert len(DomainBalancedSampler(DOMAINS, 32)) == 1


def test_draws_are_those_of_training_runs() -> None:
    sampler = DomainBalancedSampler(np.repeat([4, 7], [30, 50]), 5, seed=3, batches=2)
    batches = list(sampler)
    for step, batch in enumerate(batches):
        expected = [draw_samples(3, step, domain, size, 5)[0] for domain, size in enumerate((30, 50))]
        assert batch == [*expected[0], *(30 + expected[1])]


def test_it_goes_on_where_it_stopped() -> None:
    whole = list(DomainBalancedSampler(DOMAINS, 2, batches=6, seed=5))
    sampler = DomainBalancedSampler(DOMAINS, 2, batches=3, seed=5)
    assert [*sampler, *sampler] == whole
    assert list(DomainBalancedSampler(DOMAINS, 2, batches=2, seed=5, first_step=4)) == whole[4:]


@repeats
def test_without_replacement_all_come_before_one_comes_again() -> None:
    batches = list(DomainBalancedSampler(DOMAINS, 3, batches=4, replacement=False, seed=1))
    rows = [row for batch in batches for row in batch]
    counts = Counter(rows)
    assert {counts[row] for row in range(10) if DOMAINS[row] == "b"} == {2}
    assert {counts[row] for row in range(10) if DOMAINS[row] != "b"} == {6}
    assert batches[0] != batches[2]


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize(("share", "world_size"), [(3, 1), (2, 2)])
def test_repeats_within_a_batch_are_told(replacement: bool, share: int, world_size: int) -> None:
    ids = np.repeat([7, 8], [10, 2])
    told = rf"domain 8 has fewer samples \(2\) than each domain gives to a batch \({share * world_size}\)"
    with pytest.warns(UntrustworthyWarning, match=told):
        DomainBalancedSampler(ids, share, replacement=replacement, world_size=world_size)
    DomainBalancedSampler(ids, 2, replacement=replacement)


@pytest.mark.parametrize("replacement", [True, False])
def test_processes_share_the_batch_of_one(replacement: bool) -> None:
    ids = np.arange(60) % 2
    make = lambda count, **rest: list(  # noqa: E731
        DomainBalancedSampler(ids, count, batches=5, replacement=replacement, **rest)
    )
    whole, shares = make(6), [make(3, rank=rank, world_size=2) for rank in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert batch == [*first[:3], *second[:3], *first[3:], *second[3:]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples_per_domain": 0}, "samples_per_domain: must be a whole number of at least 1, got 0"),
        ({"batches": 0}, "batches: must be None or a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed: must be a whole number of at least 0"),
        ({"rank": 1}, "rank: must be a whole number of at least 0 and of at most 0, got 1"),
        ({"replacement": "no"}, "replacement: must be True or False"),
        ({"domains": []}, "domains: at least one sample is needed, got none"),
        ({"domains": [0.5]}, "domains: domain ids must be integers or strings"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DomainBalancedSampler(**{"domains": DOMAINS, "samples_per_domain": 2, **arguments})
