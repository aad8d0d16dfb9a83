"""A report as one web page that needs nothing else; of many domains, all tables lie in a folder beside it."""

import base64
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import get_args

import polars as pl

from hessalign.diagnostics.data import MOST_PAIRS, OF_PAIRS, DomainReport, Plot, Table, compare
from hessalign.diagnostics.plots import draw
from hessalign.figures import png_bytes
from hessalign.files import replacing, write_atomically
from hessalign.markup import visible
from hessalign.pages import render

SECTIONS: dict[Table, str] = {
    "pairs": "Pairs of domains",
    "domains": "Domains",
    "attributes": "What differs, ranked",
    "distances": "Distances",
    "parts": "Squared distances by attribute (Propositions 4 and 5) and output",
    "groups": "What differs, by class",
    "shift": "Diversity and correlation shift (OoD-Bench)",
    "eigenvalues": "Leading eigenvalues of the head's Hessian",
    "samples": "Samples that lengthen a distance most",
}
CAPTIONS: dict[Plot, str] = {
    "attributes": "What differs between each two domains. Pale, hatched bars may be chance.",
    "distances": "Distances between domains.",
    "eigenvalues": "Leading eigenvalues of each domain's head Hessian.",
    "plane": "The domains in the plane of the two leading aligned directions.",
}

MOST_ROWS = 300
"""Of a table on a page."""

LARGEST_FIRST: dict[Table, str] = {
    "parts": "share",
    "groups": "effect",
    "domains": "mean Hessian distance",
}
"""By which column rows are chosen where a table has too many."""

TABLES = ".tables"
"""Ending of the folder beside a page."""


@dataclass(frozen=True)
class ShownTable:
    """A table as a page shows it.

    Attributes:
        caption: Above it; empty for none.
        columns: Names, and whether they hold numbers.
        rows: Of cells: a text, and the value to sort by, or None where that is the text.
        left_out: What is not shown, and where it is; empty if nothing.
    """

    caption: str
    columns: list[tuple[str, bool]]
    rows: list[list[tuple[str, str | None]]]
    left_out: str = ""

    @classmethod
    def of(cls, frame: pl.DataFrame, caption: str, left_out: str = "") -> "ShownTable":
        """A whole frame.

        Args:
            frame: To show.
            caption: Above it.
            left_out: Below it.

        Returns:
            The table, with its cells as text.
        """
        columns = [
            (name, dtype.is_numeric()) for name, dtype in zip(frame.columns, frame.dtypes, strict=True)
        ]
        return cls(caption, columns, [list(map(_cell, row)) for row in frame.iter_rows()], left_out)


def write_html(path: Path, reports: Mapping[str, DomainReport]) -> None:
    """Write one report, or several to compare; where a page leaves something out, all tables beside it.

    Args:
        path: Output path of the page.
        reports: By title; a single one may have an empty title.

    Raises:
        OSError: If it cannot be written.
    """
    folder = path.with_name(path.stem + TABLES)
    if any(_leaves_out(report) for report in reports.values()):
        folder.mkdir(exist_ok=True)
        for name in get_args(Table):
            frames = [
                report.to_frame(name).select(pl.lit(visible(title)).alias("report"), pl.all())
                for title, report in reports.items()
            ]
            with replacing(folder / f"{name}.parquet") as draft:
                pl.concat(frames, how="diagonal_relaxed").write_parquet(draft)
    write_atomically(path, page(reports, folder.name))


