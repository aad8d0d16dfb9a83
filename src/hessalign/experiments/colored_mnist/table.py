"""The rows of a table, from records, beside the paper's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from hessalign.experiments.colored_mnist.config import (
    METHODS,
    PUBLISHED_PROBES,
    Hutchinson,
    RestartSpec,
    Setting,
    Split,
)

if TYPE_CHECKING:
    from hessalign.experiments.colored_mnist.restart import RestartRecord


@dataclass(frozen=True)
class PublishedAccuracy:
    """What the paper reports in percent: mean and standard deviation over ten restarts.

    Examples:
        >>> from hessalign.experiments.colored_mnist import PublishedAccuracy, published
        >>> isinstance(published("balanced")["erm"], PublishedAccuracy)
        True
        >>> published("balanced")["erm"]
        PublishedAccuracy(source=86.4, source_std=0.2, target=14.0, target_std=0.7)
    """

    source: float
    source_std: float
    target: float
    target_std: float


# Hemati et al., ICCV 2023, supplement, Tables 7 and 8.
TABLE_7 = {
    "erm": PublishedAccuracy(86.4, 0.2, 14.0, 0.7),
    "irm": PublishedAccuracy(71.0, 0.5, 65.6, 1.8),
    "vrex": PublishedAccuracy(71.7, 1.5, 67.2, 1.5),
    "fishr": PublishedAccuracy(71.0, 0.9, 69.5, 1.0),
    "hgp": PublishedAccuracy(71.0, 1.5, 69.4, 1.3),
    "hgp-alpha0": PublishedAccuracy(70.6, 1.8, 69.3, 1.2),
    "hgp-beta0": PublishedAccuracy(78.9, 0.3, 53.3, 1.7),
    "hutchinson": PublishedAccuracy(61.7, 1.9, 74.0, 1.2),
    "hutchinson-alpha0": PublishedAccuracy(70.6, 1.8, 69.3, 1.2),
    "hutchinson-beta0": PublishedAccuracy(84.9, 0.1, 9.8, 0.2),
}

TABLE_8 = {
    "erm": PublishedAccuracy(86.4, 0.1, 16.7, 0.1),
    "irm": PublishedAccuracy(84.9, 0.1, 14.3, 1.4),
    "vrex": PublishedAccuracy(83.3, 0.2, 35.1, 1.2),
    "fishr": PublishedAccuracy(75.7, 2.7, 35.5, 5.3),
    "hgp": PublishedAccuracy(83.0, 0.2, 30.0, 0.9),
    "hgp-alpha0": PublishedAccuracy(83.2, 0.4, 29.7, 1.7),
    "hgp-beta0": PublishedAccuracy(84.3, 0.1, 20.4, 1.0),
    "hutchinson": PublishedAccuracy(79.4, 0.3, 47.7, 1.4),
    "hutchinson-alpha0": PublishedAccuracy(83.2, 0.4, 29.7, 1.7),
    "hutchinson-beta0": PublishedAccuracy(84.9, 0.1, 9.8, 0.2),
}


def published(split: Split) -> dict[str, PublishedAccuracy]:
    """The table that belongs to a split, by method.

    Returns:
        The paper's numbers, by key of ``METHODS``.

    Examples:
        >>> from hessalign.experiments.colored_mnist import published
        >>> published("balanced")["hgp"].target
        69.4
    """
    return TABLE_7 if split == "balanced" else TABLE_8


HUTCHINSON_LABELS: dict[Hutchinson, str] = {
    "sampled": "sampled",
    "expected-sampled-steps": "in steps of the sampled one's size",
    "sampled-expected-steps": "sampled, in steps of the expectation's size",
}


class Row(BaseModel):
    """One method: mean and population standard deviation over restarts, in percent, beside the paper's.

    Examples:
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, run_restart, summarise_group
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> record = run_restart(spec, torch.device("cpu"))
        >>> row = summarise_group([record])
        >>> row.method, row.restarts, row.source_accuracy == record.final.source_accuracy
        ('erm', 1, True)
    """

    model_config = ConfigDict(frozen=True)

    method: str
    label: str
    probes: int | None
    hutchinson: str | None
    alpha: float
    gamma: float | None
    restarts: int
    source_accuracy: float
    source_accuracy_std: float
    target_accuracy: float
    target_accuracy_std: float
    paper_source_accuracy: float | None
    paper_source_accuracy_std: float | None
    paper_target_accuracy: float | None
    paper_target_accuracy_std: float | None


def summarise(records: Iterable["RestartRecord"], setting: Setting) -> list[Row]:
    """A row for each method, with its weights and probes, that has restarts in the setting.

    Returns:
        The rows, in the order of the table.

    Examples:
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, run_restart, summarise
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> record = run_restart(spec, torch.device("cpu"))
        >>> [(row.method, row.restarts) for row in summarise([record], spec.setting())]
        [('erm', 1)]
    """
    inside = [r for r in records if all(getattr(r.spec, name) == value for name, value in setting)]
    return [summarise_group(group) for group in group_restarts(inside)]


def group_restarts(records: Iterable["RestartRecord"]) -> list[list["RestartRecord"]]:
    """Restarts that differ by their seed alone together, in the order of the table.

    Returns:
        The groups, none of them empty.

    Examples:
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, group_restarts, run_restart
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> record = run_restart(spec, torch.device("cpu"))
        >>> other = run_restart(spec.model_copy(update={"seed": 1}), torch.device("cpu"))
        >>> [[found.spec.seed for found in group] for group in group_restarts([record, other])]
        [[0, 1]]
    """
    groups: dict[RestartSpec, list[RestartRecord]] = {}
    for record in records:
        groups.setdefault(record.spec.configuration(), []).append(record)
    return [groups[spec] for spec in sorted(groups, key=_place_in_table)]


def _place_in_table(spec: RestartSpec) -> tuple[float | str, ...]:
    order = list(METHODS).index(spec.method)
    schedule = (spec.anneal_step, spec.fresh_optimizer, -spec.penalty_weight)
    return (order, spec.probes or 0, spec.hutchinson, spec.alpha, spec.gamma or 0, *schedule)


def summarise_group(records: Sequence["RestartRecord"]) -> Row:
    """One row from restarts that differ by their seed alone, at least one.

    Returns:
        The row.

    Examples:
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, run_restart, summarise_group
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> record = run_restart(spec, torch.device("cpu"))
        >>> row = summarise_group([record, record])
        >>> row.restarts, row.target_accuracy_std, row.target_accuracy == record.final.target_accuracy
        (2, 0.0, True)
    """
    spec = records[0].spec
    source = [record.final.source_accuracy for record in records]
    target = [record.final.target_accuracy for record in records]
    # The paper has one number of probes, one weight and one schedule for each table.
    as_published = spec.alpha == 1 and spec == spec.with_published_schedule()
    paper = published(spec.split).get(spec.method) if as_published else None
    return Row(
        method=spec.method,
        label=label_of(spec),
        probes=spec.probes,
        hutchinson=spec.hutchinson if spec.probes else None,
        alpha=spec.alpha,
        gamma=spec.gamma,
        restarts=len(records),
        source_accuracy=fmean(source),
        source_accuracy_std=pstdev(source),
        target_accuracy=fmean(target),
        target_accuracy_std=pstdev(target),
        paper_source_accuracy=paper and paper.source,
        paper_source_accuracy_std=paper and paper.source_std,
        paper_target_accuracy=paper and paper.target,
        paper_target_accuracy_std=paper and paper.target_std,
    )


def label_of(spec: RestartSpec) -> str:
    """The method's name, with what sets it apart from other rows of the same setting.

    Returns:
        The label of its row.

    Examples:
        >>> from hessalign.experiments.colored_mnist import RestartSpec, label_of
        >>> label_of(RestartSpec(method="hgp", seed=0, alpha=0.5))
        'HGP, α = 0.5'
    """
    usual = spec.with_published_schedule()
    words = [METHODS[spec.method].label]
    if spec.probes is not None and spec.probes != PUBLISHED_PROBES[spec.split]:
        words.append(f"k = {spec.probes}")
    if spec.hutchinson != "expected":
        words.append(HUTCHINSON_LABELS[spec.hutchinson])
    if spec.anneal_step != usual.anneal_step:
        words.append(f"full weight from step {spec.anneal_step} of {spec.steps}")
    if spec.penalty_weight != usual.penalty_weight:
        words.append(f"λ = {spec.penalty_weight:.3g}")
    if spec.fresh_optimizer:
        words.append("fresh Adam")
    if spec.alpha != 1:
        words.append(f"α = {spec.alpha:.3g}")
    if spec.gamma is not None:
        words.append(f"γ = {spec.gamma:.3g}")
    return ", ".join(words)
