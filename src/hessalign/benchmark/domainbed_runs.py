"""Runs that DomainBed's own sweep writes: one ``results.jsonl``, whose records say what the run was."""

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from hessalign.benchmark.names import algorithm_named, dataset_named
from hessalign.benchmark.run_folder import LineFormat, RunFolder, first_line, whole_lines
from hessalign.datasets.registry import BUILT_IN, get_dataset
from hessalign.runs import DONE, read_as

RESULTS = "results.jsonl"

SETTING_ARGUMENTS = (
    "steps",
    "checkpoint_freq",
    "holdout_fraction",
    "uda_holdout_fraction",
    "task",
    "hparams",
)
"""Arguments of its trainer that are the same for all runs of one sweep; ``hparams`` are hand-set ones."""

SETTING_HPARAMS = (
    "resnet18",
    "resnet50_augmix",
    "freeze_bn",
    "vit",
    "dinov2",
    "class_balanced",
    "nonlinear_classifier",
    "data_augmentation",
)
"""Hyper-parameters that its search never draws: they are choices of network and data."""


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="allow")

    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    trial_seed: int = 0
    hparams_seed: int = 0


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow")

    args: _Arguments
    hparams: dict[str, Any] = {}

    def domain_count(self) -> int:
        fields = self.model_extra or {}
        count = 0
        while f"env{count}_out_acc" in fields:
            count += 1
        return count

    def setting(self) -> dict[str, Any]:
        arguments = self.args.model_extra or {}
        return {
            "program": "DomainBed",
            **{name: arguments[name] for name in SETTING_ARGUMENTS if name in arguments},
            **{name: self.hparams[name] for name in SETTING_HPARAMS if name in self.hparams},
        }


def open_run(folder: Path, files: Collection[str]) -> RunFolder | None:
    """What a run's folder holds; None before the first record.

    Args:
        folder: Where it lies.
        files: Names of its files, listed before any of them is read: what is done then, has all its records.

    Raises:
        ValueError: If the first record cannot be read, naming the file.
    """
    lines, torn = whole_lines(folder / RESULTS)
    if not lines:
        return None
    record = read_as(_Record, folder / RESULTS, first_line(lines), line=1)
    dataset = dataset_named(record.args.dataset)
    return RunFolder(
        folder=folder,
        program="DomainBed",
        dataset=dataset,
        algorithm=algorithm_named(record.args.algorithm),
        target_domains=record.args.test_envs,
        trial_seed=record.args.trial_seed,
        hparams_seed=record.args.hparams_seed,
        form={},
        setting=record.setting(),
        configuration={"args": record.args.model_dump(mode="json"), "hparams": record.hparams},
        domain_names=_domain_names(dataset, record.domain_count()),
        line_format=line_format,
        lines=lines,
        torn=torn,
        finished=DONE in files,
    )


def line_format(domain_names: tuple[str, ...]) -> LineFormat:
    """``{"step", ..., "env0_in_acc", "env0_out_acc", ...}``."""
    fields = [(f"env{index}_in_acc", f"env{index}_out_acc") for index in range(len(domain_names))]
    return LineFormat(
        schema={"step": pl.Int64(), **{field: pl.Float64() for pair in fields for field in pair}},
        accuracies=tuple((pl.col(inside), pl.col(outside)) for inside, outside in fields),
    )


@cache
def _domain_names(dataset: str, count: int) -> tuple[str, ...]:
    """The names that we know, where they fit; DomainBed's records only number its environments."""
    known = get_dataset(dataset).domain_names if dataset in BUILT_IN else ()
    return known if len(known) == count else tuple(f"env{index}" for index in range(count))
