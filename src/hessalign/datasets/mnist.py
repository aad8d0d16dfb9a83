"""MNIST as it ships inside the package: no download, checksums verified at every read."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import torch
from torch import Tensor

_FOLDER = files("hessalign.datasets") / "data" / "mnist"
_PREFIX = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, eq=False)
class Digits:
    """Handwritten digits.

    Attributes:
        images: Grey values from 0 to 255, ``(n, 28, 28)``, uint8.
        digits: The digit each image shows, ``(n,)``, int64.
    """

    images: Tensor
    digits: Tensor


def load_mnist(split: Literal["train", "test"]) -> Digits:
    """The 60,000 training or 10,000 test digits, in the order of the original files.

    Raises:
        ValueError: If the split is unknown.
        OSError: If a shipped file is missing or does not match its checksum.
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
