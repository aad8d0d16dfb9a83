"""MNIST as it ships inside the package, and domains made of its 70,000 digits."""

import gzip
import hashlib
from abc import abstractmethod
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.checks import require_whole
from hessalign.datasets.base import BatchedSamples, Domain, DomainDataset, PublishedCounts, SearchSpace

_FOLDER = files("hessalign.datasets") / "data" / "mnist"
_PREFIX = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, eq=False)
class Digits:
    """Handwritten digits.

    Attributes:
        images: Grey values from 0 to 255, ``(n, 28, 28)``, uint8.
        digits: The digit each image shows, ``(n,)``, int64.

    Examples:
        >>> import torch
        >>> from hessalign.datasets import Digits
        >>> digits = Digits(torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([7, 2]))
        >>> digits.images.shape, digits.digits
        (torch.Size([2, 28, 28]), tensor([7, 2]))
    """

    images: Tensor
    digits: Tensor


def load_mnist(split: Literal["train", "test"]) -> Digits:
    """The 60,000 training or 10,000 test digits, in the order of the original files.

    Returns:
        Images and digits.

    Raises:
        ValueError: If the split is unknown.
        OSError: If a shipped file is missing or does not match its checksum.

    Examples:
        >>> from hessalign.datasets import load_mnist
        >>> digits = load_mnist("test")
        >>> digits.images.shape, digits.digits[:3]
        (torch.Size([10000, 28, 28]), tensor([7, 2, 1]))
    """
    if split not in _PREFIX:
        raise ValueError(f"split: {split!r} is not known; allowed are 'train' and 'test'")
    images = _read(f"{_PREFIX[split]}-images-idx3-ubyte.gz", header_bytes=16)
    digits = _read(f"{_PREFIX[split]}-labels-idx1-ubyte.gz", header_bytes=8)
    return Digits(images.view(-1, 28, 28), digits.long())


def _read(name: str, header_bytes: int) -> Tensor:
    """The payload of an IDX file; the checksum vouches for its header."""
    packed = (_FOLDER / name).read_bytes()
    if hashlib.sha256(packed).hexdigest() != _checksum(name):
        raise OSError(f"{_FOLDER / name}: the file does not match its SHA-256 checksum; reinstall hessalign")
    return torch.frombuffer(bytearray(gzip.decompress(packed)), dtype=torch.uint8, offset=header_bytes)


def _checksum(name: str) -> str | None:
    """What the list of checksums says of a file; None if it does not name it."""
    lines = (_FOLDER / "SHA256SUMS").read_bytes().decode("ascii", "replace").splitlines()
    return next((line.split()[0] for line in lines if line.split()[1:] == [name]), None)


class DigitSamples(BatchedSamples):
    """Digits in memory.

    Args:
        images: Values from 0 to 255, ``(n, channels, 28, 28)``, uint8: a quarter of the memory of floats.
        targets: Class ids, ``(n,)``, int64.
    """

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images = images
        self.targets = targets

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Input with values in [0, 1], ``(channels, 28, 28)``, and class id."""
        return self.images[index].float() / 255, int(self.targets[index])

    def take(self, indices: Tensor, seeds: Tensor) -> Tensor:
        """Inputs of several digits, ``(k, channels, 28, 28)``; there is no augmentation."""
        return self.images[indices].float() / 255


class DigitDomains(DomainDataset):
    """The digits of training and test files together, shuffled and dealt to the domains in turn.

    Args:
        seed: Seed of every random draw; at least 0.

    Raises:
        ValueError: If the seed is out of range.
    """

    search_space: ClassVar[SearchSpace] = "small"
    default_backbone: ClassVar[str] = "mnist_cnn"
    checkpoint_every: ClassVar[int] = 100
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(totals=(70_000,))
    classes: ClassVar[tuple[str, ...]]

    def __init__(self, seed: int = 0) -> None:
        seed = require_whole("seed", seed, least=0, most=2**63 - 1)
        generator = torch.Generator().manual_seed(seed)
        digits = _shuffled_digits(generator)
        count = len(self.domain_names)
        domains = []
        for index, name in enumerate(self.domain_names):
            dealt = Digits(digits.images[index::count], digits.digits[index::count])
            samples = self.make_samples(dealt, index, generator)
            domains.append(Domain(name, samples.targets, plain=samples, augmented=samples))
        super().__init__(self.classes, tuple(domains))

    @override
    @classmethod
    def make(cls, root: Path | None, seed: int) -> Self:
        return cls(seed)

    @abstractmethod
    def make_samples(self, digits: Digits, domain: int, generator: torch.Generator) -> DigitSamples:
        """What the domain with an index makes of its digits."""


def _shuffled_digits(generator: torch.Generator) -> Digits:
    train, test = load_mnist("train"), load_mnist("test")
    images, digits = torch.cat([train.images, test.images]), torch.cat([train.digits, test.digits])
    order = torch.randperm(len(digits), generator=generator)
    return Digits(images[order], digits[order])
