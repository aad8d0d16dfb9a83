"""Features of 192 photographs by EfficientNet-Lite0, against a plain loop of timm over the same files.

``hessalign features`` keeps freed memory for reuse, which a plain loop does not. Compared are both without
it, both with it, and the command's way with the plain loop; in a process of their own.
"""

import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.timing import Comparison, median_seconds
from hessalign.backbones import BackboneSpec
from hessalign.datasets.image_folder import ImageFolderDomains
from hessalign.memory import keep_freed_memory
from hessalign.training import FeaturesSpec, Machine, extract_features

IMAGES, SIZE, BATCH_SIZE, MODEL = 96, (227, 227), 32, "tf_efficientnet_lite0"


def write_photographs(root: Path) -> None:
    """Two domains of smooth noise, saved as JPEG files of the size of PACS's."""
    random = np.random.default_rng(0)
    for domain in ("day", "night"):
        (root / domain / "scene").mkdir(parents=True)
        for number in range(IMAGES):
            pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC)
            image.save(root / domain / "scene" / f"{number:03}.jpg")


def run() -> list[Comparison]:
    """Time both, in turn."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        plain, kept = pool.apply(measure)
    what = f"extraction, {2 * IMAGES} images"
    return [
        Comparison(what, "plain timm inference", plain["ours"], plain["timm"], "cost", 1 / 0.95),
        Comparison(
            f"{what}, freed memory kept", "the same with it", kept["ours"], kept["timm"], "cost", 1 / 0.95
        ),
        Comparison(
            f"{what}, freed memory kept", "plain timm inference", kept["ours"], plain["timm"], "faster"
        ),
    ]


def measure() -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of ours and of timm's, first as the system gives memory, then with freed memory kept."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photographs(root / "images")
        dataset = ImageFolderDomains(root / "images")
        network = timm.create_model(MODEL, num_classes=0).eval()

        @torch.no_grad()
        def plain_loop() -> None:
            for domain in dataset.domains:
                for inputs, _ in DataLoader(domain.plain, batch_size=BATCH_SIZE):
                    network(inputs)

        def ours() -> None:
            file = root / "features.safetensors"
            file.unlink(missing_ok=True)
            spec = FeaturesSpec(backbone=BackboneSpec(name=f"timm:{MODEL}"), batch_size=BATCH_SIZE)
            extract_features(dataset, spec, file, Machine("cpu"))

        alternatives = {"ours": ours, "timm": plain_loop}
        plain = median_seconds(alternatives, rounds=5, warm_up=1)
        keep_freed_memory()
        return plain, median_seconds(alternatives, rounds=5, warm_up=1)
