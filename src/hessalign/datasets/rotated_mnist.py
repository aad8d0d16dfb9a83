"""Rotated MNIST as DomainBed makes it."""

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hessalign.datasets.mnist import DigitDomains, Digits, DigitSamples
from hessalign.datasets.registry import register

ANGLES = (0, 15, 30, 45, 60, 75)
BANDS = 4
"""Of Pillow's CMYK images."""


@register("rotated_mnist", reference_name="RotatedMNIST")
class RotatedMNIST(DigitDomains):
    """Digits turned by another angle in every domain.

    The 70,000 MNIST digits, shuffled; domain ``i`` takes every sixth one and turns it counter-clockwise about
    the centre, with Pillow's bilinear interpolation; corners that come in from outside are 0.

    * Domains, in index order: 0, 15, 30, 45, 60, 75 degrees.
    * Classes: 10. Images: 11,667 in each of the first four domains and 11,666 in the others, in all 70,000.
      Input: 1 × 28 × 28.
    * Source: Ghifary et al., "Domain Generalization for Object Recognition with Multi-task Autoencoders",
      ICCV 2015; this variant: Gulrajani and Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021.
      Digits: LeCun et al., CC BY-SA 3.0.

    Args:
        seed: Seed of shuffling; at least 0.

    Raises:
        ValueError: If the seed is out of range.
    """

    input_shape: tuple[int, ...] = (1, 28, 28)
    domain_names: ClassVar[tuple[str, ...]] = tuple(str(angle) for angle in ANGLES)
    class_count: ClassVar[int | None] = 10
    classes: ClassVar[tuple[str, ...]] = tuple(str(digit) for digit in range(10))

    def make_samples(self, digits: Digits, domain: int, generator: torch.Generator) -> DigitSamples:
        """Turned images. All at once: a second or two here saves it at every pass over the data."""
        turned = _turned(digits.images.numpy(), ANGLES[domain])
        return DigitSamples(torch.from_numpy(turned).unsqueeze(1), digits.digits)


def _turned(images: NDArray[np.uint8], angle: int) -> NDArray[np.uint8]:
    """Images ``(n, h, w)``, each turned as Pillow turns it."""
    # Most of a call of Pillow is Python, so four images go at once, as the bands of one.
    count, height, width = images.shape
    filled = np.concatenate([images, np.zeros((-count % BANDS, height, width), images.dtype)])
    fours = filled.reshape(-1, BANDS, height, width).transpose(0, 2, 3, 1)
    turned = np.stack(
        [
            np.asarray(
                Image.frombytes("CMYK", (width, height), four.tobytes()).rotate(
                    angle, Image.Resampling.BILINEAR, fillcolor=(0,) * BANDS
                )
            )
            for four in fours
        ]
    )
    return turned.transpose(0, 3, 1, 2).reshape(filled.shape)[:count]
