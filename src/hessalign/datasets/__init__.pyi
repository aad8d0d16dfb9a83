from . import download, parquet, verify
from .base import (
    BatchedSamples,
    Domain,
    DomainDataset,
    PublishedCounts,
    Samples,
    seed_hash,
    split_indices,
)
from .image_files import PublishedImages
from .image_folder import PublishedFolder
from .mnist import Digits, load_mnist
from .registry import (
    DataSource,
    dataset_names,
    find_data,
    get_dataset,
    make_dataset,
    register,
    require_dataset,
)

__all__ = [
    "BatchedSamples",
    "DataSource",
    "Digits",
    "Domain",
    "DomainDataset",
    "PublishedCounts",
    "PublishedFolder",
    "PublishedImages",
    "Samples",
    "dataset_names",
    "download",
    "find_data",
    "get_dataset",
    "load_mnist",
    "make_dataset",
    "parquet",
    "register",
    "require_dataset",
    "seed_hash",
    "split_indices",
    "verify",
]
