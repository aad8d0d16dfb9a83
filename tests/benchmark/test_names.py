"""Tables know every algorithm and dataset of the package, by its own name and by DomainBed's."""

from hessalign import algorithms
from hessalign.benchmark.names import ALGORITHM_LABELS, DATASET_LABELS, algorithm_named, dataset_named
from hessalign.datasets.registry import dataset_names, get_dataset

USERS_OWN = {"csv_file", "features_file", "image_folder"}
"""Datasets that are the user's, so that no table has a place for them."""


def built_in_algorithms() -> set[str]:
    return {name for name in algorithms.__all__ if name in algorithms.algorithm_names()}


def test_every_algorithm_has_a_label() -> None:
    assert set(ALGORITHM_LABELS) == built_in_algorithms()


def test_every_dataset_of_the_field_has_a_label() -> None:
    assert set(DATASET_LABELS) == set(dataset_names()) - USERS_OWN


def test_domainbeds_names_are_known() -> None:
    for name in ALGORITHM_LABELS:
        assert algorithm_named(algorithms.get_algorithm(name).reference_name) == name
    for name in DATASET_LABELS:
        assert dataset_named(get_dataset(name).reference_name) == name
