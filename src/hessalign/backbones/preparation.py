"""What a network wants of its images, where that is not what datasets give."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What datasets of photographs normalise by, as DomainBed does whatever the weights.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class InputNeeds(NamedTuple):
    """What images a network wants.

    Attributes:
        mean: By which its weights were trained, of each channel, for values from 0 to 1.
        std: Likewise.
        size: Height and width, where it takes no others.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: tuple[int, int] | None = None

    @property
    def differs(self) -> bool:
        """Whether mean or deviation are not ImageNet's."""
        return self.mean != IMAGENET_MEAN or self.std != IMAGENET_STD


class Preparation(nn.Module):
    """Makes of images that are normalised by ImageNet's mean and deviation what a network wants.

    Images of another size than the only one that the network takes are resized (bicubic, antialiased). It has
    no state of its own, so checkpoints are the same with it and without.

    Args:
        needs: What the network wants.
        normalise: Give it its own mean and deviation; otherwise ImageNet's stay.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, needs: InputNeeds, normalise: bool) -> None:
        super().__init__()
        self.needs = needs
        self.normalise = normalise and needs.differs
        mean, std, own_mean, own_std = (
            torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD, needs.mean, needs.std)
        )
        self.register_buffer("scale", (std / own_std).float(), persistent=False)
        self.register_buffer("shift", ((mean - own_mean) / own_std).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(n, c, h, w)`` as the network wants them."""
        if self.normalise:
            images = images * self.scale + self.shift
        if self.needs.size is not None and images.shape[-2:] != self.needs.size:
            images = F.interpolate(images, self.needs.size, mode="bicubic", antialias=True)
        return images

    def describe(self, size: tuple[int, ...]) -> str:
        """What is done to images of a height and width, for the record; empty if nothing."""
        steps = []
        if self.normalise:
            steps.append(f"mean {self.needs.mean}, std {self.needs.std} instead of ImageNet's")
        if self.needs.size not in (None, size):
            steps.append(f"resize to {self.needs.size}, bicubic, antialiased")
        return "; ".join(steps)
