"""DomainBed's network for images of 28 pixels."""

from torch import nn

NAME = "mnist_cnn"
GROUPS = 8


class MnistCnn(nn.Sequential):
    """Four 3×3 convolutions, each with ReLU and then GroupNorm, and a global average.

    Maps ``(n, c, h, w)`` to ``(n, 128)``. The sizes and the order, ReLU before the normalisation, are those
    of DomainBed's ``MNIST_CNN`` (Gulrajani and Lopez-Paz, "In Search of Lost Domain Generalization", ICLR
    2021).

    Args:
        input_channels: Channels ``c`` of the images.
    """

    width = 128

    def __init__(self, input_channels: int) -> None:
        super().__init__(
            *_block(input_channels, 64),
            *_block(64, 128, stride=2),
            *_block(128, 128),
            *_block(128, self.width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


def _block(channels_in: int, channels_out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1)
    return convolution, nn.ReLU(), nn.GroupNorm(GROUPS, channels_out)
