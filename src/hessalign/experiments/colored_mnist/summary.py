"""From records to the rows of a table."""

from collections.abc import Iterable
from statistics import fmean, pstdev

from pydantic import BaseModel, ConfigDict

from hessalign.experiments.colored_mnist.config import PUBLISHED_PROBES, RestartSpec, Setting
from hessalign.experiments.colored_mnist.methods import METHODS
from hessalign.experiments.colored_mnist.paper import published
from hessalign.experiments.colored_mnist.restart import RestartRecord


class Row(BaseModel):
    """One method: mean and population standard deviation over restarts, in percent, beside the paper's."""

    model_config = ConfigDict(frozen=True)

    method: str
    label: str
    probes: int | None
    hutchinson: str | None
    restarts: int
    source_accuracy: float
    source_accuracy_std: float
    target_accuracy: float
    target_accuracy_std: float
    paper_source_accuracy: float | None
    paper_source_accuracy_std: float | None
    paper_target_accuracy: float | None
    paper_target_accuracy_std: float | None


def summarise(records: Iterable[RestartRecord], setting: Setting) -> list[Row]:
    """A row for each method, number of probes and form of Hutchinson that has restarts in the setting."""
    groups: dict[tuple[int, int, str], list[RestartRecord]] = {}
    order = list(METHODS)
    for record in records:
        spec = record.spec
        if all(getattr(spec, name) == value for name, value in setting):
            key = (order.index(spec.method), spec.probes or 0, spec.hutchinson)
            groups.setdefault(key, []).append(record)
    return [_row(groups[key], setting) for key in sorted(groups)]


def _row(records: list[RestartRecord], setting: Setting) -> Row:
    spec = records[0].spec
    source = [record.final.source_accuracy for record in records]
    target = [record.final.target_accuracy for record in records]
    paper = published(setting.split).get(spec.method)
    return Row(
        method=spec.method,
        label=_label(spec),
        probes=spec.probes,
        hutchinson=spec.hutchinson if spec.probes else None,
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


def _label(spec: RestartSpec) -> str:
    """The method's name, with what sets it apart from other rows of the same method."""
    parts = [METHODS[spec.method].label]
    if spec.probes is not None and spec.probes != PUBLISHED_PROBES[spec.split]:
        parts.append(f"k = {spec.probes}")
    if spec.hutchinson == "sampled":
        parts.append("sampled")
    return ", ".join(parts)
