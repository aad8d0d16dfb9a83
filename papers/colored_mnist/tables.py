"""What the page's tables and sentences are computed from: no prose here."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Literal, get_args

from scipy.stats import spearmanr

from hessalign.experiments.colored_mnist import (
    FAST_PROBES,
    METHODS,
    PLAIN_HUTCHINSON,
    PUBLISHED_PROBES,
    Hutchinson,
    Metrics,
    PublishedAccuracy,
    RestartRecord,
    RestartSpec,
    Setting,
    Split,
    implied_gamma,
    label_of,
    published,
)
from hessalign.grid import markdown_table
from papers.colored_mnist.evidence import (
    FIGURES,
    Ended,
    Evidence,
    Group,
    ended,
    name_of,
    on_common_seeds,
    terms_before,
    with_terms,
)
from papers.colored_mnist.intervals import Interval, against_paper, mean_of
from papers.colored_mnist.panels import Compared, Curve, Level, Panel, save_differences
from papers.colored_mnist.selection import RULES, Candidate, candidate, candidates, choose_by_every_rule
from papers.colored_mnist.study import STUDIES, plan_study, reduced_setting

TITLES: dict[Split, str] = {
    "balanced": "Table 7: balanced domains",
    "script": "Table 8, split of the published script",
    "text": "Table 8, split of the text (95 % / 5 %)",
}
SAME_LOSS = {"hutchinson-alpha0": "hgp-alpha0"}
"""Without a distance of Hessians both are gradient alignment alone: no restarts of its own are needed."""
SHOWN_SHARE = 0.5
"""A study with records of fewer of its configurations is not shown."""
GUESSING = 55.0
"""A train accuracy below this, in percent, is hardly more than guessing."""
BEYOND_RULES: dict[Split, str] = {"balanced": "agreement", "script": "equal predictions"}
"""The rules whose choices are told in words: by whether the source domains hold the same digits."""
EXACT = tuple(
    name for name in METHODS if name.split("-")[0] in ("gradient", "diagonal", "frobenius", "spectral")
)


def grid(columns: str, rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        columns: Titles between bars; those that begin with ``>`` are of numbers, and set to the right.
        rows: As many cells each.

    Returns:
        The lines of the table, without an end of line after the last.
    """
    titles = [title.strip() for title in columns.split("|")]
    sides = "".join("r" if title.startswith(">") else "l" for title in titles)
    return markdown_table([title.removeprefix(">") for title in titles], rows, sides)


def accuracy(mean: float, deviation: float, restarts: int) -> str:
    """Mean and standard deviation, which one restart has not."""
    return f"{mean:.1f}" if restarts == 1 else f"{mean:.1f} ± {deviation:.1f}"


def accuracies(run: Ended) -> tuple[str, str]:
    """Train and target accuracy with their standard deviations."""
    row = run.row
    return (
        accuracy(row.source_accuracy, row.source_accuracy_std, row.restarts),
        accuracy(row.target_accuracy, row.target_accuracy_std, row.restarts),
    )


def slashed(values: Sequence[float]) -> str:
    """Accuracies of several domains."""
    return " / ".join(f"{value:.1f}" for value in values)


def place(setting: Setting) -> str:
    """A setting in few words."""
    words = [TITLES[setting.split].partition(":")[0]]
    if setting.hidden < Setting().hidden:
        words.append("reduced network")
    if setting.subsample is not None:
        words.append(f"{setting.subsample:,} images")
    return ", ".join(words)


# --- Tables 7 and 8 --------------------------------------------------------------------------------------


def paper_table(evidence: Evidence, split: Split) -> str:
    """Ours beside the paper's, row by row, and a figure of it."""
    rows, shown = [], []
    for method, paper in published(split).items():
        theirs = (accuracy(paper.source, paper.source_std, 10), accuracy(paper.target, paper.target_std, 10))
        for run in _runs_of_row(evidence, split, method):
            label = run.row.label
            if method in SAME_LOSS:
                label = f"{METHODS[method].label}: the loss of {label}"
            else:
                shown.append(Compared(label, *differences(run, paper)))
            cells = (f"{label}{evidence.cite(run)}", str(run.n), *accuracies(run), *theirs)
            rows.append((*cells, *map(judged, differences(run, paper))))
    table = grid(
        "Method | >n | >Train | >Target | >Paper train | >Paper target | >Train − paper | >Target − paper",
        rows,
    )
    title = f"{TITLES[split]}: ours minus the paper's, points"
    figure = evidence.show(
        f"differences-{split}.png", title, lambda path: save_differences(shown, title, path), tuple(shown)
    )
    return f"{table}\n\n{figure}"


