"""Drawn probes against their expectation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

from colored_mnist_page.page import (
    Page,
    both,
    history_curve,
    name_of,
    on_common_seeds,
    parts_curve,
    with_parts,
)
from hessalign.experiments.colored_mnist import Hutchinson, Metrics, RestartRecord, Setting, summarise_group
from hessalign.experiments.colored_mnist.curves import Panel


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
        form: with_parts(group)
        for form in get_args(Hutchinson)
        if (group := page.find(reduced.setting, "hutchinson", probes=reduced.probes, hutchinson=form))
    }
    expected, drawn = on_common_seeds(forms.get("expected", []), forms.get("sampled", []))
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
            tuple((history_curve if name == "source_accuracy" else parts_curve)(r, name) for r in records),
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
        " So drawn probes go the same way and are later. That is where their higher train accuracy comes "
        "from."
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


def _whose_steps(page: Page, forms: dict[Hutchinson, list[RestartRecord]]) -> None:
    """Whether the noise acts by the way that is taken, or by the size of Adam's steps."""
    if not all(forms.get(form) for form in MIXED_FORMS):
        return
    groups = dict(zip(forms, on_common_seeds(*forms.values()), strict=True))
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
