"""A sweep in its folder: which runs are left, and the doing of them."""

import json
import re
import time
import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hessalign.backbones.weights import FILE_SUFFIXES, file_sha256
from hessalign.benchmark.job import Engine, Job, Outcome, is_held, outcome_of_former
from hessalign.benchmark.protocol import RunConfig, SweepSpec
from hessalign.exceptions import HessalignWarning, NoEffectWarning
from hessalign.files import write_atomically
from hessalign.markup import counted
from hessalign.runs import (
    CHECKPOINTS,
    DATA_NAMES,
    SPEC,
    SWEEP,
    data_names_of,
    divergence,
    have_predictions,
    hold,
    is_finished,
    read_records,
)
from hessalign.training import can_train_together

CONFIG = "settings"
"""Field of what was asked for that is the same for all runs."""
SECONDS_FOR_CLAIMS = 60.0
"""To wait for others that claim the folder at this moment, which takes each of them less than one."""
SECONDS_BETWEEN_LOOKS = 2.0
NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")


def claim_sweep(out: Path, sweep: SweepSpec, datasets: Sequence[str], jobs: Sequence[Job] = ()) -> None:
    """Make a folder one of runs with this config, and note what was asked for.

    Another sweep may share the folder if only datasets, algorithms, recipe, trials, draws or target domains
    differ: what both ask for is done once. With another config its runs could not stand in one table.

    Args:
        out: The folder.
        sweep: What is asked for.
        datasets: As they were given.
        jobs: Of the sweep, which tell what data of one's own are called in tables; what an earlier sweep
            noted of others stays. None by default.

    Raises:
        ValueError: If the folder's runs have another config, or it is that of a single run.
        OSError: If it cannot be written.
    """
    config = _by_content(sweep.config)
    if (out / SPEC).is_file():
        raise ValueError(f"out: {out} is the folder of a single run; choose another folder")
    with hold(out, SECONDS_FOR_CLAIMS):
        if (out / SWEEP).exists():
            _compare(out, config)
        own = {job.spec.data: job.data_name for job in jobs if job.data_name != job.spec.dataset}
        names = {**data_names_of(out), **own}
        asked = {
            "datasets": list(datasets),
            **({DATA_NAMES: names} if names else {}),
            **sweep.model_dump(mode="json", exclude={"config"}),
            **({} if sweep.config.recipe is None else {"recipe": sweep.config.recipe.content()}),
            CONFIG: config,
        }
        write_atomically(out / SWEEP, json.dumps(asked, indent=1))


def perform_all(jobs: Sequence[Job], engine: Engine, most_together: int) -> Iterator[Outcome]:
    """The outcome of each job: those finished before at once, those another process is at last.

    Args:
        jobs: All of the sweep.
        engine: What does them.
        most_together: Runs in a group that is trained together; 1 for one by one.

    Yields:
        The outcomes. What workers warn of is warned of here: the first of each kind at once, and at the end
        how many runs were like it but for the numbers.
    """
    heard: dict[str, list[HessalignWarning]] = {}
    left = []
    asked = [job for job in jobs if job.keep_checkpoint or job.save_predictions]
    _check_former([job for job in asked if is_finished(job.folder)])
    for job in jobs:
        if is_finished(job.folder):
            yield outcome_of_former(job)
        else:
            left.append(job)
    held: list[Job] = []
    while left or held:
        for outcome in engine.perform(arrange(left, most_together)):
            for warned in outcome.warned:
                alike = heard.setdefault(NUMBER.sub("#", str(warned)), [])
                alike.append(warned)
                if len(alike) == 1:
                    warnings.warn(warned, stacklevel=2)
            if outcome.status == "held":
                held.append(outcome.job)
            else:
                yield outcome
        left = [job for job in held if not is_held(job)]
        held = [job for job in held if job not in left]
        if held and not left:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    for alike in heard.values():
        if len(alike) > 1:
            words = f"{alike[0]} (the first of {len(alike)} such warnings, which differ at most in numbers)"
            warnings.warn(words, type(alike[0]), stacklevel=2)


def arrange(jobs: Sequence[Job], most_together: int) -> list[tuple[Job, ...]]:
    """Put jobs together whose runs can be trained together, and let these go first.

    They take a fraction of the time of the others, so that tables are there early.

    Args:
        jobs: Of one sweep.
        most_together: Runs in a group; 1 for one by one. What a kill loses grows with it, and memory.

    Returns:
        Groups, each in the order of the jobs and none empty: first those of runs that can be trained
        together, then those that must be trained alone, a group each; both ordered by their first jobs.
    """
    together: list[list[Job]] = []
    alone: list[list[Job]] = []
    open_groups: dict[Hashable, list[Job]] = {}
    for job in jobs:
        alike = can_train_together(job.spec) if most_together > 1 else None
        if alike is None:
            alone.append([job])
            continue
        key = (alike, job.source, job.machine, job.keep_checkpoint, job.save_predictions)
        group = open_groups.get(key)
        if group is None or len(group) == most_together:
            group = []
            together.append(group)
            open_groups[key] = group
        group.append(job)
    return [tuple(group) for group in (*together, *alone)]


def _check_former(finished: Sequence[Job]) -> None:
    """Tell of runs that were done before without what is to be kept of them."""
    lacking: dict[str, list[Job]] = {"keep_checkpoints": [], "save_predictions": []}
    for job in finished:
        with suppress(ValueError, OSError):  # of damaged records the outcomes tell
            records = read_records(job.folder)
            if divergence(records) is None:
                if job.keep_checkpoint and not (job.folder / CHECKPOINTS).is_dir():
                    lacking["keep_checkpoints"].append(job)
                if job.save_predictions and not have_predictions(records):
                    lacking["save_predictions"].append(job)
    for name, jobs in lacking.items():
        if jobs:
            runs = f"{counted(len(jobs), 'run')} of the sweep {'were' if len(jobs) > 1 else 'was'}"
            warnings.warn(
                f"{name}: {runs} done before without, and nothing is done again; for what is missing remove "
                f"their folders, such as {jobs[0].folder}, or choose another --out",
                NoEffectWarning,
                stacklevel=3,
            )


def _by_content(config: RunConfig) -> dict[str, Any]:
    """The config, a weights file told by its content."""
    values = config.model_dump(mode="json", exclude={"recipe"})  # which makes rows of its own
    if config.weights is not None and Path(config.weights).suffix in FILE_SUFFIXES:
        values["weights"] = f"sha256:{file_sha256(Path(config.weights))}"
    return values


def _compare(out: Path, config: dict[str, Any]) -> None:
    try:
        found = json.loads((out / SWEEP).read_bytes())[CONFIG]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"out: {out / SWEEP} is of another program or version; choose another folder")
    differing = [name for name in config if found.get(name) != config[name]]
    if differing:
        there, here = (
            ", ".join(f"{name} {values.get(name)!r}" for name in differing) for values in (found, config)
        )
        raise ValueError(f"out: the runs in {out} have {there}, not {here}; choose another folder")
