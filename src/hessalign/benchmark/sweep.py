"""A sweep in its folder: which runs are left, and the doing of them."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hessalign.backbones.weights import FILE_SUFFIXES, file_sha256
from hessalign.benchmark.arrangement import arrange
from hessalign.benchmark.engines.base import Engine
from hessalign.benchmark.job import Job, Outcome, is_held, outcome_of_former
from hessalign.benchmark.protocol import RunConfig, SweepSpec
from hessalign.files import write_atomically
from hessalign.runs import hold, is_finished

SWEEP, CONFIG = "sweep.json", "settings"
"""What was asked for, and the field of it that is the same for all runs."""
SECONDS_FOR_CLAIMS = 60.0
"""To wait for others that claim the folder at this moment, which takes each of them less than one."""
SECONDS_BETWEEN_LOOKS = 2.0


def claim_sweep(out: Path, sweep: SweepSpec, datasets: Sequence[str]) -> None:
    """Make a folder one of runs with this config, and note what was asked for.

    Another sweep may share the folder if only datasets, algorithms, trials, draws or target domains differ:
    what both ask for is done once. With another config its runs could not stand in one table.

    Raises:
        ValueError: If the folder's runs have another config.
        OSError: If it cannot be written.
    """
    config = _by_content(sweep.config)
    with hold(out, SECONDS_FOR_CLAIMS):
        if (out / SWEEP).exists():
            _compare(out, config)
        asked = {
            "datasets": list(datasets),
            **sweep.model_dump(mode="json", exclude={"config"}),
            CONFIG: config,
        }
        write_atomically(out / SWEEP, json.dumps(asked, indent=1))


def perform_all(jobs: Sequence[Job], engine: Engine, most_together: int) -> Iterator[Outcome]:
    """The outcome of each job: those finished before at once, those another process is at last.

    Args:
        jobs: All of the sweep.
        engine: What does them.
        most_together: See [arrange][hessalign.benchmark.arrangement.arrange].
    """
    left = []
    for job in jobs:
        if is_finished(job.folder):
            yield outcome_of_former(job)
        else:
            left.append(job)
    held: list[Job] = []
    while left or held:
        for outcome in engine.perform(arrange(left, most_together)):
            if outcome.status == "held":
                held.append(outcome.job)
            else:
                yield outcome
        left = [job for job in held if not is_held(job)]
        held = [job for job in held if job not in left]
        if held and not left:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _by_content(config: RunConfig) -> dict[str, Any]:
    """The config, a weights file told by its content."""
    values = config.model_dump(mode="json")
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
