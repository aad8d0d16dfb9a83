"""docs/diagnostics.md says what the package and the records say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from docs import write_diagnostics
from docs.write_diagnostics import FIGURES, PAGE, RECORD, colored_mnist, make_page, with_part
from PIL import Image

LARGEST_IMAGE = 200_000


def test_the_page_is_what_its_command_writes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert make_page(text) == text


def test_other_records_give_another_page() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    titles = list(record)
    swapped = colored_mnist({title: record[title] for title in reversed(titles)})
    assert swapped != colored_mnist(record)
    assert f"from {titles[1]} to {titles[0]}" in swapped
    assert "did not fall" in swapped
    assert with_part(PAGE.read_text(encoding="utf-8"), "Colored MNIST", swapped) != PAGE.read_text("utf-8")


def test_figures_are_drawn_from_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand beside the page, where matplotlib draws alike; their sizes everywhere."""
    monkeypatch.setattr(
        write_diagnostics, "FIGURES", {kind: tmp_path / path.name for kind, path in FIGURES.items()}
    )
    write_diagnostics.draw_figures(json.loads(RECORD.read_text(encoding="utf-8")))
    for path in FIGURES.values():
        with Image.open(path) as kept, Image.open(tmp_path / path.name) as drawn:
            assert np.allclose(kept.size, drawn.size, atol=20), path.name


def test_images_are_there_and_small() -> None:
    images = re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(images) >= 6
    for image in images:
        path = PAGE.parent / image
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < LARGEST_IMAGE, f"{image} is larger than {LARGEST_IMAGE} bytes"
