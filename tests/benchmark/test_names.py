"""Tables know the field's algorithms and datasets, by our names and by DomainBed's."""

from hessalign import algorithms
from hessalign.algorithms.registry import BUILT_IN
from hessalign.benchmark.names import (
    ALGORITHM_LABELS,
    DATASET_LABELS,
    algorithm_label,
    algorithm_named,
    dataset_named,
)
from hessalign.benchmark.paper import TABLES
from hessalign.datasets.registry import dataset_names, get_dataset

USERS_OWN = {"csv_file", "features_file", "image_folder"}
"""Datasets that are the user's, so that no table has a place for them."""


def test_every_label_is_of_an_algorithm_and_every_published_one_has_one() -> None:
    """Others are told by their names, so that a new algorithm needs nothing here."""
    published = {name for table in TABLES for name in table.rows}
    assert published <= set(ALGORITHM_LABELS) <= set(BUILT_IN)
    assert {algorithm_label(name) for name in set(BUILT_IN) - set(ALGORITHM_LABELS)} <= set(BUILT_IN)


def test_every_dataset_of_the_field_has_a_label() -> None:
    assert set(DATASET_LABELS) == set(dataset_names()) - USERS_OWN


def test_domainbeds_names_are_known() -> None:
    for name in ALGORITHM_LABELS:
        assert algorithm_named(algorithms.get_algorithm(name).reference_name) == name
    for name in DATASET_LABELS:
        assert dataset_named(get_dataset(name).reference_name) == name