def differences(run: Ended, paper: PublishedAccuracy) -> tuple[Interval, Interval]:
    """Ours minus the paper's, train and target accuracy."""
    finals = [record.final for record in run.restarts]
    return (
        against_paper([final.source_accuracy for final in finals], paper.source, paper.source_std),
        against_paper([final.target_accuracy for final in finals], paper.target, paper.target_std),
    )


def signed(found: Interval) -> str:
    """A difference and its interval."""
    return f"{found.value:+z.2f} [{found.low:+z.2f}, {found.high:+z.2f}]"


def interval(found: Interval) -> str:
    """A difference and its interval, to a tenth."""
    return f"{found.value:+z.1f} [{found.low:+z.1f}, {found.high:+z.1f}]"


def judged(found: Interval) -> str:
    """A difference from the paper: bold where its interval leaves out 0; one restart has no interval."""
    if not found.judges:
        return f"{found.value:+z.1f}"
    text = interval(found)
    return text if found.above(0) == "open" else f"**{text}**"


@dataclass(frozen=True)
class Reproduced:
    """How many rows of a table lie where the paper's do.

    Attributes:
        runs: One for each row; rows with the loss of another are left out.
        agree: Number of rows whose differences from the paper, train and target, have 0 in both intervals.
        apart: Mean distance from the paper's accuracies in points, over rows and both accuracies.
        restarts: Their numbers of restarts, each once, in words.
    """

    runs: tuple[Ended, ...]
    agree: int
    apart: float
    restarts: str


def reproduced(evidence: Evidence, split: Split) -> Reproduced:
    """How many rows of a table lie where the paper's do."""
    methods = [method for method in published(split) if method not in SAME_LOSS]
    runs = {method: _runs_of_row(evidence, split, method) for method in methods}
    found = [differences(run, published(split)[method]) for method, of_row in runs.items() for run in of_row]
    every = tuple(run for of_row in runs.values() for run in of_row)
    return Reproduced(
        every,
        sum(_agree(*row) for row in found),
        fmean(abs(each.value) for row in found for each in row),
        " or ".join(map(str, sorted({run.n for run in every}))),
    )


def _agree(train: Interval, target: Interval) -> bool:
    return all(each.judges and each.above(0) == "open" for each in (train, target))


def _runs_of_row(evidence: Evidence, split: Split, method: str) -> list[Ended]:
    """Of one row, drawn probes after their expectation."""
    of = SAME_LOSS.get(method, method)
    variants = PLAIN_HUTCHINSON if METHODS[of].uses_probes else ("expected",)
    found = (evidence.find(Setting(split=split), of, hutchinson=variant) for variant in variants)
    return [ended(group) for group in found if group]


# --- what aligns, and what the probes do -------------------------------------------------------------------


def aligned_table(evidence: Evidence, runs: Sequence[Ended]) -> str:
    """Where restarts with more and more aligned end."""
    rows = [(f"{run.row.label}{evidence.cite(run)}", str(run.n), *accuracies(run)) for run in runs]
    return grid("Aligned | >n | >Train | >Target", rows)


def added_table(evidence: Evidence, runs: Sequence[Ended], to: Ended) -> str:
    """What configurations add to another one on the seeds that both have."""
    rows = [
        (
            f"{run.row.label}{evidence.cite(run)}",
            str(len(gains(run, to))),
            interval(beside(run, to, "train")),
            interval(beside(run, to)),
        )
        for run in runs
    ]
    return grid("Aligned | >Seeds | >Train | >Target", rows)


def variants_table(evidence: Evidence, runs: dict[str, Ended]) -> str:
    """How far each variant of Hutchinson ends from the paper's row, the nearest first."""
    paper = published("balanced")["hutchinson"]
    off = {name: (run.train - paper.source, run.target - paper.target) for name, run in runs.items()}
    rows = [
        (
            f"{name}{evidence.cite(runs[name])}",
            str(runs[name].n),
            runs[name].both,
            *(f"{points:+.1f}" for points in off[name]),
        )
        for name in sorted(off, key=lambda name: math.hypot(*off[name]))
    ]
    return grid("Diagonals | >n | >Train / target | >Off the paper's train | >Off its target", rows)


