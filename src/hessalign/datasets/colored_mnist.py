"""Colored MNIST as DomainBed makes it."""

from typing import ClassVar

import torch
from torch import Tensor

from hessalign.datasets.mnist import DigitDomains, Digits, DigitSamples
from hessalign.datasets.registry import register

LABEL_FLIP = 0.25
COLOUR_FLIPS = (0.1, 0.2, 0.9)


@register("colored_mnist", reference_name="ColoredMNIST")
class ColoredMNIST(DigitDomains):
    """Digits whose colour predicts the label better than their shape does, and misleads in the third domain.

    The 70,000 MNIST digits, shuffled; domain ``i`` takes every third one. The label is 1 for digits below 5,
    flipped with probability 0.25. The colour is the label, flipped with probability 0.1, 0.2 and 0.9 in the
    domains. An image of colour ``c`` fills channel ``c``; the other channel is zero.

    This is not the experiment of ``hessalign cmnist``, which has images of 14 pixels, two source domains and
    a target domain of its own.

    * Domains, in index order: +90%, +80%, -90% (how colour and label agree).
    * Classes: 2. Images: 23,334, 23,333 and 23,333, in all 70,000. Input: 2 × 28 × 28.
    * Source: Arjovsky et al., "Invariant Risk Minimization", 2019; this variant: Gulrajani and Lopez-Paz, "In
      Search of Lost Domain Generalization", ICLR 2021. Digits: LeCun et al., CC BY-SA 3.0.

    Args:
        seed: Seed of shuffling, label noise and colours; at least 0.

    Raises:
        ValueError: If the seed is out of range.
    """

    input_shape: tuple[int, ...] = (2, 28, 28)
    domain_names: ClassVar[tuple[str, ...]] = ("+90%", "+80%", "-90%")
    class_count: ClassVar[int | None] = 2
    classes: ClassVar[tuple[str, ...]] = ("5 to 9", "0 to 4")
    colour_flips: ClassVar[tuple[float, ...]] = COLOUR_FLIPS

    def make_samples(self, digits: Digits, domain: int, generator: torch.Generator) -> DigitSamples:
        """Noisy labels, and each image in the channel of its colour."""
        labels = _flip(digits.digits < 5, LABEL_FLIP, generator)
        colours = _flip(labels, self.colour_flips[domain], generator)
        count = len(labels)
        images = torch.zeros(count, *self.input_shape, dtype=torch.uint8)
        images[torch.arange(count), colours.long()] = digits.images
        return DigitSamples(images, labels.long())


def _flip(bits: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    return bits ^ (torch.rand(len(bits), generator=generator) < probability)
