"""Datasets by name. A module is imported when its dataset is asked for, so that only its users pay for it."""

from pathlib import Path
from typing import TYPE_CHECKING

from hessalign.registry import Registry

if TYPE_CHECKING:
    from hessalign.datasets.base import DomainDataset

_REGISTRY: "Registry[type[DomainDataset]]" = Registry("dataset", "hessalign.datasets")

Registered = TypeVar("Registered", bound="type[DomainDataset]")
_REGISTRY = Registry("dataset", "hessalign.datasets", BUILT_IN)


def register(name: str, reference_name: str | None = None) -> Callable[[Registered], Registered]:
    """Class decorator that makes a dataset known by a name.

    Args:
        name: It stands in the specs of runs, and may not change once there are any.
        reference_name: What seeds the runs of a sweep, DomainBed's spelling where it has one; the name by
            default.

    Returns:
        The decorator.

    Raises:
        ValueError: If another dataset has the name.
    """

    def add(dataset: Registered) -> Registered:
        _REGISTRY.add(name, dataset, reference_name)
        return dataset

    return add


def dataset_names() -> list[str]:
    """Names of all datasets, those of installed plug-ins included."""
    return _REGISTRY.names()


def require_dataset(name: str) -> None:
    """Refuse an unknown name before anything is imported.

    Raises:
        ValueError: If there is no such dataset.
    """
    _REGISTRY.require(name)


def get_dataset(name: str) -> "type[DomainDataset]":
    """The class of the dataset with a name; a plug-in is loaded from its entry point.

    Returns:
        The class.

    Raises:
        ValueError: If there is none.
    """
    dataset: type[DomainDataset] = _REGISTRY.get(name)
    return dataset


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