def by_target(run: Ended) -> list[RestartRecord]:
    """Restarts with terms, by target accuracy."""
    return sorted(with_terms(run.restarts), key=lambda record: record.final.target_accuracy)


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's.

    Attributes:
        value: From -1 to 1.
        p: How often so far from 0 by chance.
    """

    value: float
    p: float


def left_gradients(run: Ended) -> RankCorrelation:
    """Over restarts, of the target accuracy with the distance of the gradients that is left."""
    ordered = by_target(run)
    targets = [record.final.target_accuracy for record in ordered]
    found = spearmanr(targets, [record.terms[-1].gradient_distance for record in ordered])
    return RankCorrelation(float(found.statistic), float(found.pvalue))


def left_gradients_table(evidence: Evidence, run: Ended) -> str:
    """The distance of the gradients that is left, by the target accuracy of each restart."""
    rows = []
    for record in by_target(run):
        target, distance = record.final.target_accuracy, record.terms[-1].gradient_distance
        rows.append((str(record.spec.seed), f"{target:.1f}", f"{distance:.1e}"))
    return grid(f">Seed{evidence.cite(run)} | >Target | >gradient distance", rows)


def nearest_step(run: Ended) -> Metrics:
    """Of the first restart the recorded step with the full weight that is nearest to the paper's row."""
    paper, first = published("balanced")["hutchinson"], run.restarts[0]
    after = [metrics for metrics in first.history if metrics.step >= first.spec.anneal_step]
    return min(
        after,
        key=lambda m: abs(m.source_accuracy - paper.source) + abs(m.target_accuracy - paper.target),
    )


def histories(evidence: Evidence) -> str:
    """Accuracies over the steps at the published size."""
    methods = ("erm", "irm", "fishr", "hgp", "diagonal", "hutchinson", "hutchinson-beta0")
    runs = [evidence.run("balanced", method) for method in methods]
    panels = [
        Panel(title, "step", tuple(_history_curve(run.restarts[0], name) for run in runs))
        for title, name in (
            ("train accuracy [%]", "source_accuracy"),
            ("target accuracy [%]", "target_accuracy"),
        )
    ]
    caption = (
        "Accuracies over the steps of each one's first restart; the full weight sets in at step "
        f"{Setting().anneal_step}."
    )
    return evidence.curves("histories.png", caption, panels, runs)


def _history_curve(record: RestartRecord, name: str) -> Curve:
    steps = tuple(float(metrics.step) for metrics in record.history)
    return Curve(label_of(record.spec), steps, tuple(getattr(metrics, name) for metrics in record.history))


def _terms_curve(record: RestartRecord, name: str) -> Curve:
    steps = tuple(float(terms.step) for terms in record.terms)
    return Curve(label_of(record.spec), steps, tuple(getattr(terms, name) for terms in record.terms))


