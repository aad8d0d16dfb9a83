"""The multi-layer perceptron of the Colored MNIST experiment."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessalign.experiments.colored_mnist.data import PIXELS, ColoredImages

# Images handled together: activations of a group stay in the processor's cache, which makes the matrix
# products about 1.5 times as fast as one call over the whole domain.
IMAGES_IN_CACHE = 2500
# Matrix products are faster over a multiple of eight units: layers are filled up with units that stay zero.
WIDTH_MULTIPLE = 8


class ColoredMLP(nn.Module):
    """392 – hidden – hidden – 1 with ReLU; Xavier-uniform weights, zero biases.

    Args:
        hidden: Width of both hidden layers, the head's number of features.
        generator: Source of the initial weights, on the CPU.
    """

    def __init__(self, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Linear(2 * PIXELS, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 1)
        for layer in (self.first, self.second, self.head):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, images: ColoredImages) -> tuple[Tensor, Tensor]:
        """Features ``(n, hidden)`` and logits ``(n,)``, in the order of the images."""
        hidden = self.head.in_features
        added = -hidden % WIDTH_MULTIPLE
        first_bias = F.pad(self.first.bias, (0, added))
        second, second_bias = F.pad(self.second.weight, (0, added) * 2), F.pad(self.second.bias, (0, added))
        groups = []
        # The columns of the first layer that belong to an image's empty channel, and those of pixels that are
        # dark in all images, add nothing: leave them out.
        for pixels, weight in zip(images.by_colour(), self.first.weight.split(PIXELS, dim=1), strict=True):
            lit = F.pad(weight[:, images.columns], (0, 0, 0, added))
            for group in pixels.split(IMAGES_IN_CACHE):
                activations = F.linear(group, lit, first_bias).relu_()
                groups.append(F.linear(activations, second, second_bias).relu_())
        features = torch.cat(groups)[:, :hidden]
        return features, self.head(features).squeeze(1)
