"""The records of all runs below a folder, as one tidy frame."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hessalign.benchmark import domainbed_runs, own_runs
from hessalign.benchmark.bulk import parse
from hessalign.benchmark.run_folder import RunFolder
from hessalign.benchmark.selection import Rule, select
from hessalign.benchmark.settings import name_algorithms, name_settings
from hessalign.runs import DONE, ERROR, METRICS, SPEC

RUN_KEY = ("dataset", "setting", "algorithm", "targets", "trial_seed", "hparams_seed")
"""All that the rules of selection know of a run."""
NAMED = 10
"""Runs that a note names; more are counted."""


@dataclass(frozen=True, eq=False)
class Records:
    """What a sweep has recorded.

    Attributes:
        accuracies: A row for each domain of each record: ``dataset``, ``setting`` (what sets runs of one
            dataset apart, ``""`` if nothing does), ``algorithm`` (with its form where it has several),
            ``targets``, ``trial_seed``, ``hparams_seed``, ``run`` (index into ``runs``), ``record``,
            ``step``, ``domain`` (index), ``inside`` and ``outside`` (accuracies of its two parts, 0 to 1; NaN
            where there is none).
        runs: By index.
        settings: Name of each run's setting.
        notes: What a reader should know: what was left out, repeated or told apart.
    """

    accuracies: pl.DataFrame
    runs: tuple[RunFolder, ...]
    settings: tuple[str, ...]
    notes: tuple[str, ...]

    def choices(self, rule: Rule) -> pl.DataFrame:
        """What a rule [selects][hessalign.benchmark.selection.select].

        Where it could choose only among runs that had diverged, there is no choice.
        """
        diverged = [index for index, run in enumerate(self.runs) if run.diverged is not None]
        return select(self.accuracies, rule).filter(
            ~(pl.col("run").is_in(diverged) & pl.col("test").is_nan())
        )

    def example(self, dataset: str, setting: str) -> RunFolder:
        """A run of a dataset in a setting; all of them share their domains and their setting's fields."""
        keys = zip(self.runs, self.settings, strict=True)
        return next(run for run, name in keys if (run.dataset, name) == (dataset, setting))


def read_sweep(folder: Path, unfinished: bool = False) -> Records:
    """Read every run below a folder: ours, and those of DomainBed's sweeps. Works while they are written.

    Args:
        folder: A sweep's folder, or any above run folders.
        unfinished: Whether runs that have not done all of their steps count.

    Raises:
        ValueError: If there is no run to read, or a file is not what it should be, naming it.
    """
    found = dict(_run_folders(folder))
    strays = [path for path, files in found.items() if _is_stray(files)]
    for path in strays:
        del found[path]
    if not found:
        raise ValueError(f"folder: {folder} holds no run; a run is a folder with spec.json or results.jsonl")
    opened = [run for path, files in found.items() if (run := _open(path, files)) is not None]
    runs = [run for run in opened if run.finished or unfinished]
    left_out = [
        *(f"{path} holds the records of a run but no {SPEC}, and is left out." for path in strays[:NAMED]),
        *([f"So are {len(strays) - NAMED} more."] if len(strays) > NAMED else []),
        *_left_out(found, opened, unfinished),
    ]
    if not runs:
        raise ValueError(f"folder: {folder} holds no finished run yet. {' '.join(left_out)}")
    settings, told_apart = name_settings(runs)
    accuracies, dropped = parse(runs)
    algorithms, forms = name_algorithms(runs)
    table = _table(runs, settings, algorithms)
    repeated = [f"Resumed runs repeated {dropped} records; the last of each step counts."] if dropped else []
    return Records(
        accuracies=accuracies.join(table, on="run", how="left", maintain_order="left"),
        runs=tuple(runs),
        settings=tuple(settings),
        notes=(*left_out, *_diverged(folder, runs), *told_apart, *forms, *repeated, *_shared_draws(table)),
    )


def _run_folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Run folders and the names of their files, sorted by path; nothing below a run folder is looked at."""
    for path, subfolders, files in os.walk(folder):
        if SPEC in files or domainbed_runs.RESULTS in files or _is_stray(files):
            subfolders.clear()
            yield Path(path), files
        subfolders.sort()


def _is_stray(files: list[str]) -> bool:
    """Whether a folder is one of our runs that has lost its spec."""
    return {METRICS, DONE} <= set(files) and SPEC not in files and domainbed_runs.RESULTS not in files


def _open(folder: Path, files: list[str]) -> RunFolder | None:
    if SPEC in files:
        return own_runs.open_run(folder, files)
    return domainbed_runs.open_run(folder, files)


def _table(runs: Sequence[RunFolder], settings: Sequence[str], algorithms: Sequence[str]) -> pl.DataFrame:
    """A row for each run: its index and the columns of RUN_KEY."""
    return pl.DataFrame(
        {
            "run": range(len(runs)),
            "dataset": [run.dataset for run in runs],
            "setting": settings,
            "algorithm": algorithms,
            "targets": [list(run.target_domains) for run in runs],
            "trial_seed": [run.trial_seed for run in runs],
            "hparams_seed": [run.hparams_seed for run in runs],
        },
        schema_overrides={"run": pl.UInt32, "targets": pl.List(pl.Int64)},
    )


def _left_out(found: Mapping[Path, list[str]], opened: Sequence[RunFolder], unfinished: bool) -> list[str]:
    """Notes on runs that do not count, and on records that end in the middle of a line."""
    notes = []
    missing = len(found) - sum(run.finished for run in opened)
    if missing:
        fate = "count as far as they have come" if unfinished else "are left out"
        notes.append(f"{missing} of {len(found)} runs are not finished and {fate}.")
    failed = [path for path, files in found.items() if ERROR in files and DONE not in files]
    if failed:
        notes.append(f"{len(failed)} of {len(found)} runs have failed; see {failed[0] / ERROR}.")
    torn = sum(run.torn for run in opened if run.finished or unfinished)
    if torn:
        notes.append(f"{torn} records end in the middle of a line and are left out.")
    return notes


def _diverged(folder: Path, runs: Sequence[RunFolder]) -> list[str]:
    """A note that names the runs that diverged."""
    found = [run for run in runs if run.diverged is not None]
    if not found:
        return []
    named = "; ".join(
        f"{run.algorithm} on {run.dataset}, target {','.join(map(str, run.target_domains))}, trial "
        f"{run.trial_seed}, draw {run.hparams_seed}: {run.diverged} ({run.folder.relative_to(folder)})"
        for run in found[:NAMED]
    )
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return [
        f"{len(found)} of {len(runs)} runs diverged; their evaluations before that count, and where a rule "
        f"takes the last step they come last. They are {named}{more}."
    ]


def _shared_draws(table: pl.DataFrame) -> list[str]:
    """A note if two runs cannot be told apart by what the rules know of them."""
    shared = table.filter(pl.len().over(RUN_KEY) > 1)
    if shared.is_empty():
        return []
    return [
        f"{shared.height} runs share dataset, algorithm, targets, trial and draw with another run (they "
        "differ in seed or in hyper-parameters set by hand); the rules take such runs for one."
    ]