# --- drawn probes against their expectation ----------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """Hutchinson both ways in one setting, on the seeds that both have.

    Attributes:
        setting: Where.
        probes: How many.
        variants: The restarts of every variant that was run, with their terms.
        expected: Those in expectation.
        drawn: Those with drawn probes.
    """

    setting: Setting
    probes: int
    variants: dict[Hutchinson, list[RestartRecord]]
    expected: list[RestartRecord]
    drawn: list[RestartRecord]

    @property
    def label(self) -> str:
        """For a table."""
        return f"{place(self.setting)}, k = {self.probes}"

    def sized(self) -> dict[Hutchinson, Ended]:
        """Where all four variants end on their common seeds; nothing where one was not run."""
        if len(self.variants) < len(get_args(Hutchinson)):
            return {}
        groups = on_common_seeds(*self.variants.values())
        return dict(zip(self.variants, map(ended, groups), strict=True))

    def sizes_decide(self) -> bool:
        """Whether each mixed variant ends, by train accuracy, nearer to the one that sizes its steps."""
        train = {variant: run.train for variant, run in self.sized().items()}
        roles: tuple[tuple[Hutchinson, Hutchinson, Hutchinson], ...] = (
            ("expected-sampled-steps", "expected", "sampled"),
            ("sampled-expected-steps", "sampled", "expected"),
        )
        return all(
            abs(train[mixed] - train[sizes]) < abs(train[mixed] - train[followed])
            for mixed, followed, sizes in roles
        )

    def passed(self) -> list[Metrics]:
        """For each seed, the expectation where its off(H) is nearest to that at the end of drawn probes."""
        return [_where_as_flat(ours, theirs) for ours, theirs in zip(self.expected, self.drawn, strict=True)]

    def apart(self) -> tuple[float, float]:
        """By how much train accuracies differ there, and at the last step: means over seeds, in points."""
        pairs = list(zip(self.passed(), self.expected, self.drawn, strict=True))
        there = (abs(then.source_accuracy - theirs.final.source_accuracy) for then, _, theirs in pairs)
        ends = (abs(ours.final.source_accuracy - theirs.final.source_accuracy) for _, ours, theirs in pairs)
        return fmean(there), fmean(ends)


def drawn_probes(evidence: Evidence) -> list[Drawn]:
    """Every setting with records of both, with terms."""
    found = []
    for group in evidence.groups:
        spec = group[0].spec
        if spec.method == "hutchinson" and spec.hutchinson == "sampled" and spec.probes and group[0].terms:
            setting, probes = spec.setting(), spec.probes
            variants = {
                variant: measured
                for variant in get_args(Hutchinson)
                if (
                    measured := with_terms(
                        evidence.find(setting, "hutchinson", probes=probes, hutchinson=variant)
                    )
                )
            }
            expected, drawn = on_common_seeds(variants.get("expected", []), variants["sampled"])
            if drawn:
                found.append(Drawn(setting, probes, variants, expected, drawn))
    return found


def drawn_table(evidence: Evidence, pairs: Sequence[Drawn]) -> str:
    """Where both end, and how far both have shrunk the features."""
    rows = []
    for pair in pairs:
        ends = [ended(group) for group in (pair.expected, pair.drawn)]
        shrunk = [fmean(r.terms[-1].feature_square for r in run.restarts) for run in ends]
        cells = (f"{pair.label}{evidence.cite(*ends)}", str(ends[0].n), *(run.both for run in ends))
        rows.append((*cells, *(f"{value:.2g}" for value in shrunk)))
    return grid("Setting | >n | >Expectation | >Drawn probes | >‖z‖², expectation | >‖z‖², drawn", rows)


def same_way_table(evidence: Evidence, pairs: Sequence[Drawn]) -> str:
    """Where the expectation stands when it is as flat as drawn probes are at their end."""
    rows = [
        (
            f"{pair.label}{evidence.cite(pair.expected, pair.drawn)}",
            str(record.spec.seed),
            slashed((record.final.source_accuracy, record.final.target_accuracy)),
            str(then.step),
            slashed((then.source_accuracy, then.target_accuracy)),
        )
        for pair in pairs
        for then, record in zip(pair.passed(), pair.drawn, strict=True)
    ]
    return grid("Setting | >Seed | >Drawn probes, last step | >Step | >Expectation, at that step", rows)


def sized_table(evidence: Evidence, pairs: Sequence[Drawn]) -> str:
    """Both gradients, each in steps that either of them sizes."""
    rows = []
    for pair in pairs:
        if ends := pair.sized():
            cells = (f"{pair.label}{evidence.cite(ends.values())}", str(ends["sampled"].n))
            expected = (ends["expected"].both, ends["expected-sampled-steps"].both)
            drawn = (ends["sampled"].both, ends["sampled-expected-steps"].both)
            rows.append((*cells, *expected, *drawn))
    return grid(
        "Setting | >n | >Expectation | >in steps of drawn probes | >Drawn probes | "
        ">in steps of the expectation",
        rows,
    )


def drawn_figure(evidence: Evidence, pair: Drawn) -> str:
    """Train accuracy and terms of the penalty over the steps."""
    mixed = (pair.variants.get(variant) for variant in get_args(Hutchinson)[2:])
    plain = (evidence.find(pair.setting, method) for method in ("gradient", "diagonal"))
    groups = [pair.expected, pair.drawn, *filter(None, mixed)]
    groups += [group for group in plain if group and group[0].terms]
    records = [group[0] for group in groups]
    names = {"feature_square": "mean ‖z‖²", "off_diagonal": "off(H), mean over domains"}
    panels = [
        Panel("train accuracy [%]", "step", tuple(_history_curve(r, "source_accuracy") for r in records)),
        *(
            Panel(title, "step", tuple(_terms_curve(r, name) for r in records), log_y=True)
            for name, title in names.items()
        ),
    ]
    size = "" if pair.setting == Setting(split=pair.setting.split) else "-reduced"
    caption = f"{pair.label}: train accuracy and terms of the penalty over the steps, of first restarts."
    return evidence.curves(f"drawn-{pair.setting.split}-{pair.probes}{size}.png", caption, panels, groups)


def _where_as_flat(record: RestartRecord, other: RestartRecord) -> Metrics:
    end = math.log(other.terms[-1].off_diagonal)
    weighted = [
        (metrics, terms)
        for metrics, terms in zip(record.history, record.terms, strict=True)
        if terms.step >= record.spec.anneal_step
    ]
    return min(weighted, key=lambda pair: abs(math.log(pair[1].off_diagonal) - end))[0]


# --- without gradient alignment ----------------------------------------------------------------------------


def without_gradients(evidence: Evidence) -> list[Ended]:
    """Configurations on balanced domains with β = 0 and α = 1."""
    return [
        ended(group)
        for group in evidence.groups
        if group[0].spec.method in ("hutchinson-beta0", "diagonal-beta0", "hgp-beta0", "frobenius-beta0")
        and group[0].spec.alpha == 1
        and group[0].spec.split == "balanced"
    ]


def collapse_table(evidence: Evidence, runs: Sequence[Ended]) -> str:
    """What becomes of accuracies, Hessians and features from the last step before the full weight to the end.

    Terms are those of the first restart.

    Returns:
        The table.
    """
    rows = []
    for run in runs:
        first = run.restarts[0]
        before = [metrics for metrics in first.history if metrics.step < first.spec.anneal_step][-1]
        cells = [f"{run.row.label}{evidence.cite(run)}", place(first.spec.setting()), str(run.n)]
        cells += [slashed((before.source_accuracy, before.target_accuracy)), run.both]
        cells += _from_to(first) if first.terms else ["–"] * 4
        rows.append(cells)
    return grid(
        "Configuration | Setting | >n | >Before the full weight | >At the end | >‖H‖_F² | >p(1 − p) | "
        ">‖z‖² | >gradient distance",
        rows,
    )


def _from_to(record: RestartRecord) -> list[str]:
    then, last = terms_before(record), record.terms[-1]
    shown = {"hessian_square": ".2g", "curvature": ".2g", "feature_square": ".2g", "gradient_distance": ".1e"}
    return [f"{getattr(then, name):{how}} → {getattr(last, name):{how}}" for name, how in shown.items()]


# --- sweeps ------------------------------------------------------------------------------------------------


def rules_table() -> str:
    """The rules of choosing."""
    return grid("Rule | Chooses", [(name, rule.meaning) for name, rule in RULES.items()])


@dataclass(frozen=True)
class Sweep:
    """A study in one setting, as the page shows it.

    Attributes:
        title: The setting, and how many configurations have records.
        configurations: Table of where each ends.
        figure: Accuracies and terms over what is swept; empty where that is no number.
        answer: Table that answers the study's question; empty where the first does.
        choices: Table of what each rule chooses.
    """

    title: str
    configurations: str
    figure: str
    answer: str
    choices: str


def sweeps(evidence: Evidence, name: str) -> list[Sweep]:
    """A study in each setting that has records of it."""
    settings = {
        group[0].spec.setting().with_published_schedule(): None for group in evidence.groups if group[0].terms
    }
    found = [_sweep(evidence, name, setting, number) for number, setting in enumerate(settings)]
    return [sweep for sweep in found if sweep is not None]


def _sweep(evidence: Evidence, name: str, setting: Setting, number: int) -> Sweep | None:
    """With the number of probes that has most records."""
    plans = [plan_study(name, setting, k, [0]) for k in (PUBLISHED_PROBES[setting.split], FAST_PROBES)]
    found = [
        [group for g in evidence.groups if g[0].spec.configuration() in plan and (group := with_terms(g))]
        for plan in plans
    ]
    wanted, groups = max(zip(plans, found, strict=True), key=lambda pair: len(pair[1]))
    if len(groups) < SHOWN_SHARE * len(wanted):
        return None
    compared = "on the seeds that each has"
    shared = on_common_seeds(*groups)
    if shared[0]:
        groups = shared
        compared = f"on seed {', '.join(str(record.spec.seed) for record in shared[0])}"
    title = (
        f"{TITLES[setting.split]}; {name_of(setting)}; {len(groups)} of {len(wanted)} configurations have "
        f"records, compared {compared}."
    )
    return Sweep(
        title,
        configurations(evidence, groups),
        _sweep_figure(evidence, name, groups, number) if name in SWEPT else "",
        ANSWERS[name](evidence, groups) if name in ANSWERS else "",
        choices(groups),
    )


def configurations(evidence: Evidence, groups: Sequence[Group]) -> str:
    """Configurations at their last step."""
    rows = []
    for c in map(candidate, groups):
        run = ended(c.restarts)
        train, target = accuracies(run)
        cells = (f"{run.row.label}{evidence.cite(run)}", str(run.n), train, slashed(c.accuracies), target)
        rows.append((*cells, f"{c.gradient_distance:.1e}", f"{c.off_diagonal:.1e}"))
    return grid(
        "Configuration | >n | >Train | >Held-out sources | >Target | >gradient distance | >off(H)", rows
    )


def choices(groups: Sequence[Group]) -> str:
    """What each rule chooses among configurations, and the step to stop at."""
    rows = [
        (
            f"**{name}**" if RULES[name].sees_target else name,
            label_of(choice.restarts[0].spec),
            str(choice.step),
            slashed(choice.accuracies),
            accuracy(choice.target_accuracy, choice.target_deviation, len(choice.restarts)),
        )
        for name, choice in choose_by_every_rule(groups).items()
    ]
    return grid("Rule | Configuration | >Step | >Held-out sources | >Target", rows)


SWEPT: dict[str, tuple[str, Callable[[RestartSpec], float | None]]] = {
    "probes": ("probes k", lambda spec: spec.probes),
    "alpha": ("α", lambda spec: spec.alpha),
    "flatness": ("γ", lambda spec: spec.gamma),
}
"""What the sweeps that have a figure go over: its name, and where a restart lies."""


def _term(name: str) -> Callable[[Group], float]:
    return lambda group: fmean(getattr(record.terms[-1], name) for record in group)


ACCURACIES: dict[str, Callable[[Group], float]] = {
    "train accuracy [%]": lambda group: ended(group).train,
    "target accuracy [%]": lambda group: ended(group).target,
}
TERMS: dict[str, Callable[[Group], float]] = {
    "off(H), mean over domains": _term("off_diagonal"),
    "distance of the gradients": _term("gradient_distance"),
    "distance of the diagonals": _term("diagonal_distance"),
    "mean ‖z‖²": _term("feature_square"),
}


def _sweep_figure(evidence: Evidence, name: str, groups: Sequence[Group], number: int) -> str:
    """Accuracies and terms of the penalty at the last step over what is swept, a curve for each method.

    Configurations outside the sweep, say without probes, are levels to compare with.

    Returns:
        The figure in Markdown.
    """
    x_label, position = SWEPT[name]
    by_method: dict[str, dict[float, Group]] = {}
    fixed: dict[str, Group] = {}
    for group in groups:
        label, x = METHODS[group[0].spec.method].label, position(group[0].spec)
        if x is None:
            fixed[label] = group
        else:
            by_method.setdefault(label, {})[x] = group
    panels = []
    for title, value in (ACCURACIES | TERMS).items():
        curves = tuple(
            Curve(label, tuple(of), tuple(value(group) for group in of.values()))
            for label, of in by_method.items()
        )
        levels = tuple(Level(label, value(group)) for label, group in fixed.items())
        panels.append(Panel(title, x_label, curves, True, title in TERMS, True, levels))
    return evidence.curves(f"{name}-{number}.png", f"The same over {x_label}.", panels)


@dataclass(frozen=True)
class AsFlat:
    """Hutchinson in expectation over k probes, and a flat off-diagonal of weight 2/k, on the same seeds."""

    probed: Ended
    flat: Ended

    @property
    def off_diagonals(self) -> tuple[float, float]:
        """``off(H)`` of both at the end."""
        first, second = (candidate(run.restarts).off_diagonal for run in (self.probed, self.flat))
        return first, second

    @property
    def ratio(self) -> float:
        """Of the two."""
        first, second = self.off_diagonals
        return first / second

    @property
    def apart(self) -> float:
        """By how many points accuracies differ at most."""
        return max(abs(self.probed.train - self.flat.train), abs(self.probed.target - self.flat.target))


def as_flat(evidence: Evidence, setting: Setting) -> list[AsFlat]:
    """Every number of probes in a setting that has both, aligned diagonals beside the flat head preferred."""
    found = []
    for group in evidence.groups:
        spec = group[0].spec
        if spec.method != "hutchinson" or spec.hutchinson != "expected" or spec.setting() != setting:
            continue
        gamma, probed = implied_gamma(spec.probes or 1), with_terms(group)
        for method in ("diagonal-flat-off", "gradient-flat-off"):
            flat = with_terms(evidence.find(setting, method, gamma=gamma))
            if probed and flat:
                common = on_common_seeds(probed, flat)
                if common[0]:
                    found.append(AsFlat(*map(ended, common)))
                break
    return found


def _flatness_table(evidence: Evidence, groups: Sequence[Group]) -> str:
    """Whether k probes do what a flat off-diagonal of weight 2/k does."""
    shown = {group[0].spec.configuration() for group in groups}
    rows = []
    for pair in as_flat(evidence, groups[0][0].spec.setting()):
        probed, flat = pair.probed, pair.flat
        if probed.restarts[0].spec.configuration() in shown:
            offs = [f"{off:.1e}" for off in pair.off_diagonals]
            first = (f"{probed.row.probes}{evidence.cite(probed, flat)}", str(probed.n), probed.both, offs[0])
            rows.append((*first, flat.row.label, flat.both, offs[1], f"{pair.ratio:.2f}"))
    if not rows:
        return ""
    return grid(
        ">k | >n | >Hutchinson in expectation | >off(H) | Without probes | >Train / target | >off(H) | "
        ">Ratio",
        rows,
    )


def over_probes(evidence: Evidence, setting: Setting) -> list[Ended]:
    """Hutchinson in expectation from the fewest probes on, then the exact diagonal, on common seeds."""
    probed = [
        measured
        for group in evidence.groups
        if group[0].spec.setting() == setting
        and group[0].spec.method == "hutchinson"
        and group[0].spec.hutchinson == "expected"
        and (measured := with_terms(group))
    ]
    ordered = sorted(probed, key=lambda group: group[0].spec.probes or 0)
    groups = on_common_seeds(*ordered, with_terms(evidence.find(setting, "diagonal")))
    return [ended(group) for group in groups]


def probes_figure(evidence: Evidence, caption: str) -> str:
    """Hutchinson in expectation over the number of probes, at the published size.

    Args:
        evidence: The records.
        caption: In words.

    Returns:
        The figure in Markdown, with its caption.

    Raises:
        ValueError: If there are no records of that sweep.
    """
    for sweep in sweeps(evidence, "probes"):
        if name_of(Setting()) in sweep.title:
            name = sweep.figure.partition(f"]({FIGURES}/")[2].partition(")")[0]
            return f"{evidence.show(name, caption, *evidence.figures[name])}\n\n{caption}"
    raise ValueError("probes: the page needs the records of this sweep in the published setting")


def repeats(evidence: Evidence, split: Split, method: str, **wanted: object) -> bool:
    """Whether the differences of a row from the paper's, train and target, have 0 in both intervals."""
    return _agree(*differences(evidence.run(split, method, **wanted), published(split)[method]))


