"""The shipped MNIST."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from hessalign.datasets import load_mnist, mnist

ORIGINAL = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def test_counts_are_those_of_mnist() -> None:
    train, test = load_mnist("train"), load_mnist("test")
    assert train.images.shape == (60_000, 28, 28)
    assert test.images.shape == (10_000, 28, 28)
    assert train.images.dtype == torch.uint8
    # Images of each digit, as published with the data set.
    assert train.digits.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.digits.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_images_are_digits() -> None:
    """The mean image of a class is nearer to its images than the mean images of other classes are."""
    digits = load_mnist("test")
    flat = digits.images.flatten(1).float()
    means = torch.stack([flat[digits.digits == digit].mean(0) for digit in range(10)])
    nearest = torch.cdist(flat, means).argmin(1)
    assert (nearest == digits.digits).float().mean() > 0.8


@pytest.mark.skipif(not ORIGINAL.exists(), reason="the original files are not on this machine")
@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("test", "t10k")])
def test_files_are_the_original_ones(split: str, name: str) -> None:
    packed = (ORIGINAL / f"{name}-images-idx3-ubyte.gz").read_bytes()
    pixels = np.frombuffer(gzip.decompress(packed), dtype=np.uint8, offset=16)
    assert np.array_equal(pixels, load_mnist(split).images.flatten().numpy())


def test_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="split: 'validation' is not known; allowed are 'train' and 'test'"):
        load_mnist("validation")


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "t10k-labels-idx1-ubyte.gz"
    (tmp_path / "SHA256SUMS").write_text((mnist._FOLDER / "SHA256SUMS").read_text())
    for file in mnist._FOLDER.iterdir():
        if file.name.endswith(".gz"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[100] ^= 1
    (tmp_path / name).write_bytes(damaged)
    monkeypatch.setattr(mnist, "_FOLDER", tmp_path)
    with pytest.raises(OSError, match=f"{name}: the file does not match its SHA-256 checksum"):
        load_mnist("test")
