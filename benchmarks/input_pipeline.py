"""Training images: decoded, augmented at 224 pixels and stacked, 3 domains of 32 a batch.

The baseline is torchvision's ImageFolder in a plain DataLoader with the same augmentation and as many
workers. Times are those of one image, the start of the workers included. The images are JPEGs of 500 × 375
pixels made for the purpose, or those of a folder ``root/domain/class/image``, if the environment variable
BENCHMARK_IMAGES names one.
"""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.timing import Comparison, median_seconds
from hessalign.datasets.image_folder import ImageFolderDomains
from hessalign.datasets.image_reading import training_transform
from hessalign.training.batches import domain_batches

DOMAINS, IMAGES_PER_DOMAIN, BATCHES = 3, 32, 2
FILES_PER_DOMAIN = 100
WIDTH, HEIGHT = 500, 375


def run() -> list[Comparison]:
    """Time both pipelines without and with workers."""
    given = os.environ.get("BENCHMARK_IMAGES")
    if given is not None:
        return _compare(Path(given))
    with TemporaryDirectory() as folder:
        _write_images(Path(folder))
        return _compare(Path(folder))


def _compare(root: Path) -> list[Comparison]:
    dataset = ImageFolderDomains(root)
    augmented = [domain.augmented for domain in dataset.domains][:DOMAINS]
    images = len(augmented) * IMAGES_PER_DOMAIN * BATCHES
    plain = ImageFolder(str(root), training_transform())

    def ours(workers: int) -> Callable[[], None]:
        def load() -> None:
            for _ in domain_batches(augmented, IMAGES_PER_DOMAIN, 0, range(BATCHES), workers):
                pass

        return load

    def baseline(workers: int) -> Callable[[], None]:
        def load() -> None:
            batch_size = len(augmented) * IMAGES_PER_DOMAIN
            loader = DataLoader(plain, batch_size, shuffle=True, num_workers=workers, drop_last=True)
            for _ in islice(loader, BATCHES):
                pass

        return load

    comparisons = []
    for workers in (0, 2):
        seconds = median_seconds({"ours": ours(workers), "plain": baseline(workers)}, rounds=7, warm_up=1)
        rates = {name: images / value for name, value in seconds.items()}
        comparisons.append(
            Comparison(
                f"one image, {workers} workers",
                f"ImageFolder ({rates['ours']:.0f} to {rates['plain']:.0f} images per second)",
                seconds["ours"] / images,
                seconds["plain"] / images,
                "cost",
                1.05,
            )
        )
    return comparisons


def _write_images(root: Path) -> None:
    """Blobs and grain, which a JPEG decoder takes about as long for as for a photograph."""
    random = np.random.default_rng(0)
    for number in range(DOMAINS * FILES_PER_DOMAIN):
        folder = root / f"domain_{number % DOMAINS}" / f"class_{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = torch.tensor(random.uniform(0, 255, (1, 3, 12, 16)))
        smooth = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[0]
        pixels = smooth.permute(1, 2, 0).numpy() + random.normal(0, 8, (HEIGHT, WIDTH, 1))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number:04}.jpg", quality=90)
