"""Tables know every algorithm and dataset of the package, by its own name and by DomainBed's."""

from hessalign.algorithms import registry as algorithms
from hessalign.algorithms.registry import BUILT_IN, get_algorithm
from hessalign.benchmark.names import ALGORITHM_LABELS, DATASET_LABELS
from hessalign.datasets import registry as datasets
from hessalign.datasets.registry import dataset_names, get_dataset

USERS_OWN = {"csv_file", "features_file", "image_folder", "parquet_features", "parquet_images"}
"""Datasets that are the user's, so that no table has a place for them."""


def test_labels_are_of_algorithms_that_there_are() -> None:
    assert set(ALGORITHM_LABELS) <= {*BUILT_IN}


def test_every_dataset_of_the_field_has_a_label() -> None:
    assert set(DATASET_LABELS) == set(dataset_names()) - USERS_OWN


def test_domainbeds_names_are_known() -> None:
    for name in BUILT_IN:
        assert algorithms.registered_name(get_algorithm(name).reference_name) == name
    for name in DATASET_LABELS:
        assert datasets.registered_name(get_dataset(name).reference_name) == name
