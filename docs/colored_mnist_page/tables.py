"""Tables 7 and 8 beside the paper's."""

from colored_mnist_page.page import TITLES, Page, accuracy, mark
from hessalign.experiments.colored_mnist import (
    METHODS,
    PublishedAccuracy,
    RestartRecord,
    Row,
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
    page.add(f"## {TITLES[split]}", "")
    page.add("| Method | n | Train | Target | Paper train | Paper target | Train | Target |")
    page.add("|---|---:|---:|---:|---:|---:|---|---|")
    rows = []
    for method, paper in published(split).items():
        theirs = f"{paper.source:.1f} ± {paper.source_std:.1f} | {paper.target:.1f} ± {paper.target_std:.1f}"
        groups = forms_of_row(page, split, method)
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
            marks = " | ".join(marks_of(row, paper))
            label = f"{METHODS[method].label}: the loss of {row.label}" if method in SAME_LOSS else row.label
            note = page.sources.note(group)
            page.add(f"| {label}{note} | {row.restarts} | {ours} | {theirs} | {marks} |")
    page.add("")
    if rows:
        name = f"accuracies-{split}.png"
        page.figures[name] = (lambda path: save_figure(rows, TITLES[split], None, path), tuple(rows))
        page.add(f"![{TITLES[split]}](colored-mnist/{name})", "")


def marks_of(row: Row, paper: PublishedAccuracy) -> tuple[str, str]:
    """Whether train and target accuracy lie inside the paper's ±."""
    return (
        mark(row.source_accuracy, paper.source, paper.source_std),
        mark(row.target_accuracy, paper.target, paper.target_std),
    )


def forms_of_row(page: Page, split: Split, method: str) -> list[list[RestartRecord]]:
    """The records of a row, those with drawn probes after those in expectation."""
    setting = Setting(split=split)
    if method in SAME_LOSS:
        found = [page.find(setting, SAME_LOSS[method])]
    else:
        forms = ("expected", "sampled") if METHODS[method].uses_probes else ("expected",)
        found = [page.find(setting, method, hutchinson=form) for form in forms]
    return [group for group in found if group]
