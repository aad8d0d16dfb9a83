from . import download, verify
from .base import BatchedSamples, Domain, DomainDataset, PublishedCounts, Samples
from .mnist import Digits, load_mnist
from .published_folder import PublishedFolder
from .registry import dataset_names, get_dataset, make_dataset, register, require_dataset
from .splits import seed_hash, split_indices

__all__ = [
    "BatchedSamples",
    "Digits",
    "Domain",
    "DomainDataset",
    "PublishedCounts",
    "PublishedFolder",
    "Samples",
    "dataset_names",
    "download",
    "get_dataset",
    "load_mnist",
    "make_dataset",
    "register",
    "require_dataset",
    "seed_hash",
    "split_indices",
    "verify",
]
