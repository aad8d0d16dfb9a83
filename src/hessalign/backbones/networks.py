"""Small networks of our own, and what any network wants of its images."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MNIST_CNN = "mnist_cnn"
GROUPS = 8
ADAPTERS = ("adapter:linear", "adapter:mlp")
DEFAULT_RANK = 16
# What datasets of photographs normalise by, as DomainBed does whatever the weights.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class MnistCnn(nn.Sequential):
    """Four 3×3 convolutions, each with ReLU and then GroupNorm, and a global average.

    Maps ``(n, c, h, w)`` to ``(n, 128)``. The sizes and the order, ReLU before the normalisation, are those
    of DomainBed's ``MNIST_CNN`` (Gulrajani and Lopez-Paz, "In Search of Lost Domain Generalization", ICLR
    2021). On a processor the images pass through it with their channels last in memory, which is faster and
    changes nothing but the last bits.

    Args:
        input_channels: Channels ``c`` of the images.

    Examples:
        >>> import torch
        >>> from hessalign.backbones import MnistCnn
        >>> MnistCnn(input_channels=2)(torch.zeros(4, 2, 28, 28)).shape
        torch.Size([4, 128])
    """

    width = 128
    stages = ("2", "5", "8", "11")
    """Names of the modules that end a block."""

    def __init__(self, input_channels: int) -> None:
        super().__init__(
            *_block(input_channels, 64),
            *_block(64, 128, stride=2),
            *_block(128, 128),
            *_block(128, self.width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(n, 128)``."""
        if images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        features: Tensor = super().forward(images)  # type: ignore[no-untyped-call]  # of Sequential
        return features


def _block(channels_in: int, channels_out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1)
    return convolution, nn.ReLU(), nn.GroupNorm(GROUPS, channels_out)


class Adapter(nn.Module):
    """``z + B φ(A z)`` with ``A`` ``(r, d)`` and ``B`` ``(d, r)``, which starts at zero.

    ``φ`` is the identity for ``"adapter:linear"``: a change of the features by a matrix of rank ``r``. For
    ``"adapter:mlp"`` it is ReLU, and both layers have a bias: one hidden layer of ``r`` units. The zero makes
    a run with an adapter begin where the run without it begins (as in LoRA, Hu et al., ICLR 2022).

    Args:
        name: One of the two.
        width: Number of features ``d``.
        rank: ``r``, from 1 to ``d``.

    Raises:
        ValueError: If the rank is larger than the number of features.

    Examples:
        >>> import torch
        >>> from hessalign.backbones import Adapter
        >>> adapter, features = Adapter("adapter:mlp", width=6, rank=2), torch.randn(4, 6)
        >>> torch.equal(adapter(features), features)
        True
        >>> adapter.down.weight.shape, adapter.up.weight.shape
        (torch.Size([2, 6]), torch.Size([6, 2]))
    """

    def __init__(self, name: str, width: int, rank: int) -> None:
        super().__init__()
        if rank > width:
            raise ValueError(f"rank: {rank} is more than the {width} features; allowed are 1 to {width}")
        bias = name == "adapter:mlp"
        self.down = nn.Linear(width, rank, bias=bias)
        self.activation = nn.ReLU() if bias else nn.Identity()
        self.up = nn.Linear(rank, width, bias=bias)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(n, d)`` of features ``(n, d)``."""
        change: Tensor = self.up(self.activation(self.down(features)))
        return features + change


class InputNeeds(NamedTuple):
    """What images a network wants.

    Attributes:
        mean: Mean of each channel that its weights were trained with, for values from 0 to 1.
        std: Deviation, likewise.
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
