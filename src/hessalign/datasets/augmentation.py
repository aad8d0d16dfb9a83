"""Augmented views of images, by name: what ``hessalign features --augment NAME`` draws."""

import warnings
from collections.abc import Callable, Sequence
from typing import get_args

from PIL import Image, ImageFilter, ImageOps
from torch import nn
from torchvision.transforms import v2

from hessalign.datasets.base import DomainDataset, Samples
from hessalign.datasets.image_reading import CROP, Transform, normalised_tensor
from hessalign.datasets.registry import Augmentation
from hessalign.exceptions import NoEffectWarning

AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)

# Strokes and flat areas, not single pixels, are what a drawing is made of.
BLUR = 1.0
MEDIAN = 3
LEVELS = tuple(85 * round(value / 85) for value in range(256))
CUTOFF = 2.0  # per cent of the pixels that a stretched contrast makes black, and white


class Restyle(nn.Module):
    """An RGB image in another style: ``edges``, ``grey`` or ``posterised``.

    * ``edges``: dark strokes on white where the brightness changes.
    * ``grey``: without colours, the contrast stretched to the whole range.
    * ``posterised``: flat areas of four values in each channel, from black to white.

    Args:
        style: Which one.
    """

    def __init__(self, style: str) -> None:
        super().__init__()
        self.style = style

    def forward(self, image: Image.Image) -> Image.Image:
        """The image, of the same size."""
        return STYLES[self.style](image)

    def extra_repr(self) -> str:
        """The style, for the record."""
        return self.style


def _edges(image: Image.Image) -> Image.Image:
    smooth = image.convert("L").filter(ImageFilter.GaussianBlur(BLUR))
    # Pillow leaves the rim as it was; mirrored away, it makes no frame.
    rim = ImageOps.expand(smooth.filter(ImageFilter.FIND_EDGES).crop(_inside(smooth)), 1, 0)
    return ImageOps.invert(ImageOps.autocontrast(rim, CUTOFF)).convert("RGB")


def _inside(image: Image.Image) -> tuple[int, int, int, int]:
    return 1, 1, image.width - 1, image.height - 1


def _grey(image: Image.Image) -> Image.Image:
    return ImageOps.autocontrast(image.convert("L"), CUTOFF).convert("RGB")


def _posterised(image: Image.Image) -> Image.Image:
    # ImageOps.posterize rounds down, and makes white paper grey.
    return image.filter(ImageFilter.MedianFilter(MEDIAN)).point(LEVELS * 3)


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "edges": _edges,
    "grey": _grey,
    "posterised": _posterised,
}


def view_transform(augment: Augmentation, geometry: Sequence[nn.Module] = CROP) -> Transform:
    """What makes a view of an RGB image; draws come from torch's global generator.

    Every view is a random crop of 70 to 100 % of the area, of 224 × 224, or what else training makes of an
    image; it is flipped half of the time. Then
    ``"style"`` draws one of the three of ``Restyle`` or a jitter of
    brightness, contrast, saturation (by 50 %) and hue (by a quarter of the circle), each as often as the
    others. ``"augmix"``, ``"randaugment"`` and ``"trivialaugment"`` are torchvision's ``AugMix`` (Hendrycks
    et al., ICLR 2020), ``RandAugment`` (Cubuk et al., NeurIPS 2020) and ``TrivialAugmentWide`` (Müller and
    Hutter, ICCV 2021) with their defaults.

    Args:
        augment: Any but ``"domainbed"``, which is what training sees.
        geometry: What makes an image of 224 × 224 of any, instead of the crop.

    Returns:
        Maps an RGB image to ``(3, 224, 224)``, float32, normalised as ever; another one at every call.
    """
    jitter = v2.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25)
    changes: dict[str, nn.Module] = {
        "style": v2.RandomChoice([*map(Restyle, STYLES), jitter]),
        "augmix": v2.AugMix(),
        "randaugment": v2.RandAugment(),
        "trivialaugment": v2.TrivialAugmentWide(),
    }
    transform: Transform = v2.Compose(
        [
            *geometry,
            v2.RandomHorizontalFlip(),
            changes[augment],
            *normalised_tensor(),
        ]
    )
    return transform


def views_of(dataset: DomainDataset, augment: Augmentation, count: int) -> list[Samples]:
    """Augmented samples of a dataset, in its samples' order: of each domain those that views are drawn from.

    Args:
        dataset: Of images.
        augment: ``"domainbed"`` for what training sees, which every dataset has; the others are made of
            photographs.
        count: Views that are to be drawn of each sample.

    Returns:
        By domain.

    Raises:
        ValueError: If the dataset's inputs are not made of RGB images and the augmentation needs them.
    """
    if augment == "domainbed":
        if count and all(domain.augmented is domain.plain for domain in dataset.domains):
            warnings.warn(
                f"views: {dataset.name} has no augmentation, so every view is the sample as it is",
                NoEffectWarning,
                stacklevel=2,
            )
        return [domain.augmented for domain in dataset.domains]
    transform, found = view_transform(augment, getattr(dataset, "geometry", CROP)), []
    for domain in dataset.domains:
        views = domain.plain.with_transform(transform)
        if views is None:
            raise ValueError(
                f"augment: {augment!r} changes photographs, and {dataset.name} holds none; allowed is "
                "'domainbed'"
            )
        found.append(views)
    return found