def others_that_differ(evidence: Evidence, split: Split) -> list[Compared]:
    """The rows that do not agree with the paper's, without that of Hutchinson in expectation."""
    expected = evidence.run(split, "hutchinson").restarts[0].spec.configuration()
    found = [
        Compared(run.row.label, *differences(run, published(split)[run.row.method]))
        for run in reproduced(evidence, split).runs
        if run.restarts[0].spec.configuration() != expected
    ]
    return [row for row in found if not _agree(row.train, row.target)]


def off_diagonals(runs: Sequence[Ended]) -> list[float]:
    """``off(H)`` at the end of each."""
    return [candidate(run.restarts).off_diagonal for run in runs]


def rises(values: Sequence[float]) -> bool:
    """Whether each is above the one before."""
    return all(lower < upper for lower, upper in pairwise(values))


def runs_of(evidence: Evidence, name: str) -> list[Ended]:
    """Where the configurations of a study end in the reduced network on balanced domains."""
    plan = plan_study(name, reduced_setting("balanced"), FAST_PROBES, [0])
    return [ended(group) for group in evidence.groups if group[0].spec.configuration() in plan]


def choose(evidence: Evidence, name: str, rule: str) -> Candidate:
    """What a rule chooses among these."""
    return choose_by_every_rule([run.restarts for run in runs_of(evidence, name)])[rule]


