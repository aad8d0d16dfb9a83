"""The sweeps, as tables and figures, and what is chosen from them."""

from collections.abc import Callable, Sequence

from colored_mnist_page.answers import ANSWERS
from colored_mnist_page.page import TITLES, Page, accuracy, name_of, slashed, with_parts
from hessalign.experiments.colored_mnist import (
    FAST_PROBES,
    METHODS,
    PUBLISHED_PROBES,
    RULES,
    STUDIES,
    RestartRecord,
    RestartSpec,
    Setting,
    candidate,
    choose_by_every_rule,
    label_of,
    plan_study,
    summarise_group,
)
from hessalign.experiments.colored_mnist.curves import Curve, Panel

SHOWN_PART = 0.5
"""A study with records of a smaller part of its configurations is not shown."""

CHOOSING = """\
Under each sweep stands what each of these rules chooses: a configuration, and the step to stop at, of every
tenth with the full weight. All but the oracle see held-out images of the source domains only."""


def studies(page: Page) -> None:
    """The sweeps that have records."""
    page.add("## Sweeps", "", CHOOSING, "", "| Rule | Chooses |", "|---|---|")
    page.add(*(f"| {name} | {rule.meaning} |" for name, rule in RULES.items()), "")
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
        [group for g in page.groups if g[0].spec.configuration() in plan and (group := with_parts(g))]
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
    page.add("Chosen among these, and when to stop with them:", "")
    page.add("| Rule | Configuration | Step | Held-out sources | Target |", "|---|---|---:|---:|---:|")
    for rule_name, choice in choose_by_every_rule(groups).items():
        rule, label = RULES[rule_name], label_of(choice.restarts[0].spec)
        bold = "**oracle**" if rule.sees_target else rule_name
        target = accuracy(choice.target_accuracy, choice.target_deviation, len(choice.restarts))
        page.add(f"| {bold} | {label} | {choice.step} | {slashed(choice.accuracies)} | {target} |")
    page.add("")


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
