"""The sweeps, as tables and figures, and what is chosen from them."""

from collections.abc import Sequence

from colored_mnist_page.answers import ANSWERS
from colored_mnist_page.page import TITLES, Page, accuracy, name_of, on_common_seeds, slashed, with_parts
from colored_mnist_page.sweep_figure import sweep_figure
from hessalign.experiments.colored_mnist import (
    FAST_PROBES,
    PUBLISHED_PROBES,
    RULES,
    STUDIES,
    RestartRecord,
    Setting,
    candidate,
    choose_by_every_rule,
    label_of,
    plan_study,
    summarise_group,
)

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
    compared = "on the seeds that each has"
    shared = on_common_seeds(*groups)
    if shared[0]:
        groups = shared
        compared = f"on seed {', '.join(str(record.spec.seed) for record in shared[0])}"
    page.add(
        f"{TITLES[setting.split]}; {name_of(setting)}; {len(groups)} of {len(wanted)} configurations have "
        f"records, compared {compared}.",
        "",
    )
    configurations(page, groups)
    sweep_figure(page, name, groups)
    if name in ANSWERS:
        ANSWERS[name](page, groups)
        page.add("")
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
