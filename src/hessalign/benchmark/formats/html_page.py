"""Tables as one HTML page that needs nothing else: best bold, second underlined."""

from hessalign.benchmark.formats.grid import PUBLISHED, Grid, Text, as_grid
from hessalign.benchmark.tables import Report
from hessalign.markup import html_text

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
section { margin: 2.2rem 0; overflow-x: auto; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 0 0 .5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
        border-top: 2px solid; border-bottom: 2px solid; }
th, td { padding: .28rem .8rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid; }
tbody tr:hover { background: color-mix(in srgb, currentColor 8%, transparent); }
.published { opacity: .65; font-weight: normal; }
.best { font-weight: 700; } .second { text-decoration: underline; text-underline-offset: .2em; }
.explanation, .notes { font-size: .87rem; opacity: .8; max-width: 60rem; }
"""


def as_html(report: Report, statistics: bool = False) -> str:
    """A whole page with all tables and notes."""
    sections = "".join(_section(as_grid(table, statistics)) for table in report.tables)
    items = "".join(f"<li>{html_text(note)}</li>" for note in report.notes)
    notes = f'<section class="notes"><h2>Notes</h2><ul>{items}</ul></section>' if items else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Results</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><h1>Results</h1>\n{sections}{notes}</body></html>\n"
    )


def _section(grid: Grid) -> str:
    head = "".join(f"<th{_class(header)}>{html_text(header)}</th>" for header in grid.headers)
    rows = "".join(
        f"<tr><td>{html_text(label)}</td>{''.join(map(_cell, grid.headers[1:], cells))}</tr>\n"
        for label, cells in grid.rows
    )
    return (
        f"<section><h2>{html_text(grid.title)}</h2>\n<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>"
        f'</table>\n<p class="explanation">{html_text(" ".join(grid.explanations))}</p></section>\n'
    )


def _cell(header: str, cell: Text) -> str:
    return f"<td{_class(header, cell.rank)}>{html_text(cell.text)}</td>"


def _class(header: str, rank: str | None = None) -> str:
    names = [name for name in (rank, PUBLISHED if header == PUBLISHED else None) if name is not None]
    return f' class="{" ".join(names)}"' if names else ""
