"""The gallery's pages show what its notebooks and scripts do."""

import json
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from docs.write_gallery import FENCE, GALLERY, NOTEBOOKS, SCRIPTS, notebook_page, script_pages

NUMBER = re.compile(r"\d+(?:\.\d+)?e[+-]\d+|\d+\.\d+")


def is_alike(text: str, other: str) -> bool:
    """The same words; numbers may differ as processors do."""
    numbers = [np.array([float(number) for number in NUMBER.findall(each)]) for each in (text, other)]
    same_words = NUMBER.sub("0.0", text) == NUMBER.sub("0.0", other)
    return same_words and np.allclose(*numbers, rtol=0.1, atol=0.03)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_holds_every_cell_of_its_notebook(name: str) -> None:
    page = (GALLERY / f"{name}.md").read_text(encoding="utf-8")
    cells = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))["cells"]
    assert all("".join(cell["source"]) in page for cell in cells)
    assert all(not cell.get("outputs") for cell in cells), "the page has the outputs"
    figures = re.findall(r"^!\[.*\]\((.*)\)$", page, re.MULTILINE)
    assert len(figures) == 1
    assert (GALLERY / figures[0]).is_file()


def test_a_page_of_a_script_says_what_it_prints() -> None:
    for name in SCRIPTS:
        assert FENCE.search((GALLERY / f"{name}.md").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # a reader sees them, a test does not
def test_notebooks_and_scripts_do_what_their_pages_show() -> None:
    mpl.use("agg")
    threads = torch.get_num_threads()
    for name in NOTEBOOKS:
        text, figures = notebook_page(name)
        assert is_alike(text, (GALLERY / f"{name}.md").read_text(encoding="utf-8")), text
        assert sorted(figures) == sorted(path.name for path in GALLERY.glob(f"{name}-*.png"))
    for page, text in script_pages():
        assert is_alike(text, Path(page).read_text(encoding="utf-8")), text
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("ours", "alike"),
    [("plain 0.20, aligned 0.69", True), ("plain 0.20, aligned 0.49", False), ("0.20", False)],
)
def test_what_is_alike(ours: str, alike: bool) -> None:
    assert is_alike(ours, "plain 0.21, aligned 0.70") == alike
