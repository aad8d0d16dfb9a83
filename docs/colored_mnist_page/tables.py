"""Tables 7 and 8 beside the paper's."""

from colored_mnist_page.page import TITLES, Page, accuracy, mark
from hessalign.experiments.colored_mnist import (
    METHODS,
    RestartRecord,
    Setting,
    Split,
    published,
    summarise_group,
)
from hessalign.experiments.colored_mnist.figure import save_figure

SAME_LOSS = {"hutchinson-alpha0": "hgp-alpha0"}
"""Without a distance of Hessians both are gradient alignment alone: no restarts of its own are needed."""


def table(page: Page, split: Split) -> None:
    """Ours beside the paper's, row by row."""
    setting = Setting(split=split)
    page.add(f"## {TITLES[split]}", "")
    page.add("| Method | n | Train | Target | Paper train | Paper target | Train | Target |")
    page.add("|---|---:|---:|---:|---:|---:|---|---|")
    rows = []
    for method, paper in published(split).items():
        theirs = f"{paper.source:.1f} ± {paper.source_std:.1f} | {paper.target:.1f} ± {paper.target_std:.1f}"
        groups = _forms_of_row(page, setting, method)
        if not groups:
            page.add(f"| {METHODS[method].label} | 0 | – | – | {theirs} | no record yet | no record yet |")
        for group in groups:
            row = summarise_group(group)
            if method not in SAME_LOSS:
                rows.append(row)
            ours = (
                f"{accuracy(row.source_accuracy, row.source_accuracy_std, row.restarts)} | "
                f"{accuracy(row.target_accuracy, row.target_accuracy_std, row.restarts)}"
            )
            marks = (
                f"{mark(row.source_accuracy, paper.source, paper.source_std)} | "
                f"{mark(row.target_accuracy, paper.target, paper.target_std)}"
            )
            label = f"{METHODS[method].label}: the loss of {row.label}" if method in SAME_LOSS else row.label
            note = page.sources.note(group)
            page.add(f"| {label}{note} | {row.restarts} | {ours} | {theirs} | {marks} |")
    page.add("")
    if rows:
        name = f"accuracies-{split}.png"
        page.figures[name] = (lambda path: save_figure(rows, TITLES[split], None, path), tuple(rows))
        page.add(f"![{TITLES[split]}](colored-mnist/{name})", "")


def _forms_of_row(page: Page, setting: Setting, method: str) -> list[list[RestartRecord]]:
    """The records of a row, those with drawn probes after those in expectation."""
    if method in SAME_LOSS:
        found = [page.find(setting, SAME_LOSS[method])]
    else:
        forms = ("expected", "sampled") if METHODS[method].uses_probes else ("expected",)
        found = [page.find(setting, method, hutchinson=form) for form in forms]
    return [group for group in found if group]