def best_alphas(evidence: Evidence) -> dict[str, Ended]:
    """By method without gradient alignment, the α with the best target accuracy; those that guess aside."""
    best: dict[str, Ended] = {}
    for run in runs_of(evidence, "alpha"):
        method = run.row.method
        if run.train > GUESSING and (method not in best or run.target > best[method].target):
            best[method] = run
    return best


def _alpha_table(evidence: Evidence, _groups: Sequence[Group]) -> str:
    """How far another weight alone leads the methods without gradient alignment."""
    rows = [
        (f"{METHODS[method].label}{evidence.cite(run)}", f"{run.target:.1f}", f"{run.row.alpha:g}")
        for method, run in best_alphas(evidence).items()
    ]
    return grid("Method | >Best target | >at α", rows)


ANSWERS: dict[str, Callable[[Evidence, Sequence[Group]], str]] = {
    "variants": _flatness_table,
    "probes": _flatness_table,
    "alpha": _alpha_table,
}


# --- chosen without the target -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Beyond:
    """Exact penalties at the published size with any schedule, and what is chosen among them.

    Attributes:
        groups: Configurations, in restarts that know what the rules ask for.
        pool: Every configuration at every step that training might end at.
        chosen: By the rule that is told in words.
        oracle: By the target accuracy.
        rule: Name of that rule.
    """

    groups: list[list[RestartRecord]]
    pool: list[Candidate]
    chosen: Candidate
    oracle: Candidate
    rule: str

    @property
    def by_points(self) -> Candidate:
        """Where predictions differ least in points: standard errors shrink with the number of restarts."""
        return min(self.pool, key=lambda c: max(c.predictive_differences))

    def correlations(self) -> dict[str, float]:
        """Rank correlation of the target accuracy with how far the source domains differ, in what."""
        differences = {
            "predictions": [c.predictive_gap for c in self.pool],
            "accuracies": [c.gap for c in self.pool],
            "risks": [c.risk_gap for c in self.pool],
            "gradients": [c.gradient_distance for c in self.pool],
        }
        target = [c.target_accuracy for c in self.pool]
        return {name: float(spearmanr(of, target).statistic) for name, of in differences.items()}


