"""Write the results in docs/features.md from the records:  python docs/write_features.py.

They stand between two marks; all around them is written by hand. Every number is read from the files that
``hessalign features --json`` and ``hessalign collect --format json`` left in ``results/pacs_features``.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hessalign.benchmark.selection import RULE_LABELS, RULES, Rule
from hessalign.benchmark.tables import AVERAGE, Cell, Report, Row, Table
from hessalign.grid import markdown_table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "features.md"
RESULTS = ROOT / "results" / "pacs_features"
START, END = "<!-- written by python docs/write_features.py -->", "<!-- end of what it writes -->"
METHODS = ("erm", "coral", "fishr", "and_mask", "hgp", "hutchinson", "exact_diagonal", "exact_hessian")
BASELINE = "erm"
SURE = 2.0
"""Standard errors that a difference must exceed to be called one."""


def find(report: Report, kind: str, rule: Rule) -> Table | None:
    """A report's table of a kind under a rule; None where there are no records for it."""
    return next((table for table in report.tables if (table.kind, table.rule) == (kind, rule)), None)


def row_of(table: Table, algorithm: str) -> Row | None:
    """An algorithm's row."""
    return next((row for row in table.rows if row.algorithm == algorithm), None)


def last_cell(table: Table | None, algorithm: str) -> Cell:
    """An algorithm's cell over all target domains; empty where there is none."""
    row = row_of(table, algorithm) if table else None
    return row.cells[-1] if row else Cell()


def accuracy(cell: Cell) -> str:
    """Mean ± standard error."""
    if cell.mean is None:
        return "–"
    error = "" if cell.standard_error is None else f" ± {cell.standard_error:.1f}"
    return f"{cell.mean:.1f}{error}{' †' if cell.fewer_runs else ''}"


def difference(cell: Cell) -> str:
    """The same with a sign, and bold where it is more than chance makes."""
    if cell.mean is None or cell.standard_error is None:
        return "–"
    text = f"{cell.mean:+.2f} ± {cell.standard_error:.2f}"
    return f"**{text}**" if abs(cell.mean) > SURE * cell.standard_error else text


def over_targets(report: Report, rule: Rule, algorithm: str) -> Cell:
    """Mean over target domains with its error over trials."""
    summary = find(report, "summary", rule)
    row = row_of(summary, algorithm) if summary else None
    return row.cells[0] if row else Cell()


def results(report: Report, rule: Rule, algorithms: Sequence[str]) -> list[str]:
    """A table by target domain, with the mean and the difference from the baseline."""
    table = find(report, "targets", rule)
    if table is None:
        return [f"*No records yet for {RULE_LABELS[rule]}.*", ""]
    differences = find(report, "differences", rule)
    names = [column.label for column in table.columns if column.key != AVERAGE]
    rows = []
    for algorithm in algorithms:
        row = row_of(table, algorithm)
        if row is not None:
            cells = [accuracy(cell) for cell in row.cells[:-1]]
            mean = accuracy(over_targets(report, rule, algorithm))
            against = difference(last_cell(differences, algorithm))
            rows.append([row.label, *cells, mean, against])
    return [markdown_table([RULE_LABELS[rule], *names, "mean", "against ERM"], rows), ""]


def verdict(report: Report, rule: Rule) -> str:
    """Which methods differ from the baseline by more than chance makes."""
    table = find(report, "differences", rule)
    if table is None:
        return f"* {RULE_LABELS[rule]}: no records yet."
    by_sign: dict[bool, list[str]] = {True: [], False: []}
    for row in table.rows:
        cell = row.cells[-1]
        if difference(cell).startswith("**"):
            assert cell.mean is not None
            by_sign[cell.mean > 0].append(f"{row.label} ({cell.mean:+.2f})")
    better, worse = (", ".join(by_sign[sign]) or "none" for sign in (True, False))
    return f"* {RULE_LABELS[rule]}, of {len(table.rows)} methods: better than ERM {better}; worse {worse}."


def comparisons(report: Report) -> str:
    """How many differences were looked at, and how many of them are bold."""
    cells = [
        row.cells[-1] for rule in RULES if (table := find(report, "differences", rule)) for row in table.rows
    ]
    sure = [cell for cell in cells if difference(cell).startswith("**")]
    return f"These are {len(cells)} comparisons; {len(sure)} of them exceed {SURE:g} standard errors."


def chance(report: Report, rule: Rule) -> str:
    """What the differences of a method that trains as ERM does come to."""
    cell = last_cell(find(report, "differences", rule), "coral")
    return f"{difference(cell)} under {RULE_LABELS[rule]}"


def adapters(report: Report, adapted: Report) -> list[str]:
    """Both means side by side, and the difference from ERM with the adapter."""
    lines = []
    for rule in RULES:
        table = find(adapted, "targets", rule)
        if table is None:
            continue
        rows = []
        for algorithm in METHODS:
            row = row_of(table, algorithm)
            if row is not None:
                bare, with_adapter = (
                    accuracy(over_targets(one, rule, algorithm)) for one in (report, adapted)
                )
                against = difference(last_cell(find(adapted, "differences", rule), algorithm))
                rows.append([row.label, bare, with_adapter, against])
        headers = [RULE_LABELS[rule], "bare head", "with adapter", "against ERM, both with adapter"]
        lines += [markdown_table(headers, rows), "", f"With the adapter: {table.explanations[1]}", ""]
    return lines


def extent() -> str:
    """What the features were extracted from, and how."""
    file = json.loads((RESULTS / "features.json").read_text(encoding="utf-8"))
    return (
        f"{file['samples']:,} images of {len(file['domain_names'])} domains and {len(file['class_names'])} "
        f"classes; {file['backbone']['name']}, weights {file['weights_sha256'][:12]} (SHA-256)."
    )


def section(report: Report, adapted: Report | None) -> str:
    """All that the command writes."""
    lines = [extent(), report.tables[0].explanations[1], "", "### Bare heads", ""]
    for rule in RULES:
        lines += results(report, rule, METHODS)
    lines += [
        "Accuracies are percentages, mean ± standard error over trials. The last column is the mean of the",
        "paired differences over target domains and trials, in percentage points, ± their standard error;",
        f"bold where it exceeds {SURE:g} of them. One in twenty such comparisons is bold by chance.",
        "† rests on fewer draws of hyper-parameters than another row.",
        "",
        "### What helps",
        "",
        *(verdict(report, rule) for rule in RULES),
        "",
        comparisons(report),
        "",
        "On a bare head CORAL, like MMD, has nothing to train: its penalty depends on the features alone,",
        "and they are frozen. It is ERM with other seeds, so its differences show what chance makes:",
        f"{'; '.join(chance(report, rule) for rule in RULES)}.",
        "",
        "All tables, with the differences by target domain: `results/pacs_features/tables.md`.",
        "",
        "### With an adapter",
        "",
    ]
    lines += adapters(report, adapted) if adapted else ["*No records yet.*", ""]
    if adapted:
        lines += [verdict(adapted, rule) for rule in RULES if find(adapted, "differences", rule)]
    return "\n".join(lines).strip()


def page() -> str:
    """The whole page, with the section written anew."""
    report, adapted = (_read(RESULTS / name) for name in ("tables.json", "tables-adapter.json"))
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    _, after = rest.split(END)
    if report is None:
        raise SystemExit(f"{RESULTS / 'tables.json'} is missing; docs/features.md tells how to make it")
    return f"{before}{START}\n\n{section(report, adapted)}\n\n{END}{after}"


def _read(path: Path) -> Report | None:
    return Report.model_validate_json(path.read_bytes()) if path.exists() else None


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
