"""What happens to photographs on their way into a network: DomainBed's recipe."""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

Transform = Callable[[Image.Image], Tensor]

IMAGE_SIZE = 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def plain_transform() -> Transform:
    """Resize to 224 × 224 whatever the aspect ratio, and normalise; for validation and test.

    Returns:
        Maps an RGB image to ``(3, 224, 224)``, float32, always to the same one.
    """
    transform: Transform = v2.Compose([v2.Resize((IMAGE_SIZE, IMAGE_SIZE)), *_to_normalised_tensor()])
    return transform


def training_transform() -> Transform:
    """A random crop of 70 to 100 % of the area, flip, jitter and greyscale, then as [plain_transform][].

    Draws come from torch's global generator.

    Returns:
        Maps an RGB image to ``(3, 224, 224)``, float32, to another one at every call.
    """
    transform: Transform = v2.Compose(
        [
            v2.RandomResizedCrop(IMAGE_SIZE, scale=(0.7, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.3),
            v2.RandomGrayscale(),
            *_to_normalised_tensor(),
        ]
    )
    return transform


def _to_normalised_tensor() -> list[torch.nn.Module]:
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        v2.ToPureTensor(),
    ]
