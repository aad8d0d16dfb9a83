"""The pages on Colored MNIST are what templates and records make, and say what the records say."""

import re
from pathlib import Path

import pytest
from PIL import Image

from hessalign.experiments.colored_mnist.figure import fingerprint
from papers.colored_mnist import page as page_of
from papers.colored_mnist.evidence import FIGURES, RESULTS, all_records
from papers.colored_mnist.page import DOCS, RECORDS, STORY, TEMPLATES, Page, make_page
from papers.colored_mnist.panels import Curve, Panel, save_panels


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    return {name: make_page(name) for name in TEMPLATES}


def test_the_pages_are_what_the_records_say(pages: dict[str, Page]) -> None:
    folder, figures = DOCS / FIGURES, {}
    for name, page in pages.items():
        assert page.text == (DOCS / name).read_text(encoding="utf-8")
        figures |= page.evidence.figures
    assert sorted(figures) == sorted(path.name for path in folder.iterdir())
    for name, (_, shown) in figures.items():
        with Image.open(folder / name) as image:
            assert image.info["Description"] == fingerprint(shown), f"{name} is out of date"


def test_the_story_is_short_and_leaves_the_records_to_its_appendix(pages: dict[str, Page]) -> None:
    text = pages[STORY].text
    prose = re.sub(r"^(\||!|    ).*$", "", text, flags=re.MULTILINE)
    assert len(prose.split()) <= 1500
    assert len(re.findall(r"^!\[", text, re.MULTILINE)) == 4
    assert "[^" not in text
    assert f"({RECORDS})" in text


@pytest.mark.slow
def test_they_are_written_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts, and all figures; a figure of another page is removed."""
    monkeypatch.setattr(page_of, "DOCS", tmp_path)
    (tmp_path / FIGURES).mkdir()
    (tmp_path / FIGURES / "old.png").touch()
    page_of.write()
    figures = [path.name for path in (DOCS / FIGURES).iterdir()]
    assert sorted(path.name for path in (tmp_path / FIGURES).iterdir()) == sorted(figures)
    for name in TEMPLATES:
        assert (tmp_path / name).read_bytes() == (DOCS / name).read_bytes()


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_number_of_a_result_is_written_by_hand(name: str) -> None:
    """What stands in a template's prose was chosen, not measured: sizes, seeds, thresholds."""
    text = TEMPLATES[name].read_text(encoding="utf-8").partition("## How to add")[0]
    text = re.sub(r"\{[{%].*?[%}]\}|^    .*$", " ", text, flags=re.DOTALL | re.MULTILINE)
    numbers = set(re.findall(r"(?<![\w.])[+-]?\d+(?:\.\d+)?", text))
    assert numbers <= {"0", "1", "7", "8", "2", "55", "64", "75", "150", "300", "500", "2023"}


def test_every_note_names_records_that_exist() -> None:
    text = (DOCS / RECORDS).read_text(encoding="utf-8")
    notes = dict(re.findall(r"^\[\^(\d+)\]: (.*)$", text, flags=re.MULTILINE))
    used = set(re.findall(r"\[\^(\d+)\](?!:)", text))
    assert used == set(notes) != set()
    named = [path for note in notes.values() for path in re.findall(r"`(.*?)`", note)]
    assert all((RESULTS / path).is_file() for path in named)
    assert len(all_records()) >= len(set(named)) > 150


def test_what_is_said_in_short_names_its_records_or_the_tables_below() -> None:
    text = (DOCS / RECORDS).read_text(encoding="utf-8")
    section = text.partition("## In short\n\n")[2].partition("\n\n")[0]
    items = re.split(r"\n(?=\* )", section)
    assert len(items) > 5
    for item in items:
        assert re.search(r"(\[\^\d+\]|The tables below mark every row\.)$", item), item
        assert len(item.split()) < 100, item


def test_a_sentence_that_no_longer_holds_stops_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_of.tables, "rises", lambda values: False)
    with pytest.raises(ValueError, match=r"the records no longer say that off\(H\) rises with k"):
        make_page(RECORDS)


def test_recorded_restarts_are_found_under_their_names() -> None:
    """Every record of both folders lies where its identity says."""
    records = all_records()
    assert len(records) > 150
    on_disk = sorted(path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("restarts/*.json"))
    assert {*records} <= {*on_disk}
    names = [Path(path).name for path in on_disk]
    specs = [record.spec for record in records.values()]
    assert {f"{spec.method}-seed{spec.seed}-{spec.identity()}.json" for spec in specs} == {*names}


def test_figures_tell_what_they_were_drawn_from(tmp_path: Path) -> None:
    panels = [Panel("t", "x", (Curve("a", (1.0, 2.0), (3.0, 4.0)),), log_x=True, marks=True)]
    other = [Panel("t", "x", (Curve("a", (1.0, 2.0), (3.0, 4.5)),), log_x=True, marks=True)]
    save_panels(panels, tmp_path / "a.png")
    save_panels(panels, tmp_path / "again.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["Description"] == fingerprint(tuple(panels)) != fingerprint(tuple(other))