def beyond(evidence: Evidence, split: Split) -> Beyond:
    """What is chosen without the target domain at the published size."""
    groups = _exact_at_full_size(evidence, Setting(split=split))
    chosen = choose_by_every_rule(groups)
    rule = BEYOND_RULES[split]
    pool = [c for group in groups for c in candidates(group)]
    return Beyond(groups, pool, chosen[rule], chosen["oracle"], rule)


def gains(run: Ended, other: Ended, accuracy: Literal["train", "target"] = "target") -> list[float]:
    """Points of accuracy that a configuration has above another one, seed by seed."""
    ours, theirs = on_common_seeds(run.restarts, other.restarts)
    name = {"train": "source_accuracy", "target": "target_accuracy"}[accuracy]
    return [
        getattr(one.final, name) - getattr(another.final, name)
        for one, another in zip(ours, theirs, strict=True)
    ]


def beside(run: Ended, other: Ended, accuracy: Literal["train", "target"] = "target") -> Interval:
    """The mean of these, with its t interval."""
    return mean_of(gains(run, other, accuracy))


def _exact_at_full_size(evidence: Evidence, setting: Setting) -> list[list[RestartRecord]]:
    """Exact penalties with any schedule, in restarts that know what the rules ask for.

    That is the risks on held-out images and, where domains hold different digits, the classes' accuracies.
    Of restarts that differ by their number of steps alone the longest, which hold the others.

    Returns:
        Groups of restarts, in the order of the table.
    """
    asked = "held_out_losses" if setting.split == "balanced" else "held_out_class_accuracies"
    longest: dict[RestartSpec, list[RestartRecord]] = {}
    for group in evidence.groups:
        spec = group[0].spec
        at_end = spec.model_copy(update={"steps": setting.steps})
        informed = [record for record in group if record.terms and getattr(record.terms[0], asked)]
        if spec.method in EXACT and at_end.with_published_schedule().setting() == setting and informed:
            longest[at_end] = max(longest.get(at_end, informed), informed, key=lambda g: g[0].spec.steps)
    return list(longest.values())


def questions() -> dict[str, str]:
    """Of the studies, by name."""
    return {name: study.question for name, study in STUDIES.items()}
