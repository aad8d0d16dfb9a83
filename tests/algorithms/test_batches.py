"""Batches say what they are, or are refused."""

import numpy as np
import polars as pl
import pytest
import torch

from hessalign.algorithms import DomainBatch, algorithm_names, get_algorithm
from tests.algorithms.tiny import CLASSES, SAMPLES, make_algorithm, make_batch, parts


def test_batches_are_split_by_domain() -> None:
    batch = make_batch()
    assert batch.samples_per_domain == SAMPLES
    for e, part in enumerate(batch.domain_batches()):
        assert (part.domains == e).all()
        assert torch.equal(part.inputs, parts(batch)[e][0])
        assert torch.equal(part.targets, parts(batch)[e][1])


@pytest.mark.parametrize("name", ["coral", "vrex", "hgp", "and_mask", "mtl"])
def test_the_order_of_samples_does_not_matter(name: str) -> None:
    batch = make_batch()
    order = torch.randperm(len(batch.targets), generator=torch.Generator().manual_seed(0))
    shuffled = DomainBatch(batch.inputs[order], batch.targets[order], batch.domains[order], 3)
    assert torch.equal(shuffled.domains, batch.domains)
    algorithms = [make_algorithm(name) for _ in range(2)]
    losses = [
        algorithm.update(given, algorithm.make_optimizers())["loss"]
        for algorithm, given in zip(algorithms, (batch, shuffled), strict=True)
    ]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-14)


def test_samples_of_one_domain_keep_their_order() -> None:
    batch = DomainBatch(torch.arange(6.0), torch.arange(6), torch.tensor([1, 0, 1, 0, 0, 1]), 2)
    assert batch.inputs.tolist() == [1, 3, 4, 0, 2, 5]
    assert batch.targets.tolist() == [1, 3, 4, 0, 2, 5]


@pytest.mark.parametrize(
    ("targets", "domains", "count", "problem"),
    [
        (18, [0] * 8 + [1] * 4 + [2] * 6, 3, r"domains: a batch must hold equally many .* got 8, 4, 6 of"),
        (18, [0, 1, 2] * 6, 2, r"domains: with domain_count 2 .* from 0 to 1 and no other, got 0, 1, 2"),
        (18, [0, 1, 2] * 6, 4, r"domains: with domain_count 4 .* from 0 to 3 and no other, got 0, 1, 2"),
        (18, [-1, 0, 1] * 6, 3, r"domains: with domain_count 3 .* got -1, 0, 1"),
        (18, [0, 1] * 8, 2, r"inputs, targets, domains: .* got lengths inputs 18, targets 18, domains 16"),
        (12, [0, 1, 2] * 6, 3, r"got lengths inputs 18, targets 12, domains 18"),
        (18, [0.0, 1.0, 2.0] * 6, 3, r"domains: must hold one integer id"),
        (18, [0, 1, 2] * 6, 0, r"domain_count: must be a whole number of at least 1, got 0"),
        (18, [0, 1, 2] * 6, 3.0, r"domain_count: must be a whole number of at least 1, got 3\.0"),
    ],
)
def test_other_batches_are_refused(targets: int, domains: list, count: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DomainBatch(torch.zeros(18, 4), torch.zeros(targets).long(), torch.tensor(domains), count)


@pytest.mark.parametrize("kind", [np.array, list, pl.Series])
def test_domains_by_name(kind) -> None:
    inputs = np.arange(12.0, dtype=np.float32).reshape(6, 2)
    ids = kind(["south", "north", "south", "east", "north", "east"])
    batch = DomainBatch.of(inputs, np.arange(6), ids, names=("north", "east", "south"))
    assert batch.domains.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.targets.tolist() == [1, 4, 3, 5, 0, 2]
    assert batch.inputs.dtype == torch.float32
    assert torch.equal(batch.inputs, torch.from_numpy(inputs[[1, 4, 3, 5, 0, 2]]))


def test_integer_names_stand_for_their_places() -> None:
    batch = DomainBatch.of(torch.zeros(4, 1), [0, 1, 2, 3], torch.tensor([7, 2, 2, 7]), names=(7, 2))
    assert batch.domains.tolist() == [0, 0, 1, 1]
    assert batch.targets.tolist() == [0, 3, 1, 2]


@pytest.mark.parametrize(
    ("ids", "names", "problem"),
    [
        (["a", "c"], ("a", "b"), r"domains: 'c' is not among the names \['a', 'b'\]"),
        (["a", "a"], ("a", "b"), r"domains: with domain_count 2 .* got 0"),
        (["a", "b"], ("a", "b", "a"), "names: each domain must be named once"),
        (["a", None], ("a", "b"), "domains: domain ids must be all integers or all strings"),
    ],
)
def test_names_that_do_not_fit_are_refused(ids: list, names: tuple, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DomainBatch.of(np.zeros((2, 1)), [0, 0], ids, names)


def test_values_must_be_one_for_each_sample() -> None:
    batch = make_batch()
    with pytest.raises(ValueError, match=r"values, targets: .* got lengths values 6, targets 18"):
        batch.by_domain(batch.inputs[:6])
    with pytest.raises(ValueError, match=r"inputs, targets: .* got lengths inputs 6, targets 18"):
        batch.with_inputs(batch.inputs[:6])


def test_an_update_needs_the_domains_that_the_algorithm_was_made_for() -> None:
    algorithm = make_algorithm("group_dro", domains=3)
    with pytest.raises(ValueError, match="batch: must hold the 3 source domains that group_dro was made for"):
        algorithm.update(make_batch(domains=2), algorithm.make_optimizers())
    assert algorithm.steps_done == 0


REFUSING = ["irm", "coral", "fishr", "ib_erm", "ib_irm", "causirl_coral", "causirl_mmd", "rdm", "self_reg"]


@pytest.mark.parametrize("name", REFUSING)
def test_one_sample_of_each_domain_is_refused_where_it_defines_nothing(name: str) -> None:
    """IRM and CausIRL split the samples of a domain in two, others take variances of them."""
    problem = f"{name} needs at least 2 samples of each domain in a batch, got 1"
    algorithm = make_algorithm(name)
    ids = torch.arange(3)
    batch = DomainBatch(torch.randn(3, 4, dtype=torch.float64), ids % CLASSES, ids, 3)
    before = algorithm.head.weight.clone()
    with pytest.raises(ValueError, match=f"batch: {problem}"):
        algorithm.update(batch, algorithm.make_optimizers())
    assert torch.equal(algorithm.head.weight, before)
    with pytest.raises(ValueError, match=f"batch_size: {problem}"):
        make_algorithm(name, batch_size=1).check_start()


def test_all_others_are_defined_with_one_sample_of_each_domain() -> None:
    ids = torch.arange(3)
    for name in algorithm_names():
        if get_algorithm(name).needs_samples > 1 or get_algorithm(name).needs_images:
            continue
        algorithm = make_algorithm(name)
        optimizers = algorithm.make_optimizers()
        batch = DomainBatch(torch.randn(3, 4, dtype=torch.float64), ids % CLASSES, ids, 3)
        for _ in range(2):
            metrics = algorithm.update(batch, optimizers)
            assert all(value.isfinite() for value in metrics.values()), name
        assert all(value.isfinite().all() for value in algorithm.parameters()), name
