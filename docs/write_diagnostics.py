"""Write two parts of docs/diagnostics.md, and the figures of one:  python docs/write_diagnostics.py.

The sentences about quantities are those of the page that ``to_html`` makes. What is said about Colored MNIST
is computed from results/diagnostics/colored-mnist.json, which ``hessalign inspect --json`` wrote; its figures
are drawn from it.
"""

import json
import math
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import polars as pl

from hessalign.diagnostics.attributes import attribute_names
from hessalign.diagnostics.data import DomainReport, Plot
from hessalign.diagnostics.plots import draw
from hessalign.figures import save_figure
from hessalign.grid import markdown_table
from hessalign.head import BinaryCrossEntropy

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "diagnostics.md"
RECORD = ROOT / "results" / "diagnostics" / "colored-mnist.json"
FIGURES: dict[Plot, Path] = {kind: PAGE.parent / "images" / f"cmnist-{kind}.png" for kind in get_args(Plot)}
Row = dict[str, Any]
# A relative distance that shrinks to less than this share of what it was counts as mostly removed.
MOSTLY = 0.5
ROUNDING = 1e-9
ATTRIBUTES = attribute_names(BinaryCrossEntropy())
"""In the order of their colours."""


def quantities() -> str:
    """A table with a sentence for each quantity."""
    text = files("hessalign.diagnostics").joinpath("explanations.toml").read_text("utf-8")
    return markdown_table(["quantity", "what it is"], tomllib.loads(text).items(), "ll")


def colored_mnist(record: dict[str, dict[str, list[Row]]]) -> str:
    """Tables of two models side by side, and what they say."""
    before, after = record
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in record[before]["distances"]))
    parts = [
        _distances(record, pairs),
        _attributes(record, pairs),
        "\n".join(["Relative distances, and what follows:", "", *(_reading(record, pair) for pair in pairs)]),
        _eigenvalues(record, before, after),
    ]
    return "\n\n".join(parts)


def _distances(record: dict[str, dict[str, list[Row]]], pairs: list[tuple[str, str]]) -> str:
    rows = []
    for pair in pairs:
        quantities = [row["quantity"] for row in _of(next(iter(record.values()))["distances"], pair)]
        for quantity in quantities:
            found = [_find(report["distances"], pair, "quantity", quantity) for report in record.values()]
            cells = [cell for row in found for cell in (_interval(row), _number(row["relative"]))]
            rows.append([" – ".join(pair), quantity, *cells])
    headers = ["domains", "quantity", *(name for title in record for name in (title, "relative"))]
    said = "Distances with their 95 % intervals, and relative to the norms of what they compare:"
    return f"{said}\n\n{markdown_table(headers, rows, 'll' + 'rr' * len(record))}"


def _attributes(record: dict[str, dict[str, list[Row]]], pairs: list[tuple[str, str]]) -> str:
    rows = []
    for pair in pairs:
        for row in _of(next(iter(record.values()))["attributes"], pair):
            found = [
                _find(report["attributes"], pair, "attribute", row["attribute"]) for report in record.values()
            ]
            cells = [
                _number(each["effect"]) if each["found"] else f"({_number(each['effect'])})" for each in found
            ]
            rows.append([" – ".join(pair), row["attribute"], *cells])
    said = "What differs, in nats a sample; in brackets what chance may explain:"
    table = markdown_table(["domains", "attribute", *record], rows, "ll" + "r" * len(record))
    return f"{said}\n\n{table}"


def _reading(record: dict[str, dict[str, list[Row]]], pair: tuple[str, str]) -> str:
    """What happened to one pair of domains, in words."""
    before, after = record
    changes = {}
    for row in _of(record[before]["distances"], pair):
        other = _find(record[after]["distances"], pair, "quantity", row["quantity"])
        if row["relative"] is not None:
            changes[row["quantity"]] = (row["relative"], other["relative"])
    removed = [name for name, (old, new) in changes.items() if new < MOSTLY * old]
    smaller = [name for name, (old, new) in changes.items() if MOSTLY * old <= new < old]
    larger = [name for name, (old, new) in changes.items() if new >= old]
    kinds = (
        ("fell to less than half", removed),
        ("fell by less than half", smaller),
        ("did not fall", larger),
    )
    told = [f"{_list(names)} {what} ({_changes(changes, names)})" for what, names in kinds if names]
    bounds = [
        _find(record[title]["distances"], pair, "quantity", "transfer bound")["distance"]
        for title in (before, after)
    ]
    return (
        f"* {' – '.join(pair)}: from {before} to {after}, {'; '.join(told)}. The transfer bound went from "
        f"{_number(bounds[0])} to {_number(bounds[1])}. {_left(record, pair)}"
    )


