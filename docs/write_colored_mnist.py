"""Write docs/colored-mnist.md and its figures from the records:  python docs/write_colored_mnist.py.

Every number of the page is computed here from the files under ``results/colored_mnist``; every
statement names the files it rests on; what has no records is said to be missing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import get_args

from hessalign.experiments.colored_mnist import (
    FAST_PROBES,
    METHODS,
    PUBLISHED_PROBES,
    RULES,
    STUDIES,
    Hutchinson,
    Metrics,
    RecordStore,
    RestartRecord,
    RestartSpec,
    Row,
    Setting,
    Split,
    candidate,
    choose_by_every_rule,
    describe_reduction,
    group_restarts,
    implied_gamma,
    label_of,
    plan_study,
    published,
    summarise_group,
)
from hessalign.experiments.colored_mnist.curves import Curve, Panel, save_panels
from hessalign.experiments.colored_mnist.figure import save_figure

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "colored-mnist.md"
FIGURES = ROOT / "docs" / "colored-mnist"
RESULTS = ROOT / "results" / "colored_mnist"
STORES = (RecordStore(RESULTS), RecordStore(RESULTS / "studies"))
"""Of the tables, and of the sweeps in reduced settings, which would fill the tables' rows."""
CEILING = 75.0
ACCURACIES = {"train accuracy [%]": "source_accuracy", "target accuracy [%]": "target_accuracy"}
ALIKE = 1.25
"""Two values of off(H), which goes over orders of magnitude, count as alike up to this factor."""
SHOWN_PART = 0.5
"""A study with records of a smaller part of its configurations is not shown."""

INTRODUCTION = """\
# Colored MNIST: Tables 7 and 8, and why they are so

This page is written by `python docs/write_colored_mnist.py` from the records in
[results/colored_mnist](../results/colored_mnist); footnotes name the records that a row or a statement rests
on. Accuracies are percentages of the last step; ours are mean ± population standard deviation over n
restarts, the paper's (Hemati et al., ICCV 2023, supplement) over ten.

A quarter of all labels is flipped, so a classifier that ignores colour reaches 75 % everywhere: 75 is the
ceiling of what generalizes. A target accuracy above the source accuracy, or above 75, does not mean a better
classifier. It means one that holds colour against the label, as the target happens to do.
"""
REGENERATE = """\
## How to add to this page

    OUT=results/colored_mnist
    hessalign cmnist --methods table --restarts 3 --log-parts --out $OUT
    hessalign cmnist --methods hutchinson --hutchinson sampled --restarts 3 --log-parts --out $OUT
    hessalign cmnist --methods table --restarts 2 --log-parts --imbalanced --out $OUT
    hessalign cmnist --methods table --restarts 1 --log-parts --imbalanced --split text --out $OUT
    hessalign cmnist-study probes --fast --out $OUT/studies
    python docs/write_colored_mnist.py

All commands go on where they were interrupted and leave finished restarts alone.
"""
BEYOND = """\
Exact penalties alone, without probes. When to stop is chosen as well, of every tenth recorded step."""
EXACT = tuple(
    name for name in METHODS if name.split("-")[0] in ("gradient", "diagonal", "frobenius", "spectral")
)
BEYOND_RULE = "agreement"
"""The rule whose choice is told in words."""
BEYOND_AIMS: dict[Split, float] = {"balanced": 70.0, "script": 47.7}
"""The target accuracies to be beaten."""
SAME_LOSS = {"hutchinson-alpha0": "hgp-alpha0"}
"""Without a distance of Hessians both are gradient alignment alone: no restarts of its own are needed."""
TITLES: dict[Split, str] = {
    "balanced": "Table 7: balanced domains",
    "script": "Table 8, split of the published script",
    "text": "Table 8, split of the text (95 % / 5 %)",
}


def all_records() -> dict[str, RestartRecord]:
    """Of both folders, by path from that of the results; where both have a restart, the one with parts."""
    found: dict[RestartSpec, tuple[str, RestartRecord]] = {}
    for store in STORES:
        for record in store.load_all():
            if record.spec not in found or record.parts:
                path = store.path(record.spec).relative_to(RESULTS).as_posix()
                found[record.spec] = (path, record)
    return dict(found.values())


