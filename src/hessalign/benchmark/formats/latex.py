"""Tables as a LaTeX document with booktabs: best bold, second underlined."""

from hessalign.benchmark.formats.grid import Grid, Text, as_grid
from hessalign.benchmark.tables import Report
from hessalign.markup import latex_text

PREAMBLE = r"""% Compile as it is, or take single tables: they need \usepackage{booktabs}.
\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[a3paper,landscape,margin=15mm]{geometry}
\usepackage{textcomp}
\usepackage{booktabs}
\begin{document}
"""


def as_latex(report: Report, statistics: bool = False) -> str:
    """A whole document with all tables and notes."""
    parts = [PREAMBLE, *(_table(as_grid(table, statistics)) for table in report.tables)]
    if report.notes:
        parts.append("\n\n".join(map(latex_text, report.notes)) + "\n")
    return "\n".join([*parts, r"\end{document}"]) + "\n"


def _table(grid: Grid) -> str:
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{latex_text(grid.title)}. {latex_text(' '.join(grid.explanations))}}}",
        rf"\begin{{tabular}}{{l{'c' * (len(grid.headers) - 1)}}}",
        r"\toprule",
        _line([latex_text(header) for header in grid.headers]),
        r"\midrule",
        *(_line([latex_text(label), *map(_emphasised, cells)]) for label, cells in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        r"\clearpage",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _emphasised(cell: Text) -> str:
    text = latex_text(cell.text)
    return {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}", None: text}[cell.rank]
