"""The configurations that the rules have chosen, which ``hessalign train --spec`` runs again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from hessalign.benchmark.readers import Records, Run
from hessalign.benchmark.selection import Rule


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
        metric: What it is reported with.
        test: Its value, times 100.
        folder: The run, below the folder that was read.
        program: What ran it: ``"hessalign"`` or ``"DomainBed"``.
        configuration: Of hessalign a RunSpec, of DomainBed its ``args`` and ``hparams``.
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
    metric: str = "accuracy"
    test: float
    folder: str
    program: str
    configuration: dict[str, Any]


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
        _best_run(records.runs[row["run"]], row, rule, records.metric, folder)
        for rule in rules
        for row in records.choices(rule).iter_rows(named=True)
    ]
    return BestRuns(runs=tuple(chosen))


def _best_run(run: Run, choice: Mapping[str, Any], rule: Rule, metric: str, folder: Path) -> BestRun:
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
        metric=metric,
        test=100 * choice["test"],
        folder=str(run.folder.relative_to(folder)),
        program=run.program,
        configuration=dict(run.spec),
    )