@dataclass
class Sources:
    """The footnotes of the page: which records each statement rests on.

    Attributes:
        paths: Where the record of a restart lies, from the folder of the results.
        numbers: Of the notes, by the paths that they name.
    """

    paths: dict[RestartSpec, str]
    numbers: dict[tuple[str, ...], int] = field(default_factory=dict)

    def note(self, records: Sequence[RestartRecord]) -> str:
        """A mark to put after a statement."""
        names = tuple(sorted({self.paths[record.spec] for record in records}))
        return f"[^{self.numbers.setdefault(names, len(self.numbers) + 1)}]"

    def lines(self) -> list[str]:
        """The notes themselves."""
        return [
            f"[^{number}]: "
            + ", ".join(f"[{Path(name).name}](../results/colored_mnist/{name})" for name in names)
            for names, number in self.numbers.items()
        ]


Figure = Callable[[Path], None]


@dataclass
class Page:
    """Text and figures in the making.

    Attributes:
        groups: All records, those that differ by their seed alone together.
        sources: Of the statements.
        lines: Of the text.
        figures: How to draw each figure, by file name, and what it shows.
    """

    groups: list[list[RestartRecord]]
    sources: Sources
    lines: list[str] = field(default_factory=list)
    figures: dict[str, tuple[Figure, object]] = field(default_factory=dict)

    def add(self, *lines: str) -> None:
        """Append lines."""
        self.lines += lines

    def claim(self, text: str, *groups: Sequence[RestartRecord]) -> None:
        """Append a statement with its records."""
        self.add(f"* {text}{self.sources.note([record for group in groups for record in group])}")

    def missing(self, what: str, command: str) -> None:
        """Say that there are no records."""
        self.add(f"*No records yet of {what}: `{command}`.*", "")

    def find(self, setting: Setting, method: str, **wanted: object) -> list[RestartRecord] | None:
        """The restarts of one configuration; probes are the table's unless given."""
        for group in self.groups:
            spec = group[0].spec
            expected = {"probes": PUBLISHED_PROBES[setting.split], "hutchinson": "expected", "alpha": 1.0}
            expected |= wanted
            if not METHODS[method].uses_probes:
                expected["probes"] = None
            same = all(getattr(spec, name) == value for name, value in expected.items())
            if same and spec.setting() == setting and spec.method == method:
                return group
        return None

    def figure(
        self, name: str, caption: str, panels: Sequence[Panel], records: Sequence[RestartRecord]
    ) -> None:
        """Append a figure of curves that are drawn from records."""
        shown = tuple(panels)
        self.figures[name] = (lambda path: save_panels(shown, path), shown)
        self.add(f"![{caption}](colored-mnist/{name})", "", caption + self.sources.note(records), "")


def accuracy(mean: float, deviation: float, restarts: int) -> str:
    """As in the tables."""
    return f"{mean:.1f}" if restarts == 1 else f"{mean:.1f} ± {deviation:.1f}"


def mark(ours: float, paper: float, deviation: float) -> str:
    """Whether a mean lies inside the paper's ±, at the paper's precision, or how far from its mean."""
    difference = round(round(ours, 1) - paper, 1)
    return "inside" if abs(difference) <= deviation else f"off by {difference:+.1f}"


def both(row: Row) -> str:
    """Train and target accuracy."""
    return f"{row.source_accuracy:.1f} / {row.target_accuracy:.1f}"


def slashed(accuracies: Sequence[float]) -> str:
    """Of several domains."""
    return " / ".join(f"{a:.1f}" for a in accuracies)


def name_of(setting: Setting) -> str:
    """A setting in words."""
    return describe_reduction(setting) or "the published setting"


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


