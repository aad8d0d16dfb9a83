"""What the number of probes does, from as few as blur everything to the exact diagonal."""

from collections.abc import Sequence
from itertools import pairwise

from colored_mnist_page.page import Page, both, in_a_sentence
from hessalign.experiments.colored_mnist import (
    RestartRecord,
    Row,
    Setting,
    candidate,
    published,
    summarise_group,
)


def over_probes(page: Page, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """Accuracies and off(H) for each number of probes, and between which the paper's row lies."""
    probed = [g for g in groups if g[0].spec.probes and g[0].spec.hutchinson == "expected"]
    exact = [g for g in groups if g[0].spec.method == "diagonal"]
    if len(probed) < 2:
        return
    ordered = [*sorted(probed, key=lambda group: group[0].spec.probes or 0), *exact]
    rows = [summarise_group(group) for group in ordered]
    off_diagonals = [candidate(group).off_diagonal for group in ordered]
    listed = ", ".join(
        f"{_probes(row)}: {both(row)} with off(H) {off_diagonal:.1e}"
        for row, off_diagonal in zip(rows, off_diagonals, strict=True)
    )
    best = max(rows, key=lambda row: row.target_accuracy)
    setting = groups[0][0].spec.setting()
    seeds = ", ".join(str(record.spec.seed) for record in ordered[0])
    infinity = "; k = ∞: the exact diagonal" if exact else ""
    text = (
        f"{in_a_sentence(setting.split)}: Hutchinson in expectation over k probes, train / target (seed "
        f"{seeds}{infinity}): {listed}. The target accuracy is highest with {_probes(best)}."
    )
    if _rises(off_diagonals):
        text += " off(H) rises with k throughout, as under a regulariser that weakens with k."
    if setting == Setting(split=setting.split):
        text += _where_the_paper_lies(rows, setting)
    page.claim(text, *ordered)


def _where_the_paper_lies(rows: Sequence[Row], setting: Setting) -> str:
    paper = published(setting.split)["hutchinson"]
    for fewer, more in pairwise(rows):
        if fewer.source_accuracy <= paper.source <= more.source_accuracy:
            return (
                f" The paper's {paper.source:.1f} / {paper.target:.1f} lies, by its train accuracy, between "
                f"{_probes(fewer)} and {_probes(more)}."
            )
    return ""


def _probes(row: Row) -> str:
    return f"k = {row.probes}" if row.probes else "k = ∞"


def _rises(values: Sequence[float]) -> bool:
    return all(lower < upper for lower, upper in pairwise(values))
