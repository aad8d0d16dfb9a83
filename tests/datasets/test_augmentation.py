"""Augmented views of images by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hessalign.datasets.augmentation import AUGMENTATIONS, STYLES, Restyle, view_transform, views_of
from hessalign.datasets.features_file import FeaturesFile
from hessalign.datasets.image_folder import ImageFolderDomains
from hessalign.datasets.image_reading import IMAGENET_MEAN, IMAGENET_STD, RESIZE
from hessalign.exceptions import NoEffectWarning
from hessalign.training.seeds import seeded
from tests.datasets.images import write_folder
from tests.training.tiny_domains import TinyDomains
from tests.training.tiny_features import tiny_features

MEAN, STD = (np.array(values).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))


def half_and_half() -> Image.Image:
    """Left dark blue, right light orange, with the line between them at column 16."""
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, :16] = (20, 30, 90)
    pixels[:, 16:] = (250, 180, 110)
    return Image.fromarray(pixels)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_edges_are_dark_strokes_on_white() -> None:
    found = pixels(Restyle("edges")(half_and_half()))
    assert found.shape == (32, 32, 3)
    assert np.ptp(found, axis=2).max() == 0
    assert found[2:-2, 16].max() < 60
    assert found[:, :10].min() == found[:, 22:].min() == 255


def test_grey_has_no_colour_and_the_whole_range() -> None:
    found = pixels(Restyle("grey")(half_and_half()))
    assert np.ptp(found, axis=2).max() == 0
    assert np.unique(found).tolist() == [0, 255]


def test_posterised_has_four_values_in_each_channel_from_black_to_white() -> None:
    white = Image.new("RGB", (9, 9), "white")
    assert pixels(Restyle("posterised")(white)).min() == 255
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    found = pixels(Restyle("posterised")(noise))
    assert set(np.unique(found)) == {0, 85, 170, 255}
    # The median takes single pixels away: neighbours differ less often than those of the noise.
    assert (np.diff(found, axis=0) != 0).mean() < (np.diff(pixels(noise) // 64, axis=0) != 0).mean() - 0.05


@pytest.mark.parametrize("augment", [name for name in AUGMENTATIONS if name != "domainbed"])
def test_a_view_is_drawn_from_the_global_generator_alone(augment: str) -> None:
    transform, drawn = view_transform(augment), []
    for seed in (3, 3, 4):
        with seeded(seed):
            drawn.append(transform(half_and_half()))
    assert drawn[0].shape == (3, 224, 224)
    assert drawn[0].dtype == torch.float32
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_views_are_of_the_same_images_and_of_every_style(tmp_path: Path) -> None:
    dataset = ImageFolderDomains(write_folder(tmp_path, {"a": {"x": 1}, "b": {"x": 1, "y": 1}}))
    views = views_of(dataset, "style", 5)
    assert len(views) == 2
    assert views[1].file_of(1) == dataset.domains[1].plain.file_of(1)
    assert len(views[1]) == 2
    assert all(style in views[0].preprocessing for style in (*STYLES, "ColorJitter"))
    assert "Restyle" not in dataset.domains[0].plain.preprocessing
    with seeded(0):
        grey = [np.ptp(views[0][0][0].numpy() * STD + MEAN, axis=0).max() < 1e-3 for _ in range(60)]
    assert 15 <= sum(grey) <= 45  # two of the four styles


def test_views_are_made_as_large_as_training_makes_the_datasets_images(tmp_path: Path) -> None:
    dataset = ImageFolderDomains(write_folder(tmp_path, {"a": {"x": 1}, "b": {"x": 1}}))
    assert "RandomResizedCrop" in views_of(dataset, "augmix", 1)[0].preprocessing
    dataset.geometry = RESIZE
    whole = views_of(dataset, "augmix", 1)[0]
    assert "RandomResizedCrop" not in whole.preprocessing
    assert whole[0][0].shape == (3, 224, 224)


def test_where_there_is_nothing_to_change_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="augment: 'augmix' changes photographs, and tiny holds none; "):
        views_of(TinyDomains(), "augmix", 1)
    features = tiny_features(tmp_path / "f.safetensors")
    assert isinstance(features, FeaturesFile)
    with pytest.raises(ValueError, match="features_file holds none"):
        views_of(features, "style", 2)
    with pytest.warns(NoEffectWarning, match="views: features_file has no augmentation"):
        views_of(features, "domainbed", 2)
