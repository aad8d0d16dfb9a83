"""The pages on Colored MNIST: prose written by hand, in templates, around what the records say.

``docs/colored-mnist.md`` tells the story; its appendix, ``docs/colored-mnist-records.md``, names the records.
"""

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, StrictUndefined

from hessalign.experiments.colored_mnist import Setting, label_of, published
from hessalign.files import write_atomically
from papers.colored_mnist import devices, evidence, fresh_seeds, tables
from papers.colored_mnist.evidence import FIGURES, ROOT, Evidence
from papers.colored_mnist.study import reduced_setting

DOCS = ROOT / "docs"
STORY, RECORDS = "colored-mnist.md", "colored-mnist-records.md"
TEMPLATES = {
    STORY: Path(__file__).with_name("story.md.jinja"),
    RECORDS: Path(__file__).with_name("records.md.jinja"),
}
WIDTH = 116
"""Of the lines of prose."""
GLUE = "\0"
"""A space at which no line ends."""
OF_THE_RECORDS: tuple[Callable[..., object], ...] = (
    tables.paper_table,
    tables.reproduced,
    tables.aligned_table,
    tables.added_table,
    tables.variants_table,
    tables.left_gradients_table,
    tables.histories,
    tables.drawn_probes,
    tables.drawn_table,
    tables.same_way_table,
    tables.sized_table,
    tables.drawn_figure,
    tables.without_gradients,
    tables.collapse_table,
    tables.sweeps,
    tables.configurations,
    tables.over_probes,
    tables.probes_figure,
    tables.repeats,
    tables.others_that_differ,
    tables.as_flat,
    tables.runs_of,
    tables.choose,
    tables.best_alphas,
    tables.beyond,
    fresh_seeds.fresh_seeds,
    fresh_seeds.fresh_table,
    devices.devices,
)
"""What the template calls by name; each takes the evidence first, which the template does not name."""


@dataclass(frozen=True)
class Page:
    """A page in full.

    Attributes:
        text: In Markdown.
        evidence: What it was made from, with its figures.
    """

    text: str
    evidence: Evidence


def make_page(name: str) -> Page:
    """A page, from its template and the records.

    Args:
        name: ``STORY`` or ``RECORDS``.

    Returns:
        Its text, and the evidence with the figures that are to be drawn.

    Raises:
        ValueError: If a sentence no longer holds, or a record is missing.
        jinja2.UndefinedError: If the template names what there is not.
    """
    records = Evidence(has_notes=name == RECORDS)
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.do"]
    )
    environment.filters["signed"] = lambda points: f"{points:+.1f}"
    environment.filters["short"] = lambda value: f"{value:.2g}"
    environment.filters["power"] = lambda value: f"{value:.1e}"
    environment.filters["interval"] = tables.interval
    environment.filters["hundredths"] = tables.signed
    environment.filters["apart"] = devices.apart
    environment.filters["one"] = lambda value: f"{value:.1f}"
    environment.globals.update({of.__name__: partial(of, records) for of in OF_THE_RECORDS})
    environment.globals.update(
        holds=partial(_holds, name),
        run=records.run,
        ended=evidence.ended,
        cite=records.cite,
        footnotes=records.footnotes,
        find=records.find,
        mean=fmean,
        published=published,
        best_of_paper=evidence.best_of_paper,
        setting=Setting,
        reduced=reduced_setting,
        label_of=label_of,
        titles=tables.TITLES,
        questions=tables.questions(),
        rules_table=tables.rules_table,
        choices=tables.choices,
        by_target=tables.by_target,
        nearest_step=tables.nearest_step,
        off_diagonals=tables.off_diagonals,
        rises=tables.rises,
        differences=tables.differences,
        gains=tables.gains,
        beside=tables.beside,
        left_gradients=tables.left_gradients,
        devices_table=devices.devices_table,
        swing=devices.swing,
        aim=fresh_seeds.AIM,
        judge=fresh_seeds.judge,
        judged_table=fresh_seeds.judged_table,
    )
    text = environment.from_string(TEMPLATES[name].read_text(encoding="utf-8")).render()
    return Page("\n\n".join(map(_wrapped, re.split(r"\n{2,}", text.strip()))) + "\n", records)


def write() -> None:
    """Write both texts and all figures, and remove figures that no longer belong to them."""
    pages = {name: make_page(name) for name in TEMPLATES}
    figures = {name: figure for page in pages.values() for name, figure in page.evidence.figures.items()}
    folder = DOCS / FIGURES
    folder.mkdir(exist_ok=True)
    for name, (draw, _) in figures.items():
        draw(folder / name)
    for path in folder.glob("*.png"):
        if path.name not in figures:
            path.unlink()
    for name, page in pages.items():
        write_atomically(DOCS / name, page.text)


def _holds(page: str, condition: bool, sentence: str) -> str:
    """Nothing, in place of a condition that a sentence of a template rests on.

    Returns:
        The empty string.

    Raises:
        ValueError: If it is not met: the sentence has to be written anew.
    """
    if not condition:
        raise ValueError(f"{TEMPLATES[page].name}: the records no longer say that {sentence}")
    return ""


def _wrapped(block: str) -> str:
    """A paragraph or a list in lines of one length; tables, headings, figures and code stay as they are."""
    if block.startswith(("|", "#", "!", "    ", "[^")):
        return block
    return "\n".join(map(_filled, re.split(r"\n(?=\* )", block)))


def _filled(text: str) -> str:
    """One paragraph or item; numbers stay with their signs and units, and code in one piece."""
    joined = re.sub(r"(?<=\S) (?=[=±/%]( |$))|(?<=[=±/]) (?=\S)", GLUE, " ".join(text.split()))
    joined = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", GLUE), joined)
    indent = "  " if text.startswith("* ") else ""
    filled = textwrap.fill(
        joined, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return filled.replace(GLUE, " ")
