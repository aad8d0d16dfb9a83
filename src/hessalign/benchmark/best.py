"""The configurations that the rules have chosen, so that others can run them again."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from hessalign.backbones.networks import DEFAULT_RANK
from hessalign.benchmark.readers import Records, Run
from hessalign.benchmark.selection import Rule

DATA = "DATA"
"""Stands in a command for where the data lies, which records do not tell."""

TOLD = {
    "dataset",
    "data",
    "algorithm",
    "target_domains",
    "backbone",
    "hparams",
    "hparams_seed",
    "seed",
    "trial_seed",
    "steps",
    "evaluate_every",
    "evaluation_samples",
}
"""Fields of a RunSpec that a command tells, or that do not change the result."""

DEFAULTS = {"holdout_fraction": 0.2, "validation_images": "plain"}
"""Of fields that ``hessalign train`` has no option for."""


class BestRun(BaseModel):
    """One choice: the run, and why it was chosen.

    Attributes:
        rule: How it was chosen.
        dataset: Its name.
        setting: What sets its table apart from others; ``""`` if nothing does.
        algorithm: Its name, with its variant where there are several.
        target: Name of the target domain.
        trial_seed: Which trial.
        hparams_seed: Which draw of hyper-parameters.
        step: Of the chosen checkpoint; a run of ``step + 1`` steps ends with it.
        validation: The accuracy that it was chosen by, in percent.
        test: The accuracy that it is reported with, in percent.
        folder: The run, below the folder that was read.
        program: What ran it: ``"hessalign"`` or ``"DomainBed"``.
        configuration: Of hessalign a RunSpec, of DomainBed its ``args`` and ``hparams``.
        command: Runs it again, with ``DATA`` where the data lies; None where ``hessalign train`` has no
            option for something that it needs, as for every run of DomainBed.
    """

    model_config = ConfigDict(frozen=True)

    rule: Rule
    dataset: str
    setting: str
    algorithm: str
    target: str
    trial_seed: int
    hparams_seed: int
    step: int
    validation: float
    test: float
    folder: str
    program: str
    configuration: dict[str, Any]
    command: str | None


class BestRuns(BaseModel):
    """What ``--export-best`` writes: all choices, by rule, dataset, setting, algorithm, target and trial."""

    model_config = ConfigDict(frozen=True)

    runs: tuple[BestRun, ...]


def best_runs(records: Records, rules: Sequence[Rule], folder: Path) -> BestRuns:
    """The choices of the rules.

    Args:
        records: Of the sweep.
        rules: Rules of selection.
        folder: That was read.

    Returns:
        A choice for each rule, dataset, setting, algorithm, target domain and trial.
    """
    chosen = [
        _best_run(records.runs[row["run"]], row, rule, folder)
        for rule in rules
        for row in records.choices(rule).iter_rows(named=True)
    ]
    return BestRuns(runs=tuple(chosen))


def _best_run(run: Run, choice: Mapping[str, Any], rule: Rule, folder: Path) -> BestRun:
    return BestRun(
        rule=rule,
        dataset=run.dataset,
        setting=choice["setting"],
        algorithm=choice["algorithm"],
        target=run.domain_names[choice["target"]],
        trial_seed=run.trial_seed,
        hparams_seed=run.hparams_seed,
        step=choice["step"],
        validation=100 * choice["validation"],
        test=100 * choice["test"],
        folder=str(run.folder.relative_to(folder)),
        program=run.program,
        configuration=dict(run.spec),
        command=rerun_command(run.spec) if run.program == "hessalign" else None,
    )


def rerun_command(spec: Mapping[str, Any]) -> str | None:
    """The ``hessalign train`` that gives the accuracies of a RunSpec again.

    Args:
        spec: The fields of the RunSpec.

    Returns:
        The command; None where it has no option for something.
    """
    if any(name not in TOLD and value not in (None, DEFAULTS.get(name)) for name, value in spec.items()):
        return None
    backbone = spec["backbone"]
    if backbone.get("rank") not in (None, DEFAULT_RANK):
        return None
    options = {
        "dataset": spec["dataset"],
        "root": DATA,
        "algorithm": spec["algorithm"],
        "target": ",".join(map(str, spec["target_domains"])),
        "backbone": backbone["name"],
        "weights": backbone["weights"],
        "steps": spec["steps"],
        "evaluate-every": spec["evaluate_every"],
        "evaluate-samples": spec.get("evaluation_samples"),
        "seed": spec["seed"],
        "trial-seed": spec["trial_seed"],
    }
    given = {name: value for name, value in options.items() if value is not None}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    if backbone["weights"] != "none" and not backbone["frozen_batch_norm"]:
        words.append("--train-batch-norm")
    if backbone.get("normalization") is not None:
        words += ["--normalization", backbone["normalization"]]
    words += [word for name, value in spec["hparams"].items() for word in ("--set", f"{name}={value}")]
    return shlex.join(["hessalign", "train", *words, "--out", f"runs/{spec['algorithm']}"])