def page(reports: Mapping[str, DomainReport], folder: str = "") -> str:
    """The page's text.

    Args:
        reports: By title; a single one may have an empty title.
        folder: Name of the folder that has all tables, where the page leaves something out.

    Returns:
        HTML, a whole document.
    """
    titles = [title for title in reports if title]
    sections = [
        (heading, [_shown(report, name, title, folder) for title, report in reports.items()])
        for name, heading in SECTIONS.items()
    ]
    if len(reports) > 1:
        side_by_side = ShownTable.of(_compared(reports), "Distances relative to their own norms")
        sections.insert(0, ("Side by side", [side_by_side]))
    left_out = any(_leaves_out(report) for report in reports.values())
    return render(
        "report.html",
        title="What differs between the domains" + (f": {' against '.join(titles)}" if titles else ""),
        summaries=[_summary(title, report) for title, report in reports.items()],
        left_out=f"All tables in full: folder {folder}, as Parquet." if left_out and folder else "",
        figures=[
            (caption, base64.b64encode(png_bytes(draw(reports, kind))).decode())
            for kind, caption in sorted(CAPTIONS.items(), key=lambda item: get_args(Plot).index(item[0]))
        ],
        sections=sections,
        count=len(next(iter(reports.values())).names),
        explanations=tomllib.loads(files(__package__).joinpath("explanations.toml").read_text("utf-8")),
    )


def overview(report: DomainReport) -> str:
    """The table of pairs alone, as a part of a page.

    Args:
        report: Any.

    Returns:
        HTML, a part of a document.
    """
    pairs = report.told("pairs", report.extremes())
    left = len(report.to_frame("pairs")) - len(pairs)
    rest = f"{left:,} more pairs lie between the most different and the most alike." if left else ""
    return render("table.html", shown=ShownTable.of(pairs.drop("full"), repr(report), rest))


def _leaves_out(report: DomainReport) -> bool:
    return len(report.to_frame("pairs")) > MOST_PAIRS or any(
        len(report.to_frame(name)) > MOST_ROWS for name in SECTIONS if name != "samples"
    )


def _shown(report: DomainReport, name: Table, title: str, folder: str) -> ShownTable:
    """A table of a page: of the pairs that it tells one by one, and no longer than is readable."""
    whole = report.to_frame(name)
    frame = report.told(name, report.extremes()) if name in OF_PAIRS else whole
    if name == "pairs":
        frame = frame.drop("full")
    if name == "eigenvalues" and _leaves_out(report):
        frame = whole.filter(pl.col("number") == 1).sort("eigenvalue", descending=True)
    if len(frame) > MOST_ROWS and name in LARGEST_FIRST:
        frame = frame.sort(LARGEST_FIRST[name], descending=True, nulls_last=True, maintain_order=True)
    if name != "samples":
        frame = frame.head(MOST_ROWS)
    rest = f"{len(frame):,} of {len(whole):,} rows"
    left_out = f"{rest}; all: {folder}/{name}.parquet" if folder else rest
    return ShownTable.of(frame, title, left_out if len(frame) < len(whole) else "")


def _compared(reports: Mapping[str, DomainReport]) -> pl.DataFrame:
    first = next(iter(reports.values()))
    return first.extremes().join(
        compare(reports), on=["first", "second"], how="inner", maintain_order="left_right"
    )


def _summary(title: str, report: DomainReport) -> dict[str, object]:
    pairs = report.extremes()
    domains = [f"{name} ({size:,})" for name, size in zip(report.names, report.sizes, strict=True)]
    listed = (
        ", ".join(domains) if len(domains) <= MOST_PAIRS else f"{len(domains)}, {sum(report.sizes):,} in all"
    )
    interval = (
        f"Intervals: {100 * report.level:g} %, {report.replicates} bootstrap replicates. "
        if report.replicates
        else ""
    )
    return {
        "title": title,
        "lead": f"Domains (samples): {listed}. {interval}Transfer bound: δ = {report.radius:g}.",
        "sentences": report.sentences(pairs),
        "notes": report.notes,
    }


def _cell(value: str | float | bool | None) -> tuple[str, str | None]:
    if value is None:
        return "", None
    if isinstance(value, bool):
        return ("yes" if value else "no"), None
    if isinstance(value, float):
        # JavaScript reads every finite number that Python writes.
        raw = repr(value) if math.isfinite(value) else ("1e999" if value > 0 else "-1e999")
        return f"{value:.4g}", raw
    return str(value), None
