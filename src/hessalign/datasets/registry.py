"""Datasets by name. A module is imported when its dataset is asked for, so that only its users pay for it."""

from pathlib import Path
from typing import TYPE_CHECKING

from hessalign.registry import Registry

if TYPE_CHECKING:
    from hessalign.datasets.base import DomainDataset

_REGISTRY: "Registry[type[DomainDataset]]" = Registry("dataset", "hessalign.datasets")

BUILT_IN = _REGISTRY.built_in
register = _REGISTRY.register
dataset_names = _REGISTRY.names
require_dataset = _REGISTRY.require
get_dataset = _REGISTRY.get


def make_dataset(name: str, root: Path | None = None, seed: int = 0) -> "DomainDataset":
    """The dataset with a name, read from disk or made from the data that ships.

    Args:
        name: One of [dataset_names][].
        root: Folder of the data (for ``csv_file`` and ``features_file`` the file); unused by the MNIST
            datasets.
        seed: Seed of shuffling, label noise and colours of the MNIST datasets; unused by all others.

    Returns:
        The dataset.

    Raises:
        ValueError: If the name is unknown, the root is missing, or what lies there is not the dataset.
    """
    return get_dataset(name).make(root, seed)