def _left(record: dict[str, dict[str, list[Row]]], pair: tuple[str, str]) -> str:
    """The attributes that still differ, and how much they did before."""
    before, after = record
    found = []
    for row in _of(record[after]["attributes"], pair):
        if row["found"]:
            old = _find(record[before]["attributes"], pair, "attribute", row["attribute"])
            found.append(f"{row['attribute']} ({_number(old['effect'])} to {_number(row['effect'])} nats)")
    return f"What still differs: {_list(found)}." if found else "Nothing is found to differ any more."


def _eigenvalues(record: dict[str, dict[str, list[Row]]], before: str, after: str) -> str:
    ratios = []
    for row in record[before]["eigenvalues"]:
        if row["number"] == 1:
            other = _find_domain(record[after]["eigenvalues"], row["domain"])
            ratios.append(f"{row['domain']} {_number(row['eigenvalue'])} to {_number(other['eigenvalue'])}")
    listed = ", ".join(ratios)
    return f"The largest eigenvalue of each domain's head Hessian, from {before} to {after}: {listed}."


def _of(rows: list[Row], pair: tuple[str, str]) -> list[Row]:
    return [row for row in rows if (row["first"], row["second"]) == pair]


def _find(rows: list[Row], pair: tuple[str, str], column: str, value: str) -> Row:
    return next(row for row in _of(rows, pair) if row[column] == value)


def _find_domain(rows: list[Row], domain: str) -> Row:
    return next(row for row in rows if row["domain"] == domain and row["number"] == 1)


def _changes(changes: dict[str, tuple[float, float]], names: list[str]) -> str:
    return ", ".join(f"{_number(changes[name][0])} to {_number(changes[name][1])}" for name in names)


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _interval(row: Row) -> str:
    if row["low"] is None:
        return _number(row["distance"])
    return f"{_number(row['distance'])} ({_number(row['low'])} to {_number(row['high'])})"


def _number(value: float | None) -> str:
    """Two significant digits, without an exponent where a person needs none."""
    if value is None:
        return "–"
    if abs(value) < ROUNDING:
        return "0"
    if 1e-4 <= abs(value) < 1e5:
        return f"{value:.{max(0, 1 - math.floor(math.log10(abs(value))))}f}"
    return f"{value:.1e}"


def with_part(page: str, name: str, text: str) -> str:
    """The page with another text between the marks of a part."""
    start, end = (
        f"<!-- {name}: written by python docs/write_diagnostics.py -->\n",
        f"\n<!-- end of {name} -->",
    )
    before, rest = page.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n{text.strip()}\n{end}{after}"


def make_page(page: str) -> str:
    """The page with both parts as they should be."""
    page = with_part(page, "quantities", quantities())
    return with_part(page, "Colored MNIST", colored_mnist(json.loads(RECORD.read_text(encoding="utf-8"))))


def recorded(record: dict[str, dict[str, list[Row]]]) -> dict[str, DomainReport]:
    """The reports of a record, as far as figures need them."""
    found = {}
    for title, tables in record.items():
        frames = {name: pl.DataFrame(rows, infer_schema_length=None) for name, rows in tables.items()}
        names = tuple(frames["plane"]["domain"])
        attributes = tuple(sorted(set(frames["attributes"]["attribute"]), key=ATTRIBUTES.index))
        frames.setdefault("pairs", frames["attributes"].select("first", "second").unique(maintain_order=True))
        found[title] = DomainReport(names, (), 1.0, 0.95, 1000, attributes, (), frames)
    return found


def draw_figures(record: dict[str, dict[str, list[Row]]]) -> None:
    """Draw the page's figures of Colored MNIST."""
    for kind, path in FIGURES.items():
        save_figure(draw(recorded(record), kind), path, dpi=110)


if __name__ == "__main__":
    draw_figures(json.loads(RECORD.read_text(encoding="utf-8")))
    PAGE.write_text(make_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
