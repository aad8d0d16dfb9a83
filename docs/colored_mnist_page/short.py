"""The page in a few statements."""

from colored_mnist_page.answers import number_of_probes
from colored_mnist_page.beyond import BEYOND_AIMS, beside_the_paper
from colored_mnist_page.page import (
    TITLES,
    Page,
    both,
    in_a_sentence,
    on_common_seeds,
    parts_before,
    with_parts,
)
from colored_mnist_page.tables import SAME_LOSS, forms_of_row, marks_of
from hessalign.experiments.colored_mnist import Setting, Split, published, summarise_group

ADDS_NOTHING = 1.0
"""Target accuracies that differ by less, in points, are not told apart by a few restarts."""


def in_short(page: Page) -> None:
    """What a reader in a hurry should know."""
    page.add("## In short", "")
    for split in TITLES:
        _reproduced(page, split)
    for split in TITLES:
        _what_the_noise_does(page, split)
    _what_the_number_of_probes_does(page)
    _why_rows_collapse(page)
    for split in BEYOND_AIMS:
        beside_the_paper(page, split)
    page.add("")


def _reproduced(page: Page, split: Split) -> None:
    """How many rows of a table lie where the paper's do."""
    rows = [
        (summarise_group(group), paper, group)
        for method, paper in published(split).items()
        if method not in SAME_LOSS
        for group in forms_of_row(page, split, method)
    ]
    if not rows:
        return
    off = []
    for row, paper, _ in rows:
        named = zip(("train", "target"), marks_of(row, paper), strict=True)
        off += [f"{row.label} {column} {text}" for column, text in named if text != "inside"]
    outside = f" Outside: {', '.join(off)}." if off else ""
    inside = sum(marks_of(row, paper) == ("inside", "inside") for row, paper, _ in rows)
    restarts = sorted({row.restarts for row, _, _ in rows})
    page.claim(
        f"{in_a_sentence(split)}: {inside} of {len(rows)} rows lie inside the paper's ± with both "
        f"accuracies (restarts a row: {', '.join(map(str, restarts))}).{outside}",
        *(group for _, _, group in rows),
    )


def _what_the_noise_does(page: Page, split: Split) -> None:
    """What sets Hutchinson's row apart from gradient alignment."""
    setting = Setting(split=split)
    gradient, diagonal = page.find(setting, "hgp-alpha0"), page.find(setting, "diagonal")
    drawn = page.find(setting, "hutchinson", hutchinson="sampled")
    if not (gradient and diagonal and drawn):
        return
    alone, exact, noisy = map(summarise_group, (gradient, diagonal, drawn))
    added = exact.target_accuracy - alone.target_accuracy
    more = noisy.target_accuracy - exact.target_accuracy
    cost = noisy.source_accuracy - exact.source_accuracy
    what = "nothing" if abs(added) < ADDS_NOTHING else f"{added:+.1f} points of target accuracy"
    text = (
        f"{in_a_sentence(split)}: aligned gradients alone end at {both(alone)} (train / target), "
        f"with exactly aligned diagonals besides at {both(exact)}, with diagonals from drawn probes at "
        f"{both(noisy)}. With the published schedule, aligned diagonals add {what}; the noise of the probes, "
        f"which acts as a penalty on the Hessians' off-diagonals, that is, as a flat head, adds {more:+.1f} "
        f"more and changes train accuracy by {cost:+.1f}."
    )
    page.claim(text, gradient, diagonal, drawn)


def _what_the_number_of_probes_does(page: Page) -> None:
    """The sweep over probes at the published size."""
    setting, methods = Setting(), ("hutchinson", "diagonal")
    found = [g for g in page.groups if g[0].spec.setting() == setting and g[0].spec.method in methods]
    expected = [measured for g in found if g[0].spec.hutchinson == "expected" and (measured := with_parts(g))]
    if expected:
        number_of_probes(page, on_common_seeds(*expected))


def _why_rows_collapse(page: Page) -> None:
    """What Hutchinson does without gradient alignment."""
    group = page.find(Setting(), "hutchinson-beta0")
    measured = with_parts(group or [])
    if not group or not measured:
        return
    before, last = parts_before(measured[0]), measured[0].parts[-1]
    page.claim(
        f"Hutchinson without gradient alignment ends at {both(summarise_group(group))}: its head gets flat "
        f"by confidence. The mean curvature p(1 − p) goes from {before.curvature:.2g} before the full weight "
        f"to {last.curvature:.2g}, and colour, which nothing in the penalty minds, stays.",
        group,
    )
