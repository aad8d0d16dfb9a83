"""docs/diagnostics.md says what the package and the records say."""

import json
import re

from docs.write_diagnostics import PAGE, RECORD, colored_mnist, make_page, with_part

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


def test_images_are_there_and_small() -> None:
    images = re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(images) >= 6
    for image in images:
        path = PAGE.parent / image
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < LARGEST_IMAGE, f"{image} is larger than {LARGEST_IMAGE} bytes"
