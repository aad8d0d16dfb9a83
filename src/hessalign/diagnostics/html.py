"""A report as one web page that needs nothing else."""

import base64
import io
import math
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import get_args

import polars as pl

from hessalign.diagnostics.plots import draw
from hessalign.diagnostics.report import AlignmentReport, Plot, Table
from hessalign.files import write_atomically
from hessalign.markup import html_text

SECTIONS: dict[Table, str] = {
    "attributes": "What differs, ranked",
    "distances": "Distances",
    "parts": "Squared distances by attribute (Propositions 4 and 5) and output",
    "groups": "What differs, by class",
    "eigenvalues": "Leading eigenvalues of the head's Hessian",
    "samples": "Samples that lengthen a distance most",
}
CAPTIONS: dict[Plot, str] = {
    "attributes": "What differs between each two domains. Pale, hatched bars may be chance.",
    "distances": "Distances between domains.",
    "eigenvalues": "Leading eigenvalues of each domain's head Hessian.",
    "plane": "The domains in the plane of the two leading aligned directions.",
}


def write_html(path: Path, reports: Mapping[str, AlignmentReport]) -> None:
    """Write one report, or several to compare.

    Args:
        path: Of the page.
        reports: By title; a single one may have an empty title.

    Raises:
        OSError: If it cannot be written.
    """
    write_atomically(path, page(reports))


def page(reports: Mapping[str, AlignmentReport]) -> str:
    """The page's text."""
    style, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    first = next(iter(reports.values()))
    titles = [title for title in reports if title]
    heading = "What differs between the domains" + (f": {' against '.join(titles)}" if titles else "")
    parts = [
        f"<h1>{html_text(heading)}</h1>",
        *(_summary(title, report) for title, report in reports.items()),
    ]
    parts += [_figure(reports, kind) for kind in get_args(Plot)]
    if len(reports) > 1:
        parts += [
            "<h2>Side by side</h2>",
            _html_table(compare(reports), "Distances relative to their own norms"),
        ]
    parts += [
        f"<h2>{section}</h2>"
        + "".join(_html_table(report.to_frame(name), title) for title, report in reports.items())
        for name, section in SECTIONS.items()
    ]
    parts.append(_explanations(first))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html_text(heading)}</title>\n'
        f"<style>\n{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>\n{script}</script>\n</body></html>\n"
    )


def compare(reports: Mapping[str, AlignmentReport]) -> pl.DataFrame:
    """Relative distances of several reports side by side: a column for each title."""
    frames = [
        report.to_frame("distances")
        .filter(pl.col("relative").is_not_null())
        .select("first", "second", "quantity", pl.col("relative").alias(title))
        for title, report in reports.items()
    ]
    joined = frames[0]
    for frame in frames[1:]:
        joined = joined.join(frame, on=["first", "second", "quantity"], how="left", maintain_order="left")
    return joined


def _summary(title: str, report: AlignmentReport) -> str:
    domains = ", ".join(f"{name} ({size:,})" for name, size in zip(report.names, report.sizes, strict=True))
    top = report.to_frame("attributes").filter(pl.col("rank") == 1)
    sentences = [
        f"{first} and {second} differ most in {attribute} ({effect:.2g} nats)"
        if found
        else f"nothing is found to differ between {first} and {second}"
        for first, second, attribute, effect, found in top.select(
            "first", "second", "attribute", "effect", "found"
        ).iter_rows()
    ]
    items = "".join(f"<li>{html_text(sentence[0].upper() + sentence[1:])}.</li>" for sentence in sentences)
    lead = f"<strong>{html_text(title)}.</strong> " if title else ""
    interval = (
        f"Intervals: {100 * report.level:g} %, {report.replicates} bootstrap replicates. "
        if report.replicates
        else ""
    )
    return (
        f"<p>{lead}Domains (samples): {html_text(domains)}. {interval}"
        f"Transfer bound: δ = {report.radius:g}.</p><ul>{items}</ul>{_notes(report)}"
    )


def _notes(report: AlignmentReport) -> str:
    items = "".join(f"<li>{html_text(note[0].upper() + note[1:])}</li>" for note in report.notes)
    return f"<p>Not to be believed, or not told:</p><ul>{items}</ul>" if items else ""


def _figure(reports: Mapping[str, AlignmentReport], kind: Plot) -> str:
    buffer = io.BytesIO()
    draw(reports, kind).savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = html_text(CAPTIONS[kind])
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _html_table(frame: pl.DataFrame, caption: str) -> str:
    numeric = [dtype.is_numeric() for dtype in frame.dtypes]
    classes = [' class="number"' if number else "" for number in numeric]
    head = "".join(
        f'<th scope="col"{css}><button type="button">{html_text(name)}</button></th>'
        for name, css in zip(frame.columns, classes, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(_cell(value, css) for value, css in zip(row, classes, strict=True)) + "</tr>"
        for row in frame.iter_rows()
    )
    title = f"<caption>{html_text(caption)}</caption>" if caption else ""
    table = f"<table>{title}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    wrapped = f'<div class="wide">{table}</div>'
    if len(frame) > 40:
        summary = f"{html_text(caption or 'Table')}: {len(frame)} rows"
        return f"<details><summary>{summary}</summary>{wrapped}</details>"
    return wrapped


def _cell(value: str | float | bool | None, css: str) -> str:
    if value is None:
        return f"<td{css}></td>"
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, float):
        # JavaScript reads every finite number that Python writes.
        raw = repr(value) if math.isfinite(value) else ("1e999" if value > 0 else "-1e999")
        return f'<td{css} data-value="{raw}">{value:.4g}</td>'
    return f"<td{css}>{html_text(str(value))}</td>"


def _explanations(report: AlignmentReport) -> str:
    explanations = tomllib.loads(files(__package__).joinpath("explanations.toml").read_text("utf-8"))
    items = "".join(
        f"<dt>{html_text(name)}</dt><dd>{html_text(text)}</dd>" for name, text in explanations.items()
    )
    count = len(report.names)
    return f"<h2>What the words mean</h2><p>e and f are two of the {count} domains.</p><dl>{items}</dl>"
