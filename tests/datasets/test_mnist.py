"""The shipped MNIST, and Colored and Rotated MNIST against the digits they are made of."""

import gzip
from collections import Counter
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import InterpolationMode, functional

from hessalign.datasets import Digits, load_mnist, mnist
from hessalign.datasets.colored_mnist import ColoredMNIST
from hessalign.datasets.rotated_mnist import RotatedMNIST

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


@pytest.fixture(scope="module")
def digits() -> Digits:
    train, test = load_mnist("train"), load_mnist("test")
    return Digits(torch.cat([train.images, test.images]), torch.cat([train.digits, test.digits]))


@pytest.fixture(scope="module")
def colored() -> ColoredMNIST:
    return ColoredMNIST(seed=3)


@pytest.fixture(scope="module")
def rotated() -> RotatedMNIST:
    return RotatedMNIST(seed=3)


@pytest.fixture(scope="module")
def digit_of(digits: Digits) -> dict[bytes, int]:
    """The digit of an image, by its pixels: all 70,000 images differ."""
    found = {
        image.tobytes(): int(digit) for image, digit in zip(digits.images.numpy(), digits.digits, strict=True)
    }
    assert len(found) == 70_000
    return found


def grey(dataset: ColoredMNIST, domain: int) -> np.ndarray:
    """Images without their colour, as their pixels stand in the one filled channel."""
    images = dataset.domains[domain].plain.images
    assert ((images.flatten(2) > 0).any(2).sum(1) == 1).all()
    return images.sum(1).to(torch.uint8).numpy()


def test_colored_uses_every_image_once(colored: ColoredMNIST, digits: Digits) -> None:
    assert [len(domain) for domain in colored.domains] == [23_334, 23_333, 23_333]
    used = Counter(image.tobytes() for domain in range(3) for image in grey(colored, domain))
    assert used == Counter(image.tobytes() for image in digits.images.numpy())


@pytest.mark.parametrize(("domain", "colour_flip"), [(0, 0.1), (1, 0.2), (2, 0.9)])
def test_colored_rates(
    colored: ColoredMNIST, digit_of: dict[bytes, int], domain: int, colour_flip: float
) -> None:
    samples = colored.domains[domain].plain
    labels = colored.domains[domain].targets
    clean = torch.tensor([digit_of[image.tobytes()] < 5 for image in grey(colored, domain)]).long()
    colours = samples.images.flatten(2).any(2).long().argmax(1)
    for rate, expected in (
        ((labels != clean).double().mean(), 0.25),
        ((colours != labels).double().mean(), colour_flip),
        # The two kinds of noise are independent of one another.
        ((colours != clean).double().mean(), 0.25 * (1 - colour_flip) + 0.75 * colour_flip),
    ):
        assert abs(float(rate) - expected) < 5 * sqrt(expected * (1 - expected) / len(labels))


def test_colored_samples(colored: ColoredMNIST) -> None:
    for domain in colored.domains:
        image, target = domain.plain[17]
        assert image.shape == colored.input_shape == (2, 28, 28)
        assert image.dtype == torch.float32
        assert image.max() <= 1
        assert image.max() > 0.9
        assert isinstance(target, int)
        assert target == domain.targets[17]
        assert domain.targets.dtype == torch.int64
        assert domain.augmented is domain.plain
    assert [domain.name for domain in colored.domains] == ["+90%", "+80%", "-90%"]
    assert len(colored.class_names) == 2


def test_the_seed_makes_the_data() -> None:
    first, again, other = ColoredMNIST(5), ColoredMNIST(5), ColoredMNIST(6)
    for a, b, c in zip(first.domains, again.domains, other.domains, strict=True):
        assert torch.equal(a.plain.images, b.plain.images)
        assert torch.equal(a.targets, b.targets)
        assert not torch.equal(a.plain.images, c.plain.images)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    ColoredMNIST(5)
    assert torch.equal(torch.rand(1), expected)


def test_rotated_uses_every_image_once(rotated: RotatedMNIST, digits: Digits) -> None:
    assert [len(domain) for domain in rotated.domains] == [11_667] * 4 + [11_666] * 2
    assert [domain.name for domain in rotated.domains] == ["0", "15", "30", "45", "60", "75"]
    targets = torch.cat([domain.targets for domain in rotated.domains])
    assert torch.equal(targets.bincount(), digits.digits.bincount())


@pytest.mark.parametrize("domain", range(6))
def test_rotated_images_are_pillows(rotated: RotatedMNIST, digits: Digits, domain: int) -> None:
    """The order of the images is that of a permutation drawn first from the seed."""
    order = torch.randperm(70_000, generator=torch.Generator().manual_seed(3))[domain::6]
    for index in range(0, 11_666, 500):
        original = Image.fromarray(digits.images[order[index]].numpy())
        turned = original.rotate(15 * domain, resample=Image.Resampling.BILINEAR, fillcolor=0)
        image, target = rotated.domains[domain].plain[index]
        assert image.shape == (1, 28, 28)
        assert torch.equal(image[0], torch.tensor(np.array(turned)).float() / 255)
        assert target == digits.digits[order[index]]


def test_rotation_is_torchvisions(rotated: RotatedMNIST, digits: Digits) -> None:
    """DomainBed rotates by torchvision."""
    order = torch.randperm(70_000, generator=torch.Generator().manual_seed(3))[2::6]
    original = Image.fromarray(digits.images[order[0]].numpy())
    turned = functional.rotate(original, 30, fill=(0,), interpolation=InterpolationMode.BILINEAR)
    assert torch.equal(functional.to_tensor(turned), rotated.domains[2].plain[0][0])


def test_a_loader_makes_batches(rotated: RotatedMNIST) -> None:
    images, targets = next(iter(DataLoader(rotated.domains[1].plain, batch_size=8)))
    assert images.shape == (8, 1, 28, 28)
    assert torch.equal(targets, rotated.domains[1].targets[:8])


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range_is_named(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed: must be a whole number of at least 0 .* got {seed}"):
        ColoredMNIST(seed)
