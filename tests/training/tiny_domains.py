"""Three small domains of 4-pixel images, with an augmentation that draws random numbers."""

from pathlib import Path

import torch
from torch import Tensor

from hessalign.backbones import BackboneSpec
from hessalign.datasets.base import Domain, DomainDataset, Samples
from hessalign.training import RunSpec

NAMES = ("bright", "middle", "dark")
PIXELS = 4


class InMemory(Samples):
    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.targets[index])


class Noisy(InMemory):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = super().__getitem__(index)
        return image + 0.1 * torch.randn(image.shape), target


class TinyDomains(DomainDataset):
    """Two classes: a bright upper or lower half."""

    name = "tiny"
    search_space = "small"
    input_shape = (1, PIXELS, PIXELS)
    checkpoint_every = 4
    steps = 12

    def __init__(self, samples: int = 30) -> None:
        domains = []
        for index, name in enumerate(NAMES):
            generator = torch.Generator().manual_seed(index)
            targets = torch.arange(samples) % 2
            images = 0.3 * torch.randn(samples, 1, PIXELS, PIXELS, generator=generator) - 0.2 * index
            images[targets == 0, :, : PIXELS // 2] += 1
            images[targets == 1, :, PIXELS // 2 :] += 1
            domains.append(Domain(name, targets, InMemory(images, targets), Noisy(images, targets)))
        super().__init__(("upper", "lower"), tuple(domains))

    @classmethod
    def make(cls, root: Path | None, seed: int) -> "TinyDomains":
        return cls()


def tiny_spec(**changes) -> RunSpec:
    hparams = {"lr": 1e-3, "batch_size": 6, "alpha": 1e-3, "beta": 1e-2}
    fields = {
        "dataset": "tiny",
        "algorithm": "hgp",
        "target_domains": (2,),
        "backbone": BackboneSpec(name="mnist_cnn", dropout=0.3),
        "hparams": hparams,
        "steps": 12,
        "evaluate_every": 4,
    }
    return RunSpec(**{**fields, **changes})
