"""Images that a command can train on."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, DOMAINS, IMAGES = ("blue", "red"), ("dim", "mid", "vivid"), 8


def draw_images(root: Path, suffix: str = "png") -> Path:
    """root/domain/class/*, 40 × 30 pixels."""
    random = np.random.default_rng(0)
    for level, domain in enumerate(DOMAINS):
        for channel, name in ((2, "blue"), (0, "red")):
            (root / domain / name).mkdir(parents=True)
            for number in range(IMAGES):
                pixels = random.integers(0, 40, (30, 40, 3))
                pixels[:, :, channel] += 80 + 60 * level
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(root / domain / name / f"{number}.{suffix}")
    return root
