"""Datasets by name, and which data a person means by a name or a path.

A module is imported when its dataset is asked for, so that only its users pay for it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hessalign import datasets
from hessalign.checks import did_you_mean, require_path
from hessalign.registry import Registry

if TYPE_CHECKING:
    from hessalign.datasets.base import DomainDataset

Augmentation = Literal["domainbed", "style", "augmix", "randaugment", "trivialaugment"]
"""What views can be drawn by; see ``view_transform``."""

_REGISTRY: "Registry[type[DomainDataset]]" = Registry("dataset", "hessalign.datasets")

BUILT_IN = _REGISTRY.built_in
register = _REGISTRY.register
"""Decorator that gives a class its name: ``@register("name")``; ``ValueError`` if another one has it."""
dataset_names = _REGISTRY.names
"""``dataset_names()``: all names, those of installed plug-ins included."""
require_dataset = _REGISTRY.require
"""``require_dataset(name)``: the name as registered, from any spelling; ``ValueError`` if there is none."""
registered_name = _REGISTRY.registered_name
get_dataset = _REGISTRY.get
"""``get_dataset("pacs")``: the class with a name, in any spelling; ``ValueError`` if there is none."""


def make_dataset(name: str, root: Path | None = None, seed: int = 0) -> "DomainDataset":
    """The dataset with a name, read from disk or made from the data that ships.

    Args:
        name: One of [dataset_names][hessalign.datasets.dataset_names].
        root: Folder of the data (for ``csv_file`` and ``features_file`` the file, for ``parquet_images`` and
            ``parquet_features`` either); unused by the MNIST datasets.
        seed: Seed of shuffling, label noise and colours of the MNIST datasets; unused by all others.

    Returns:
        The dataset.

    Raises:
        ValueError: If the name is unknown, the root is missing, or what lies there is not the dataset.

    Examples:
        >>> from hessalign.datasets import make_dataset
        >>> dataset = make_dataset("colored_mnist")
        >>> [domain.name for domain in dataset.domains]
        ['+90%', '+80%', '-90%']
    """
    return get_dataset(name).make(root, seed)


DATASET_OF_FILES = {".csv": "csv_file", ".safetensors": "features_file"}
PARQUET = ".parquet"
DATASETS_OF_FEATURES = ("features_file", "parquet_features")
USERS_OWN = ("image_folder", *DATASET_OF_FILES.values(), "parquet_images", "parquet_features")
"""Datasets whose name tells neither what they hold nor where it lies."""


@dataclass(frozen=True)
class DataSource:
    """A dataset, and where it lies on this machine.

    Attributes:
        name: One of ``dataset_names()``.
        root: Folder or file of the data; None for data that ships with the package.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hessalign.datasets import DataSource
        >>> from hessalign.datasets.features_file import save_features
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "sites.safetensors"
        ...     written = save_features(path, torch.zeros(3, 2), [0, 1, 0], ["north", "south", "west"])
        ...     dataset = DataSource("features_file", path).open(seed=0)
        >>> [domain.name for domain in dataset.domains]
        ['north', 'south', 'west']
    """

    name: str
    root: Path | None = None

    def open(self, seed: int) -> "DomainDataset":
        """The dataset, with what it draws drawn from a seed.

        Returns:
            The dataset.

        Raises:
            ValueError: If it is not there.
        """
        return make_dataset(self.name, self.root, seed)


def find_data(given: str, root: Path | None = None) -> DataSource:
    """The data that a name or a path stands for.

    Args:
        given: Name of a dataset, in DomainBed's spelling, too, a folder ``ROOT/domain/class/*``, a CSV file,
            a features file, or a Parquet file or a folder of these.
        root: Folder that holds a dataset given by name.

    Returns:
        Name of the dataset, and where it lies.

    Raises:
        ValueError: If it is none of these.

    Examples:
        >>> from hessalign.datasets import find_data
        >>> find_data("colored_mnist").name
        'colored_mnist'
    """
    path = require_path("dataset", given).absolute()
    named = registered_name(given)
    # A folder may be called as DomainBed calls a dataset; a root tells that the dataset is meant.
    if given in dataset_names() or (named in dataset_names() and (root is not None or not path.exists())):
        return DataSource(named, None if root is None else require_path("root", root).absolute())
    if str(given) and _is_parquet(path):
        return DataSource(datasets.parquet.kind_of(path), path)
    if str(given) and path.is_dir():
        return DataSource("image_folder", path)
    if (suffix := path.suffix.lower()) in DATASET_OF_FILES and path.is_file():
        return DataSource(DATASET_OF_FILES[suffix], path)
    raise ValueError(
        f"dataset: {given!r} is not known; allowed are {', '.join(dataset_names())}, a folder, a CSV file, "
        f"a features file or a Parquet file{did_you_mean(given, dataset_names())}"
    )


def _is_parquet(path: Path) -> bool:
    """Whether a path is a Parquet file, or a folder that holds some, itself or in folders of its own."""
    if path.suffix.lower() == PARQUET:
        return path.exists()
    return any(any(path.glob(pattern)) for pattern in (f"*{PARQUET}", f"*/*{PARQUET}"))
