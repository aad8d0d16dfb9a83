"""What runs of one sweep share, and what sets some of them, or some forms of an algorithm, apart."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hessalign.benchmark.names import with_form
from hessalign.benchmark.run_folder import RunFolder

HASHES = ("data", "backbone.weights_sha256")
SHOWN_DIGITS = 12
"""Of a hash in a title: enough to tell two apart."""


def name_settings(runs: Sequence[RunFolder]) -> tuple[list[str], list[str]]:
    """Name each run's setting by the fields in which runs of one dataset differ.

    Runs of different datasets may differ in anything: each dataset has tables of its own. Where runs of one
    dataset differ in a field, every run's name tells its value, so that settings match across datasets.

    Args:
        runs: All runs.

    Returns:
        For each run its setting's name, ``""`` if nothing differs; and a note for the reader if it does.
    """
    # Thousands of runs have a handful of settings, so the work is done once for each of these.
    keys = [(run.dataset, run.program, json.dumps(run.setting)) for run in runs]
    distinct = dict(zip(keys, runs, strict=True))
    fields = _differing_fields(list(distinct.values()))
    names = {key: _name(run.setting, fields) for key, run in distinct.items()}
    notes = [f"Runs differ in {', '.join(fields)}; those that do share no table: each names its setting."]
    return [names[key] for key in keys], notes if fields else []


def name_algorithms(runs: Sequence[RunFolder]) -> tuple[list[str], list[str]]:
    """Name each run's algorithm, and its form where runs of one dataset and algorithm have several.

    Args:
        runs: All runs.

    Returns:
        For each run ``"hutchinson"`` say, or ``"hutchinson (variant domainbed)"``; and notes for the reader.
    """
    values: dict[tuple[str, str, str], set[str]] = {}
    for run in runs:
        for field, value in run.form.items():
            values.setdefault((run.dataset, run.algorithm, field), set()).add(value)
    differing: dict[str, set[str]] = {}
    for (_, algorithm, field), found in values.items():
        if len(found) > 1:
            differing.setdefault(algorithm, set()).add(field)
    names = [with_form(run.algorithm, _form(run, differing.get(run.algorithm, set()))) for run in runs]
    notes = [f"Runs of {name} have several forms; each has a row." for name in sorted(differing)]
    return names, notes


def describe_value(value: Any) -> str:
    """A field's value for a reader."""
    return value if isinstance(value, str) else json.dumps(value)


def _form(run: RunFolder, fields: set[str]) -> str:
    return ", ".join(f"{field} {run.form[field]}" for field in sorted(fields & set(run.form)))


def _differing_fields(runs: Sequence[RunFolder]) -> list[str]:
    """Fields with more than one value within one dataset and program; the program, if a dataset has two."""
    values: dict[tuple[str, str, str], set[str]] = {}
    programs: dict[str, set[str]] = {}
    for run in runs:
        programs.setdefault(run.dataset, set()).add(run.program)
        for field, value in run.setting.items():
            values.setdefault((run.dataset, run.program, field), set()).add(describe_value(value))
    program = ["program"] if any(len(found) > 1 for found in programs.values()) else []
    differing = [field for (_, _, field), found in values.items() if len(found) > 1]
    return list(dict.fromkeys(program + differing))


def _name(setting: Mapping[str, Any], fields: Sequence[str]) -> str:
    shown = {
        field: describe_value(setting[field])[: SHOWN_DIGITS if field in HASHES else None]
        for field in fields
        if field in setting
    }
    return ", ".join(f"{field} {value}" for field, value in shown.items())
