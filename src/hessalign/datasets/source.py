"""Which data a person means: a dataset by name, a folder, or a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hessalign.checks import did_you_mean, require_path
from hessalign.datasets.registry import dataset_names, make_dataset

if TYPE_CHECKING:
    from hessalign.datasets.base import DomainDataset

DATASET_OF_FILES = {".csv": "csv_file", ".safetensors": "features_file"}
USERS_OWN = ("image_folder", *DATASET_OF_FILES.values())
"""Datasets whose name tells neither what they hold nor where it lies."""


@dataclass(frozen=True)
class DataSource:
    """A dataset, and where it lies on this machine.

    Attributes:
        name: One of ``dataset_names()``.
        root: As [make_dataset][] takes it.
    """

    name: str
    root: Path | None = None

    def open(self, seed: int) -> "DomainDataset":
        """The dataset, with what it draws drawn from a seed.

        Raises:
            ValueError: If it is not there.
        """
        return make_dataset(self.name, self.root, seed)


def find_data(given: str, root: Path | None = None) -> DataSource:
    """The data that a name or a path stands for.

    Args:
        given: Name of a dataset, a folder ``ROOT/domain/class/*``, a CSV file, or a features file.
        root: Folder that holds a dataset given by name.

    Raises:
        ValueError: If it is none of these.
    """
    path = require_path("dataset", given).absolute()
    if given in dataset_names():
        return DataSource(given, None if root is None else require_path("root", root).absolute())
    if str(given) and path.is_dir():
        return DataSource("image_folder", path)
    if (suffix := path.suffix.lower()) in DATASET_OF_FILES and path.is_file():
        return DataSource(DATASET_OF_FILES[suffix], path)
    raise ValueError(
        f"dataset: {given!r} is not known; allowed are {', '.join(dataset_names())}, a folder, a CSV file or "
        f"a features file{did_you_mean(given, dataset_names())}"
    )
