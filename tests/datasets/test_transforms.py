"""What happens to photographs."""

import numpy as np
import pytest
import torch
from PIL import Image

from hessalign.datasets.transforms import plain_transform, training_transform

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (180, 300, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_plain_resizes_and_normalises(photo: Image.Image) -> None:
    result = plain_transform()(photo)
    resized = np.array(photo.resize((224, 224), Image.Resampling.BILINEAR))
    expected = (torch.tensor(resized).permute(2, 0, 1).float() / 255 - MEAN) / STD
    assert type(result) is torch.Tensor
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)


def test_plain_draws_nothing(photo: Image.Image) -> None:
    transform = plain_transform()
    assert torch.equal(transform(photo), transform(photo))


def test_training_is_drawn_anew_from_torchs_generator(photo: Image.Image) -> None:
    transform = training_transform()
    torch.manual_seed(0)
    first, second = transform(photo), transform(photo)
    torch.manual_seed(0)
    again = transform(photo)
    assert type(first) is torch.Tensor
    assert first.shape == (3, 224, 224)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_training_crops_and_flips() -> None:
    """The image tells where a pixel came from: red grows with the column, green with the row.

    A jitter of brightness, contrast and saturation keeps the order of values along a row; a turned hue may
    not, so many draws are looked at together.
    """
    columns, rows = np.meshgrid(np.linspace(0, 255, 224), np.linspace(0, 255, 224))
    picture = Image.fromarray(np.stack([columns, rows, np.full_like(rows, 128)], 2).astype(np.uint8))
    transform = training_transform()
    torch.manual_seed(0)
    images = torch.stack([transform(picture) for _ in range(200)]) * STD + MEAN
    grey = ((images[:, 0] - images[:, 1]).abs().amax((1, 2)) < 0.01).double().mean()
    assert abs(float(grey) - 0.1) < 5 * (0.1 * 0.9 / 200) ** 0.5
    left, right = images[:, :, :, 0].mean(2), images[:, :, :, -1].mean(2)
    flipped = (left[:, 0] > right[:, 0]).double().mean()
    assert abs(float(flipped) - 0.5) < 5 * (0.25 / 200) ** 0.5
    assert images.min() >= -1e-6
    assert images.max() <= 1 + 1e-6


def test_crops_keep_most_of_the_area() -> None:
    """The squares of a chessboard that remain in sight tell the area of the crop, 70 to 100 %.

    No jitter turns black and white about.
    """
    squares = 56
    board = np.kron(np.indices((squares, squares)).sum(0) % 2, np.ones((4, 4))) * 255
    picture = Image.fromarray(board.astype(np.uint8)).convert("RGB")
    transform = training_transform()
    torch.manual_seed(0)
    areas = []
    for _ in range(100):
        image = (transform(picture) * STD + MEAN)[0]
        white = image > (image.min() + image.max()) / 2
        across, down = ((white.diff(dim=dim).sum(dim).max().item() + 1) / squares for dim in (1, 0))
        areas.append(across * down)
    assert 0.66 < min(areas) < 0.75
    assert 0.9 < max(areas) < 1.04
    # Uniform would be 0.85; a large crop whose shape does not fit is drawn again.
    assert 0.77 < np.mean(areas) < 0.88
