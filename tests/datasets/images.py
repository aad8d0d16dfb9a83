"""Images on disk for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image

PACS_MINI = Path(__file__).parents[3] / "shared" / "data" / "pacs_mini"


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (20, 14)) -> Path:
    """A noisy image of ``(width, height)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_folder(root: Path, counts: dict[str, dict[str, int]]) -> Path:
    """``root/domain/class/number.png``, as many as the counts say."""
    seed = 0
    for domain, by_class in counts.items():
        for class_name, count in by_class.items():
            for number in range(count):
                write_image(root / domain / class_name / f"{number:03}.png", seed)
                seed += 1
    return root


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
