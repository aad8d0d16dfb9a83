"""Runs that ``hessalign train`` and ``hessalign sweep`` write: ``spec.json`` and ``metrics.jsonl``."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from hessalign.benchmark.run_folder import LineFormat, RunFolder, first_line, last_line
from hessalign.runs import DONE, METRICS, SPEC, check_spec, read_as, read_lines

SEARCHED = {"dropout"}
"""Fields of a backbone that a search draws as a hyper-parameter."""


class _Spec(BaseModel):
    """The fields of a RunSpec that say which run of a sweep it is; all others make its setting."""

    model_config = ConfigDict(extra="allow")

    dataset: str
    algorithm: str
    target_domains: tuple[int, ...]
    hparams: dict[str, Any]
    hparams_seed: int = 0
    seed: int = 0
    trial_seed: int = 0

    def setting(self) -> dict[str, Any]:
        """Everything else, with the backbone's fields by name."""
        extra = dict(self.model_extra or {})
        backbone = dict(extra.pop("backbone", {}))
        if backbone.get("weights_sha256"):
            del backbone["weights"]  # where the file lies does not matter
        backbone = {f"backbone.{name}": value for name, value in backbone.items() if name not in SEARCHED}
        return {"program": "hessalign", **backbone, **extra}


class _Record(BaseModel):
    """A line of the metrics; its scalars are not read."""

    step: int = Field(ge=0)
    accuracies: dict[str, Any] = Field(min_length=1)
    diverged: str | None = None


def open_run(folder: Path, files: Collection[str]) -> RunFolder | None:
    """What a run's folder holds; None before the first record.

    Args:
        folder: Where it lies.
        files: Names of its files, listed before any of them is read: what is done then, has all its records.

    Raises:
        ValueError: If a file cannot be read as what it should be, naming it.
    """
    finished = DONE in files
    lines, torn = read_lines(folder)
    spec = read_as(_Spec, folder / SPEC)
    check_spec(folder)
    if not lines:
        return None
    first = read_as(_Record, folder / METRICS, first_line(lines), line=1)
    last = read_as(_Record, folder / METRICS, last_line(lines), line=lines.count(b"\n"))
    return RunFolder(
        folder=folder,
        program="hessalign",
        dataset=spec.dataset,
        algorithm=spec.algorithm,
        target_domains=spec.target_domains,
        trial_seed=spec.trial_seed,
        hparams_seed=spec.hparams_seed,
        form={name: value for name, value in spec.hparams.items() if isinstance(value, str)},
        setting=spec.setting(),
        configuration=spec.model_dump(mode="json"),
        domain_names=tuple(first.accuracies),
        line_format=line_format,
        lines=lines,
        torn=torn,
        finished=finished,
        diverged=last.diverged,
    )


def line_format(domain_names: tuple[str, ...]) -> LineFormat:
    """``{"step", ..., "accuracies": {name: {"in", "out"}}}``."""
    parts = pl.Struct({"in": pl.Float64(), "out": pl.Float64()})
    # By place: Polars takes some names for patterns.
    places = [f"domain{index}" for index in range(len(domain_names))]
    accuracies = pl.col("accuracies").struct.rename_fields(places).struct
    return LineFormat(
        schema={"step": pl.Int64(), "accuracies": pl.Struct(dict.fromkeys(domain_names, parts))},
        accuracies=tuple(
            (accuracies.field(place).struct.field("in"), accuracies.field(place).struct.field("out"))
            for place in places
        ),
    )
