"""docs/colored-mnist.md is what its command writes from the records, and says what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs.write_colored_mnist import FIGURES, PAGE, make_page
from PIL import Image

from colored_mnist_page.page import all_records, mark
from hessalign.experiments.colored_mnist.curves import Curve, Panel, fingerprint, save_panels

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_records_say() -> None:
    page = make_page()
    assert "\n".join(page.lines) + "\n" == PAGE.read_text(encoding="utf-8")
    assert sorted(page.figures) == sorted(path.name for path in FIGURES.iterdir())
    for name, (_, shown) in page.figures.items():
        with Image.open(FIGURES / name) as image:
            assert image.info["Description"] == fingerprint(shown), f"{name} is out of date"


@pytest.mark.slow
def test_the_command_writes_it_byte_for_byte(tmp_path: Path) -> None:
    """In a copy of what it needs, twice: the figures repeat where matplotlib is the same."""
    for folder in ("docs", "results"):
        (tmp_path / folder).mkdir()
    for part in (ROOT / "docs" / "write_colored_mnist.py", *ROOT.glob("docs/colored_mnist_page/*.py")):
        copy = tmp_path / part.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(part.read_bytes())
    (tmp_path / "results" / "colored_mnist").symlink_to(ROOT / "results" / "colored_mnist")
    written = []
    for _ in range(2):
        command = [sys.executable, str(tmp_path / "docs" / "write_colored_mnist.py")]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        files = sorted((tmp_path / "docs").rglob("*.png"))
        written.append({path.name: path.read_bytes() for path in files})
    assert written[0] == written[1] != {}
    assert (tmp_path / "docs" / "colored-mnist.md").read_bytes() == PAGE.read_bytes()


def test_every_statement_names_records_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    notes = dict(re.findall(r"^\[\^(\d+)\]: (.*)$", text, flags=re.MULTILINE))
    used = set(re.findall(r"\[\^(\d+)\](?!:)", text))
    assert used == set(notes) != set()
    for line in text.splitlines():
        if line.startswith("* "):
            assert re.search(r"\[\^\d+\]$", line), line
    links = [link for note in notes.values() for link in re.findall(r"\]\((.*?)\)", note)]
    assert all((PAGE.parent / link).is_file() for link in links)
    assert len(all_records()) >= len(set(links))


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [(69.4, "inside"), (70.74, "inside"), (70.76, "off by +1.4"), (68.1, "inside"), (68.04, "off by -1.4")],
)
def test_marks(ours: float, verdict: str) -> None:
    assert mark(ours, 69.4, 1.3) == verdict


def test_figures_tell_what_they_were_drawn_from(tmp_path: Path) -> None:
    panels = [Panel("t", "x", (Curve("a", (1.0, 2.0), (3.0, 4.0)),), log_x=True, marks=True)]
    other = [Panel("t", "x", (Curve("a", (1.0, 2.0), (3.0, 4.5)),), log_x=True, marks=True)]
    save_panels(panels, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["Description"] == fingerprint(tuple(panels)) != fingerprint(tuple(other))
