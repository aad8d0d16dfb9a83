"""Features of 288 photographs by EfficientNet-Lite0, against a plain loop of timm over the same files."""

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
from hessalign.training import FeaturesSpec, Machine, extract_features

IMAGES, SIZE, BATCH_SIZE, MODEL = 144, (227, 227), 32, "tf_efficientnet_lite0"


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

        seconds = median_seconds({"ours": ours, "timm": plain_loop}, rounds=3, warm_up=1)
    return [
        Comparison(
            f"hessalign features, {2 * IMAGES} images",
            "plain timm inference",
            seconds["ours"],
            seconds["timm"],
            "cost",
            1 / 0.95,
        )
    ]