def histories(page: Page, setting: Setting) -> None:
    """Accuracies over steps at full size."""
    methods = ["erm", "irm", "fishr", "hgp", "diagonal", "hutchinson", "hutchinson-beta0"]
    records = [group[0] for method in methods if (group := page.find(setting, method))]
    if not records:
        page.missing("full-size restarts", "hessalign cmnist --methods table --restarts 1")
        return
    panels = [
        Panel(title, "step", tuple(_history(record, name) for record in records))
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


def _history(record: RestartRecord, name: str) -> Curve:
    steps = tuple(float(metrics.step) for metrics in record.history)
    return Curve(label_of(record.spec), steps, tuple(getattr(m, name) for m in record.history))


def _parts(record: RestartRecord, name: str) -> Curve:
    steps = tuple(float(parts.step) for parts in record.parts)
    return Curve(label_of(record.spec), steps, tuple(getattr(parts, name) for parts in record.parts))


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
    measured = sorted(_with_parts(group), key=lambda record: record.final.target_accuracy)
    if len(measured) < 3:
        return
    distances = [record.parts[-1].gradient_distance for record in measured]
    listed = ", ".join(
        f"{distance:.1e} at {record.final.target_accuracy:.1f} (seed {record.spec.seed})"
        for distance, record in zip(distances, measured, strict=True)
    )
    text = f"The distance of the gradients that is left, beside the target accuracy of each restart: {listed}."
    if distances == sorted(distances):
        text += (
            " So the restarts that look best on the target are those whose gradients are aligned least: what "
            "is left of colour there is held against the label."
        )
    page.claim(text, measured)


@dataclass(frozen=True)
class Reduced:
    """Records with parts in one reduced setting."""

    setting: Setting
    probes: int


def reduced_settings(page: Page) -> list[Reduced]:
    """Where Hutchinson was run both ways with parts logged."""
    found = []
    for group in page.groups:
        spec = group[0].spec
        if spec.method == "hutchinson" and spec.hutchinson == "sampled" and spec.probes and group[0].parts:
            found.append(Reduced(spec.setting(), spec.probes))
    return found


def drawn_against_expected(page: Page) -> None:
    """What the noise of drawn probes changes."""
    page.add("## Drawn probes against their expectation", "")
    shown = [_drawn_in(page, reduced) for reduced in reduced_settings(page)]
    if not any(shown):
        page.missing("both forms with their parts", "hessalign cmnist-study forms")


def _drawn_in(page: Page, reduced: Reduced) -> bool:
    """Both forms in one setting, on the seeds that both have."""
    forms = {
        form: _with_parts(group)
        for form in get_args(Hutchinson)
        if (group := page.find(reduced.setting, "hutchinson", probes=reduced.probes, hutchinson=form))
    }
    expected, drawn = _on_common_seeds(forms.get("expected", []), forms.get("sampled", []))
    if not drawn:
        return False
    page.add(f"{reduced.probes} probes; {name_of(reduced.setting)}:", "")
    row_of_expected, row_of_drawn = summarise_group(expected), summarise_group(drawn)
    page.claim(
        f"The expectation ends at {both(row_of_expected)}, drawn probes at {both(row_of_drawn)} "
        f"(n = {row_of_drawn.restarts}, the same seeds).",
        expected,
        drawn,
    )
    features, of_drawn = (fmean(r.parts[-1].feature_square for r in group) for group in (expected, drawn))
    page.claim(
        f"Drawn probes have shrunk the features {'less' if of_drawn > features else 'more'}: mean ‖z‖² "
        f"{of_drawn:.2g} against {features:.2g} in expectation, at the last step.",
        expected,
        drawn,
    )
    _same_way(page, expected, drawn)
    _whose_steps(page, forms)
    page.add("")
    plain = [g for m in ("gradient", "diagonal") if (g := page.find(reduced.setting, m)) and g[0].parts]
    names = {
        "source_accuracy": "train accuracy [%]",
        "feature_square": "mean ‖z‖²",
        "off_diagonal": "off(H), mean over domains",
    }
    records = [expected[0], drawn[0], *(forms[f][0] for f in MIXED_FORMS if forms.get(f))]
    records += [group[0] for group in plain]
    panels = [
        Panel(
            title,
            "step",
            tuple((_history if name == "source_accuracy" else _parts)(r, name) for r in records),
            log_y=name != "source_accuracy",
        )
        for name, title in names.items()
    ]
    file = f"drawn-{reduced.setting.split}-{len(page.figures)}.png"
    page.figure(file, "Train accuracy and parts of the penalty over the steps.", panels, records)
    return True


def _same_way(page: Page, expected: Sequence[RestartRecord], drawn: Sequence[RestartRecord]) -> None:
    """Whether drawn probes go the expectation's way, at another pace."""
    passed = [_where_as_flat(ours, theirs) for ours, theirs in zip(expected, drawn, strict=True)]
    apart = fmean(
        abs(then.source_accuracy - record.final.source_accuracy)
        for then, record in zip(passed, drawn, strict=True)
    )
    ends = fmean(
        abs(ours.final.source_accuracy - theirs.final.source_accuracy)
        for ours, theirs in zip(expected, drawn, strict=True)
    )
    earlier = all(then.step < record.final.step for then, record in zip(passed, drawn, strict=True))
    listed = "; ".join(
        f"{then.source_accuracy:.1f} / {then.target_accuracy:.1f} at step {then.step} where drawn probes end "
        f"at {record.final.source_accuracy:.1f} / {record.final.target_accuracy:.1f} "
        f"(seed {record.spec.seed})"
        for then, record in zip(passed, drawn, strict=True)
    )
    text = (
        f"The expectation passes the off(H) that drawn probes end with. There it stands at {listed}. The "
        f"train accuracies of both differ by {apart:.1f} points there, by {ends:.1f} at the last step."
    )
    text += (
        " So drawn probes go the same way and are later: that is where their higher train accuracy comes from."
        if earlier and apart < ends / 2
        else " So drawn probes do not go quite the same way here."
    )
    page.claim(text, expected, drawn)


def _where_as_flat(record: RestartRecord, other: RestartRecord) -> Metrics:
    """The step with the full weight where a restart's off(H) is nearest to that at another's end."""
    end = math.log(other.parts[-1].off_diagonal)
    weighted = [
        (metrics, parts)
        for metrics, parts in zip(record.history, record.parts, strict=True)
        if parts.step >= record.spec.anneal_step
    ]
    return min(weighted, key=lambda pair: abs(math.log(pair[1].off_diagonal) - end))[0]


MIXED_FORMS: tuple[Hutchinson, Hutchinson] = ("expected-sampled-steps", "sampled-expected-steps")


def _on_common_seeds(*groups: Sequence[RestartRecord]) -> list[list[RestartRecord]]:
    """Of each group, the restarts with the seeds that all groups have."""
    seeds = set.intersection(*({record.spec.seed for record in group} for group in groups))
    return [[record for record in group if record.spec.seed in seeds] for group in groups]


def _whose_steps(page: Page, forms: dict[Hutchinson, list[RestartRecord]]) -> None:
    """Whether the noise acts by the way that is taken, or by the size of Adam's steps."""
    if not all(forms.get(form) for form in MIXED_FORMS):
        return
    groups = dict(zip(forms, _on_common_seeds(*forms.values()), strict=True))
    if not all(groups.values()):
        return
    ends = {form: summarise_group(group) for form, group in groups.items()}
    train = {form: row.source_accuracy for form, row in ends.items()}
    text = (
        "Adam divides a gradient by the root of its mean square, which noise enlarges. Both gradients have "
        "the same mean, so one can be followed in steps that the other sizes: the expectation in the steps "
        f"of drawn probes ends at {both(ends['expected-sampled-steps'])}, drawn probes in the steps of the "
        f"expectation at {both(ends['sampled-expected-steps'])}; by themselves the expectation ends at "
        f"{both(ends['expected'])} and drawn probes at {both(ends['sampled'])} "
        f"(n = {ends['sampled'].restarts})."
    )
    by_sizes = all(
        abs(train[form] - train[sizes]) < abs(train[form] - train[followed])
        for form, followed, sizes in (
            ("expected-sampled-steps", "expected", "sampled"),
            ("sampled-expected-steps", "sampled", "expected"),
        )
    )
    text += (
        " Whoever sizes the steps decides: the noise of drawn probes does not lead elsewhere, it makes Adam "
        "slower, and training ends earlier on the same way. That is where the higher train accuracy of drawn "
        "probes comes from."
        if by_sizes
        else " So the size of the steps alone does not explain the difference."
    )
    page.claim(text, *groups.values())


def without_gradients(page: Page) -> None:
    """Why the rows with β = 0 collapse."""
    page.add("## Without gradient alignment (β = 0)", "")
    found = [
        group
        for group in page.groups
        if group[0].spec.method in ("hutchinson-beta0", "diagonal-beta0", "hgp-beta0", "frobenius-beta0")
        and group[0].spec.alpha == 1
        and group[0].spec.split == "balanced"
    ]
    for group in found:
        row, first = summarise_group(group), group[0]
        before = [m for m in first.history if m.step < first.spec.anneal_step][-1]
        text = (
            f"{row.label} ends at {both(row)} (n = {row.restarts}; {name_of(first.spec.setting())}); "
            f"at step {before.step}, before the full weight, it stood at {before.source_accuracy:.1f} / "
            f"{before.target_accuracy:.1f}."
        )
        if first.parts:
            last = first.parts[-1]
            then = [p for p in first.parts if p.step < first.spec.anneal_step][-1]
            text += (
                f" From there ‖H‖_F² went from {then.hessian_square:.2g} to {last.hessian_square:.2g}, the "
                f"mean curvature p(1 − p) from {then.curvature:.2g} to {last.curvature:.2g}, mean ‖z‖² from "
                f"{then.feature_square:.2g} to {last.feature_square:.2g}, and the distance of the gradients "
                f"from {then.gradient_distance:.1e} to {last.gradient_distance:.1e}."
            )
            if last.curvature < then.curvature / 2 and last.feature_square > then.feature_square:
                text += (
                    " So the head became flat by confidence, not by small features: predictions saturate, "
                    "and nothing in the penalty minds that they follow colour."
                )
        page.claim(text, group)
    page.add("")
    if not any(group[0].spec.setting() == Setting() for group in found):
        page.missing(
            "these rows at the published size",
            "hessalign cmnist --methods hgp-beta0,hutchinson-beta0 --log-parts",
        )


def studies(page: Page) -> None:
    """The sweeps that have records."""
    page.add("## Sweeps", "")
    for name, study in STUDIES.items():
        page.add(f"### {study.question}", "")
        shown = [_study(page, name, setting) for setting in _study_settings(page)]
        if not any(shown):
            page.missing("this sweep", f"hessalign cmnist-study {name}")


def _study_settings(page: Page) -> list[Setting]:
    settings: dict[Setting, None] = {}
    for group in page.groups:
        if group[0].parts:
            settings[group[0].spec.setting().with_published_schedule()] = None
    return list(settings)


def _study(page: Page, name: str, setting: Setting) -> bool:
    """A sweep in one setting, with the number of probes that has most records."""
    plans = [plan_study(name, setting, k, [0]) for k in (PUBLISHED_PROBES[setting.split], FAST_PROBES)]
    found = [
        [group for g in page.groups if g[0].spec.configuration() in plan and (group := _with_parts(g))]
        for plan in plans
    ]
    wanted, groups = max(zip(plans, found, strict=True), key=lambda pair: len(pair[1]))
    if len(groups) < SHOWN_PART * len(wanted):
        return False
    page.add(
        f"{TITLES[setting.split]}; {name_of(setting)}; {len(groups)} of {len(wanted)} configurations have "
        "records.",
        "",
    )
    configurations(page, groups)
    _sweep_figure(page, name, groups)
    if name in ANSWERS:
        ANSWERS[name](page, groups)
    choices(page, groups)
    return True


def configurations(page: Page, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """A table of configurations at their last step."""
    page.add("| Configuration | n | Train | Held-out sources | Target | gradient distance | off(H) |")
    page.add("|---|---:|---:|---:|---:|---:|---:|")
    for c in map(candidate, groups):
        row = summarise_group(c.restarts)
        page.add(
            f"| {row.label}{page.sources.note(c.restarts)} | {row.restarts} | "
            f"{accuracy(row.source_accuracy, row.source_accuracy_std, row.restarts)} | "
            f"{slashed(c.accuracies)} | "
            f"{accuracy(row.target_accuracy, row.target_accuracy_std, row.restarts)} | "
            f"{c.gradient_distance:.1e} | {c.off_diagonal:.1e} |"
        )
    page.add("")


def choices(page: Page, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """What each rule chooses among the configurations."""
    page.add(
        "Chosen among these, and when to stop with them, of every tenth step with the full weight; only the "
        "oracle sees the target domain:",
        "",
    )
    page.add("| Rule | Configuration | Step | Held-out sources | Target |", "|---|---|---:|---:|---:|")
    for rule_name, choice in choose_by_every_rule(groups).items():
        rule, label = RULES[rule_name], label_of(choice.restarts[0].spec)
        bold = "**oracle**" if rule.sees_target else rule_name
        target = accuracy(choice.target_accuracy, choice.target_deviation, len(choice.restarts))
        page.add(
            f"| {bold}: {rule.meaning} | {label} | {choice.step} | {slashed(choice.accuracies)} | {target} |"
        )
    page.add("")


def probes_as_flatness(page: Page, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """Whether k probes do what a flat off-diagonal of weight 2/k does."""
    setting = groups[0][0].spec.setting()
    pairs = [
        (group, flat)
        for group in groups
        if group[0].spec.probes and (flat := _as_flat(page, setting, group[0].spec.probes))
    ]
    if not pairs:
        return
    listed = "; ".join(
        f"k = {probed[0].spec.probes}: {both(summarise_group(probed))} with off(H) "
        f"{candidate(probed).off_diagonal:.1e}, and {both(summarise_group(flat))} with "
        f"{candidate(flat).off_diagonal:.1e} ({summarise_group(flat).label})"
        for probed, flat in pairs
    )
    ratios = [candidate(probed).off_diagonal / candidate(flat).off_diagonal for probed, flat in pairs]
    text = (
        "Hutchinson with k probes beside alignment without probes and a flat off-diagonal of weight 2/k: "
        f"{listed}. Its off-diagonals end at {', '.join(f'{ratio:.2f}' for ratio in ratios)} times the other's"
    )
    alike = all(1 / ALIKE < ratio < ALIKE for ratio in ratios)
    text += (
        ": the probes' noise acts as the regulariser of weight 2/k that its expectation contains."
        if alike
        else ": the probes' noise does something else besides."
    )
    page.claim(text, *(group for pair in pairs for group in pair))
    page.add("")


def _as_flat(page: Page, setting: Setting, probes: int) -> list[RestartRecord] | None:
    """Alignment with the flatness that so many probes amount to: of diagonals, else of gradients alone."""
    methods = ("diagonal-flat-off", "gradient-flat-off")
    found = (page.find(setting, method, gamma=implied_gamma(probes)) for method in methods)
    return next((measured for group in found if group and (measured := _with_parts(group))), None)


def best_alphas(page: Page, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """How far another weight alone leads the methods without gradient alignment."""
    by_method: dict[str, list[Sequence[RestartRecord]]] = {}
    for group in groups:
        by_method.setdefault(group[0].spec.method, []).append(group)
    best = [max(of, key=lambda g: summarise_group(g).target_accuracy) for of in by_method.values()]
    listed = ", ".join(
        f"{METHODS[group[0].spec.method].label} {summarise_group(group).target_accuracy:.1f} at "
        f"α = {group[0].spec.alpha:g}"
        for group in best
    )
    text = (
        f"The best target accuracy over α, chosen with the target in sight, out of "
        f"{len({group[0].spec.alpha for group in groups})} weights: {listed}."
    )
    aligned = page.find(groups[0][0].spec.setting(), "gradient")
    if aligned:
        reached = summarise_group(aligned).target_accuracy
        far = reached - max(summarise_group(group).target_accuracy for group in best)
        text += (
            f" Aligned gradients alone reach {reached:.1f} in this setting, {far:.1f} more than any of these: "
            "the rows fail for want of gradient alignment, and α is not to blame."
            if far > 2
            else f" Aligned gradients alone reach {reached:.1f} in this setting: α is to blame."
        )
    page.claim(text, *best, aligned or [])
    page.add("")


ANSWERS: dict[str, Callable[[Page, Sequence[Sequence[RestartRecord]]], None]] = {
    "forms": probes_as_flatness,
    "probes": probes_as_flatness,
    "alpha": best_alphas,
}


def _with_parts(group: Sequence[RestartRecord]) -> list[RestartRecord]:
    return [record for record in group if record.parts]


def _sweep_figure(page: Page, name: str, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """Accuracies and off(H) over what is swept, one curve for each method."""
    swept: dict[str, tuple[str, Callable[[RestartSpec], float | None]]] = {
        "probes": ("probes k", lambda spec: spec.probes),
        "alpha": ("α", lambda spec: spec.alpha),
        "flatness": ("γ", lambda spec: spec.gamma),
    }
    if name not in swept:
        return
    x_label, position = swept[name]
    by_method: dict[str, list[Sequence[RestartRecord]]] = {}
    for group in groups:
        if position(group[0].spec) is not None:
            by_method.setdefault(METHODS[group[0].spec.method].label, []).append(group)

    def curves(value: Callable[[Sequence[RestartRecord]], float]) -> tuple[Curve, ...]:
        return tuple(
            Curve(label, tuple(float(position(g[0].spec) or 0) for g in of), tuple(value(g) for g in of))
            for label, of in by_method.items()
        )

    panels = [
        Panel(
            "train accuracy [%]",
            x_label,
            curves(lambda g: summarise_group(g).source_accuracy),
            True,
            False,
            True,
        ),
        Panel(
            "target accuracy [%]",
            x_label,
            curves(lambda g: summarise_group(g).target_accuracy),
            True,
            False,
            True,
        ),
        Panel("off(H), last step", x_label, curves(lambda g: candidate(g).off_diagonal), True, True, True),
    ]
    records = [record for group in groups for record in group]
    page.figure(f"{name}-{len(page.figures)}.png", f"Over {x_label}.", panels, records)


def beyond(page: Page) -> None:
    """What is chosen without the target domain at the published size, on both tables."""
    page.add("## Beyond the paper: chosen without the target, at the published size", "", BEYOND, "")
    for split in BEYOND_AIMS:
        setting = Setting(split=split)
        page.add(f"### {TITLES[split]}", "")
        groups = _exact_at_full_size(page, setting)
        if not groups:
            page.missing("exact penalties at the published size", "hessalign cmnist --methods diagonal")
            continue
        configurations(page, groups)
        _beside_the_paper(page, split, groups)
        choices(page, groups)


def _exact_at_full_size(page: Page, setting: Setting) -> list[list[RestartRecord]]:
    """Exact penalties with any schedule, in restarts that know the risks on held-out images."""
    found = []
    for group in page.groups:
        spec = group[0].spec
        informed = [record for record in group if record.parts and record.parts[0].held_out_losses]
        if spec.method in EXACT and spec.with_published_schedule().setting() == setting and informed:
            found.append(informed)
    return found


def _beside_the_paper(page: Page, split: Split, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """What the rule chooses, beside the paper's row that it has to beat."""
    aim, choice = BEYOND_AIMS[split], choose_by_every_rule(groups)[BEYOND_RULE]
    name, paper = max(published(split).items(), key=lambda item: item[1].target)
    spreads = [row.target_std for row in published(split).values() if row.target > aim - 15]
    page.claim(
        f"The rule “{BEYOND_RULE}”, which does not see the target, chooses {label_of(choice.restarts[0].spec)}, "
        f"stopped after step {choice.step}: target {choice.target_accuracy:.1f} ± "
        f"{choice.target_deviation:.1f}, train {choice.source_accuracy:.1f} (n = {len(choice.restarts)}). The "
        f"aim was {aim:g}, which is {'reached' if choice.target_accuracy > aim else 'missed'}. The paper's "
        f"best row there is {METHODS[name].label}, train {paper.source:.1f}, target {paper.target:.1f} ± "
        f"{paper.target_std:.1f}; its rows with a target accuracy above {aim - 15:g} deviate by "
        f"{min(spreads):.1f} to {max(spreads):.1f}.",
        choice.restarts,
    )
    page.add("")


def make_page() -> Page:
    """The whole page, from the records."""
    records = all_records()
    sources = Sources({record.spec: path for path, record in records.items()})
    page = Page(group_restarts(records.values()), sources)
    page.add(INTRODUCTION)
    for split in TITLES:
        table(page, split)
    what_full_size_says(page)
    drawn_against_expected(page)
    without_gradients(page)
    studies(page)
    beyond(page)
    page.add(REGENERATE)
    page.add("## Records", "", *page.sources.lines())
    return page


def write() -> None:
    """Write the text and all figures, and remove figures that no longer belong to it."""
    page = make_page()
    FIGURES.mkdir(exist_ok=True)
    for name, (draw, _) in page.figures.items():
        draw(FIGURES / name)
    for path in FIGURES.glob("*.png"):
        if path.name not in page.figures:
            path.unlink()
    PAGE.write_text("\n".join(page.lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
