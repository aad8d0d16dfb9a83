"""What the restarts at the published size say."""

import math
from collections.abc import Sequence

from colored_mnist_page.page import Page, both, history_curve, with_parts
from hessalign.experiments.colored_mnist import (
    PublishedAccuracy,
    RestartRecord,
    Row,
    Setting,
    published,
    summarise_group,
)
from hessalign.experiments.colored_mnist.curves import Panel

CEILING = 75.0


def what_full_size_says(page: Page) -> None:
    """Statements about the published setting, as far as there are records."""
    setting = Setting()
    page.add("## What aligns, and what the probes do", "", "At the published size:", "")
    aligned = [
        group
        for name in ("gradient", "hgp-alpha0", "hgp", "diagonal", "frobenius")
        if (group := page.find(setting, name))
    ]
    if len(aligned) > 1:
        rows = [summarise_group(group) for group in aligned]
        spread = max(row.target_accuracy for row in rows) - min(row.target_accuracy for row in rows)
        listed = ", ".join(f"{row.label} {both(row)} (n = {row.restarts})" for row in rows)
        page.claim(
            f"Train / target accuracy with aligned gradients, and with more aligned besides: {listed}. Their "
            f"target accuracies differ by at most {spread:.1f} points.",
            *aligned,
        )
    nearest_form(page)
    hutchinson = page.find(setting, "hutchinson")
    if hutchinson:
        path_of_hutchinson(page, hutchinson)
    sampled = page.find(setting, "hutchinson", hutchinson="sampled")
    if sampled:
        row = summarise_group(sampled)
        page.claim(f"With drawn probes it ends at {both(row)} (n = {row.restarts}).", sampled)
        what_spreads(page, sampled)
    page.add("")
    if not sampled:
        page.missing(
            "Hutchinson with drawn probes at the published size, which the paper's row is",
            "hessalign cmnist --methods hutchinson --hutchinson sampled --log-parts",
        )
    histories(page, setting)


def nearest_form(page: Page) -> None:
    """Which form of Hutchinson gives the paper's row."""
    paper = published("balanced")["hutchinson"]
    forms = {
        "drawn probes": page.find(Setting(), "hutchinson", hutchinson="sampled"),
        "their expectation": page.find(Setting(), "hutchinson"),
        "the exact diagonal": page.find(Setting(), "diagonal"),
    }
    found = {name: group for name, group in forms.items() if group}
    if len(found) < len(forms):
        return
    off = {name: _distance_from(paper, summarise_group(group)) for name, group in found.items()}
    order = sorted(off, key=lambda name: math.hypot(*off[name]))
    listed = ", ".join(f"{name} ({off[name][0]:+.1f} / {off[name][1]:+.1f})" for name in order)
    page.claim(
        "How far each form of Hutchinson ends from the paper's row, train / target, the nearest first: "
        f"{listed}.",
        *found.values(),
    )


def _distance_from(paper: PublishedAccuracy, row: Row) -> tuple[float, float]:
    return row.source_accuracy - paper.source, row.target_accuracy - paper.target


def path_of_hutchinson(page: Page, group: Sequence[RestartRecord]) -> None:
    """The paper's row lies on the way, or not."""
    row, first = summarise_group(group), group[0]
    paper = published("balanced")["hutchinson"]
    after = [m for m in first.history if m.step >= first.spec.anneal_step]
    nearest = min(
        after, key=lambda m: abs(m.source_accuracy - paper.source) + abs(m.target_accuracy - paper.target)
    )
    side = "above" if row.target_accuracy > CEILING else "below"
    gap = first.final.source_accuracies[0] - first.final.source_accuracies[1]
    where = "first" if gap > 0 else "second"
    page.claim(
        f"Hutchinson, in expectation over {first.spec.probes} probes, ends at {both(row)} "
        f"(n = {row.restarts}), the paper's at {paper.source:.1f} / {paper.target:.1f}. Its target accuracy "
        f"is {side} the ceiling of {CEILING:.0f}, and it is {abs(gap):.1f} points more accurate in the "
        f"{where} source domain (seed {first.spec.seed}); colour agrees with the label more often in the "
        f"second. Of all recorded steps with the full weight, {nearest.step} is nearest to the paper's row: "
        f"{nearest.source_accuracy:.1f} / {nearest.target_accuracy:.1f}. The curves below show the way there "
        "and on.",
        group,
    )


def what_spreads(page: Page, group: Sequence[RestartRecord]) -> None:
    """What the seeds with a higher target accuracy have in common."""
    measured = sorted(with_parts(group), key=lambda record: record.final.target_accuracy)
    if len(measured) < 3:
        return
    distances = [record.parts[-1].gradient_distance for record in measured]
    listed = ", ".join(
        f"{distance:.1e} at {record.final.target_accuracy:.1f} (seed {record.spec.seed})"
        for distance, record in zip(distances, measured, strict=True)
    )
    text = f"The distance of the gradients that is left, by the target accuracy of each restart: {listed}."
    if distances == sorted(distances):
        text += (
            " So the restarts that look best on the target are those whose gradients are aligned least: what "
            "is left of colour there is held against the label."
        )
    page.claim(text, measured)


def histories(page: Page, setting: Setting) -> None:
    """Accuracies over steps at full size."""
    methods = ["erm", "irm", "fishr", "hgp", "diagonal", "hutchinson", "hutchinson-beta0"]
    records = [group[0] for method in methods if (group := page.find(setting, method))]
    if not records:
        page.missing("full-size restarts", "hessalign cmnist --methods table --restarts 1")
        return
    panels = [
        Panel(title, "step", tuple(history_curve(record, name) for record in records))
        for title, name in (
            ("train accuracy [%]", "source_accuracy"),
            ("target accuracy [%]", "target_accuracy"),
        )
    ]
    caption = (
        "Accuracies over the steps of one restart each; the full weight sets in at step "
        f"{setting.anneal_step}."
    )
    page.figure("histories.png", caption, panels, records)
