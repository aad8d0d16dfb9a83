"""Runs as they lie on disk, ours and those of DomainBed's own sweeps, read into one tidy frame.

A run folder becomes a ``Run``, whichever program wrote it; the records of thousands of runs are parsed at
once; and what sets runs apart is named, so that no table holds runs that cannot be compared. Reading works
while a sweep is being written.
"""

import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from polars.exceptions import PolarsError
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from hessalign.algorithms import registry as algorithms
from hessalign.benchmark.names import with_variant
from hessalign.benchmark.selection import Rule, select
from hessalign.checks import did_you_mean
from hessalign.datasets import registry as datasets
from hessalign.runs import (
    DONE,
    ERROR,
    MEASURED,
    METRICS,
    METRICS_FIELD,
    SPEC,
    SPLITS,
    UNDEFINED,
    check_spec,
    data_names_of,
    divergence,
    parse_record,
    read_as,
    read_lines,
    whole_lines,
)
from hessalign.runs.recipe import MeanOfRuns, Recipe

RESULTS = "results.jsonl"
"""The records of a run of DomainBed."""

RUN_KEY = ("dataset", "setting", "algorithm", "targets", "trial_seed", "hparams_seed")
"""All that the rules of selection know of a run."""
SIDES = ("inside", "outside")
"""Columns of the accuracies on the splits ``in`` and ``out``."""
METRICS_OF_TABLES = ("accuracy", *MEASURED)
"""What tables can report."""
WORST_GROUP = "worst_group_accuracy"
NAMED = 10
"""Runs that a note names; more are counted."""

HASHES = ("data", "backbone.weights_sha256")
SHOWN_DIGITS = 12
"""Of a hash in a title: enough to tell two apart."""

# Python's JSON has numbers that JSON has not. They become null here, and NaN in the frame.
_NOT_NUMBERS = re.compile(rb": (?:NaN|-?Infinity)(?=[,}])")


@dataclass(frozen=True)
class Run:
    """A run with at least one record.

    Attributes:
        folder: Where it lies.
        reader: Of the program that wrote it.
        dataset: Our name of the dataset.
        algorithm: Our name of the algorithm.
        target_domains: Indices of the domains that were not trained on.
        trial_seed: Which trial.
        hparams_seed: Which draw of the search.
        variant: Hyper-parameters that are words: no search draws them, and runs of an algorithm with
            different ones share no row of a table.
        config: Everything else that the result depends on; runs with different ones share no table.
        spec: What the run was, whole, for those who want to repeat it.
        domain_names: In index order.
        lines: The records: whole lines only.
        torn: Whether a last line without an end was left out.
        finished: Whether it was done before its records were read: all steps, or those until it diverged.
        diverged: Why the run ended before its steps were done, in words; None where it did not diverge.
    """

    folder: Path
    reader: "Reader"
    dataset: str
    algorithm: str
    target_domains: tuple[int, ...]
    trial_seed: int
    hparams_seed: int
    variant: Mapping[str, str]
    config: Mapping[str, Any]
    spec: Mapping[str, Any]
    domain_names: tuple[str, ...]
    lines: bytes
    torn: bool
    finished: bool
    diverged: str | None = None

    @property
    def program(self) -> str:
        """``"hessalign"`` or ``"DomainBed"``."""
        return self.reader.program

    def lacks(self, metric: str) -> bool:
        """Whether an evaluation has no value of a metric, and does not say why."""
        records = map(json.loads, self.lines.split(b"\n")[:-1])
        return any(
            metric not in record.get(METRICS_FIELD, ()) for record in records if divergence([record]) is None
        )

    def check(self) -> None:
        """Read each line on its own, which is slow.

        Raises:
            ValueError: If one is no record of an evaluation on the run's domains, naming file and line.
        """
        path = self.folder / self.reader.records_file
        for number, line in enumerate(self.lines.split(b"\n")[:-1], start=1):
            record = parse_record(
                line, path, number, lambda found: self.reader.to_record(found, self.domain_names)
            )
            if record.get("accuracies", {}).keys() != set(self.domain_names):
                raise ValueError(
                    f"{path}, line {number}, is not the record of an evaluation: accuracies must be those of "
                    f"{', '.join(self.domain_names)}, as in line 1"
                )


class Reader(ABC):
    """Reads the run folders of one program.

    Attributes:
        program: Its name.
        records_file: Name of the file of records in a run's folder.
        repeats: Whether a resumed run may have written a step twice, so that the last record of it counts.
    """

    program: ClassVar[str]
    records_file: ClassVar[str]
    repeats: ClassVar[bool]

    @abstractmethod
    def open(self, folder: Path, finished: bool) -> Run | None:
        """What a run's folder holds; None before the first record.

        Args:
            folder: Where it lies.
            finished: Whether the run was done before this call: then it has all its records.

        Raises:
            ValueError: If a file cannot be read as what it should be, naming it.
        """

    @abstractmethod
    def to_record(self, line: Any, domain_names: Sequence[str]) -> Any:
        """The content of a line in the form of our own records; what is no object stays what it is."""

    @abstractmethod
    def schema(self, domain_names: Sequence[str], metrics: Collection[str]) -> dict[str, pl.DataType]:
        """The fields of a line that are read in bulk, some metrics among them."""

    @abstractmethod
    def accuracies(self, domain_names: Sequence[str]) -> Iterator[tuple[pl.Expr, pl.Expr]]:
        """Expressions for the ``in`` and ``out`` accuracy of each domain, in index order."""

    @abstractmethod
    def metric(self, name: str, domain_names: Sequence[str]) -> Iterator[tuple[pl.Expr, pl.Expr]]:
        """The same of another metric that the schema was asked for; null where there is none."""


class _Spec(BaseModel):
    """The fields of a RunSpec that say which run of a sweep it is; all others make its config."""

    model_config = ConfigDict(extra="allow")

    dataset: str
    algorithm: str
    target_domains: tuple[int, ...]
    hparams: dict[str, Any]
    hparams_seed: int = 0
    seed: int = 0
    trial_seed: int = 0
    recipe: Recipe | None = None
    average: MeanOfRuns | None = None

    def row(self) -> str:
        """The algorithm as tables name it, with what was done beside its rule."""
        words = [] if self.recipe is None else self.recipe.words()
        return " + ".join([self.algorithm, *words, *([] if self.average is None else [self.average.words()])])

    def whole(self) -> dict[str, Any]:
        """All fields, as they are recorded."""
        content = self.model_dump(mode="json")
        return {
            name: value
            for name, value in content.items()
            if name in self.model_fields_set or value is not None
        }

    def config(self) -> dict[str, Any]:
        """Everything else, with the backbone's fields by name; its dropout is a hyper-parameter."""
        extra = dict(self.model_extra or {})
        backbone = dict(extra.pop("backbone", {}))
        if backbone.get("weights_sha256"):
            del backbone["weights"]  # where the file lies does not matter
        backbone = {f"backbone.{name}": value for name, value in backbone.items() if name != "dropout"}
        return {"program": "hessalign", **backbone, **extra}


class OwnReader(Reader):
    """Runs of ``hessalign train`` and ``hessalign sweep``: ``spec.json`` and ``metrics.jsonl``."""

    program = "hessalign"
    records_file = METRICS
    repeats = True

    @override
    def open(self, folder: Path, finished: bool) -> Run | None:
        lines, torn = read_lines(folder)
        spec = read_as(_Spec, folder / SPEC)
        check_spec(folder)
        if not lines:
            return None
        whole = lines.split(b"\n")[:-1]
        first = parse_record(whole[0], folder / METRICS, 1)
        last = parse_record(whole[-1], folder / METRICS, len(whole))
        return Run(
            folder=folder,
            reader=self,
            dataset=spec.dataset,
            algorithm=spec.row(),
            target_domains=spec.target_domains,
            trial_seed=spec.trial_seed,
            hparams_seed=spec.hparams_seed,
            variant={name: value for name, value in spec.hparams.items() if isinstance(value, str)},
            config=spec.config(),
            spec=spec.whole(),
            domain_names=tuple(first.get("accuracies", ())),
            lines=lines,
            torn=torn,
            finished=finished,
            diverged=divergence([last]),
        )

    @override
    def to_record(self, line: Any, domain_names: Sequence[str]) -> Any:
        return line

    @override
    def schema(self, domain_names: Sequence[str], metrics: Collection[str]) -> dict[str, pl.DataType]:
        """``{"step", ..., "accuracies": {name: {"in", "out"}}, "metrics": {metric: {name: ...}}}``."""
        pair = pl.Struct({"in": pl.Float64(), "out": pl.Float64()})
        domains = pl.Struct(dict.fromkeys(domain_names, pair))
        return {
            "step": pl.Int64(),
            "accuracies": domains,
            METRICS_FIELD: pl.Struct(dict.fromkeys(metrics, domains)),
        }

    @override
    def accuracies(self, domain_names: Sequence[str]) -> Iterator[tuple[pl.Expr, pl.Expr]]:
        return self._pairs(pl.col("accuracies"), domain_names)

    @override
    def metric(self, name: str, domain_names: Sequence[str]) -> Iterator[tuple[pl.Expr, pl.Expr]]:
        return self._pairs(pl.col(METRICS_FIELD).struct.field(name), domain_names)

    @staticmethod
    def _pairs(numbers: pl.Expr, domain_names: Sequence[str]) -> Iterator[tuple[pl.Expr, pl.Expr]]:
        # By place: Polars takes some names for patterns.
        places = [f"domain{index}" for index in range(len(domain_names))]
        domains = numbers.struct.rename_fields(places).struct
        for place in places:
            yield domains.field(place).struct.field("in"), domains.field(place).struct.field("out")


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="allow")

    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    trial_seed: int = 0
    hparams_seed: int = 0


class _Result(BaseModel):
    """A line of DomainBed's records."""

    model_config = ConfigDict(extra="allow")

    args: _Arguments
    hparams: dict[str, Any] = {}

    def domain_count(self) -> int:
        fields = self.model_extra or {}
        count = 0
        while f"env{count}_out_acc" in fields:
            count += 1
        return count

    def config(self) -> dict[str, Any]:
        arguments = self.args.model_extra or {}
        return {
            "program": "DomainBed",
            **{name: arguments[name] for name in DomainBedReader.CONFIG_ARGUMENTS if name in arguments},
            **{name: self.hparams[name] for name in DomainBedReader.CONFIG_HPARAMS if name in self.hparams},
        }


class DomainBedReader(Reader):
    """Runs of DomainBed's own sweep: one ``results.jsonl``, whose records say what the run was.

    Attributes:
        CONFIG_ARGUMENTS: Arguments of its trainer that are the same for all runs of one sweep; ``hparams``
            are hand-set ones.
        CONFIG_HPARAMS: Hyper-parameters that its search never draws: they are choices of network and data.
    """

    program = "DomainBed"
    records_file = RESULTS
    repeats = False  # its rules count every record

    CONFIG_ARGUMENTS = (
        "steps",
        "checkpoint_freq",
        "holdout_fraction",
        "uda_holdout_fraction",
        "task",
        "hparams",
    )
    CONFIG_HPARAMS = (
        "resnet18",
        "resnet50_augmix",
        "freeze_bn",
        "vit",
        "dinov2",
        "class_balanced",
        "nonlinear_classifier",
        "data_augmentation",
    )

    @override
    def open(self, folder: Path, finished: bool) -> Run | None:
        lines, torn = whole_lines((folder / RESULTS).read_bytes())
        if not lines:
            return None
        result = read_as(_Result, folder / RESULTS, lines[: lines.find(b"\n")], line=1)
        dataset = datasets.registered_name(result.args.dataset)
        return Run(
            folder=folder,
            reader=self,
            dataset=dataset,
            algorithm=algorithms.registered_name(result.args.algorithm),
            target_domains=result.args.test_envs,
            trial_seed=result.args.trial_seed,
            hparams_seed=result.args.hparams_seed,
            variant={},
            config=result.config(),
            spec={"args": result.args.model_dump(mode="json"), "hparams": result.hparams},
            domain_names=_domain_names(dataset, result.domain_count()),
            lines=lines,
            torn=torn,
            finished=finished,
        )

    @override
    def to_record(self, line: Any, domain_names: Sequence[str]) -> Any:
        if not isinstance(line, dict):
            return line
        accuracies = {
            name: {split: line[field] for split in SPLITS if (field := f"env{index}_{split}_acc") in line}
            for index, name in enumerate(domain_names)
        }
        return {"step": line.get("step"), "accuracies": accuracies}

    @override
    def schema(self, domain_names: Sequence[str], metrics: Collection[str]) -> dict[str, pl.DataType]:
        """``{"step", ..., "env0_in_acc", "env0_out_acc", ...}``, and no metrics."""
        fields = {
            f"env{index}_{split}_acc": pl.Float64() for index in range(len(domain_names)) for split in SPLITS
        }
        return {"step": pl.Int64(), **fields}

    @override
    def accuracies(self, domain_names: Sequence[str]) -> Iterator[tuple[pl.Expr, pl.Expr]]:
        for index in range(len(domain_names)):
            yield pl.col(f"env{index}_in_acc"), pl.col(f"env{index}_out_acc")

    @override
    def metric(self, name: str, domain_names: Sequence[str]) -> Iterator[tuple[pl.Expr, pl.Expr]]:
        for _ in domain_names:
            yield pl.lit(None, pl.Float64), pl.lit(None, pl.Float64)


@cache
def _domain_names(dataset: str, count: int) -> tuple[str, ...]:
    """The names that we know, where they fit; DomainBed's records only number its environments."""
    known = datasets.get_dataset(dataset).domain_names if dataset in datasets.BUILT_IN else ()
    return known if len(known) == count else tuple(f"env{index}" for index in range(count))


READERS = {SPEC: OwnReader(), RESULTS: DomainBedReader()}
"""By the file that makes a folder a run's; where there are both, ours counts."""


@dataclass(frozen=True, eq=False)
class Records:
    """What a sweep has recorded.

    Attributes:
        accuracies: A row for each domain of each record: ``dataset``, ``setting`` (what sets runs of one
            dataset apart, ``""`` if nothing does), ``algorithm`` (with its variant where it has several),
            ``targets``, ``trial_seed``, ``hparams_seed``, ``run`` (index into ``runs``), ``record``,
            ``step``, ``domain`` (index), ``inside`` and ``outside`` (accuracies on its two splits ``in`` and
            ``out``, 0 to 1; NaN where there is none), ``reported`` (the metric of tables on ``in``) and
            ``worst_outside`` (accuracy of the worst group on ``out``), likewise.
        runs: By index.
        settings: Name of each run's setting.
        notes: What a reader should know: what was left out, repeated or told apart.
        metric: What tables report.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.benchmark import read_sweep
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, train
        >>> y, site = np.arange(24) % 2, np.arange(24) // 8
        >>> X = (np.random.default_rng(0).normal(size=(24, 3)) + 3 * y[:, None]).astype("float32")
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("features", {"batch_size": 4})
        >>> spec = RunSpec(
        ...     dataset="features_file",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="identity"),
        ...     hparams=hparams.model_dump(),
        ...     steps=4,
        ...     evaluate_every=2,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder)
        ...     written = save_features(place / "sites.safetensors", X, y, site)
        ...     dataset = find_data(f"{folder}/sites.safetensors").open(seed=0)
        ...     record = train(spec, dataset, place / "run", Machine("cpu"))
        ...     records = read_sweep(place)
        >>> choices = records.choices("source-validation")
        >>> choices["algorithm"].to_list(), choices["target"].to_list(), choices["draws"].to_list()
        (['erm'], [2], [1])
    """

    accuracies: pl.DataFrame
    runs: tuple[Run, ...]
    settings: tuple[str, ...]
    notes: tuple[str, ...]
    metric: str = "accuracy"

    def choices(self, rule: Rule) -> pl.DataFrame:
        """What a rule ``selects``.

        Where it could choose only among runs that had diverged, or the metric is not defined, there is no
        choice.

        Args:
            rule: Name of a rule.

        Returns:
            A row for each choice.
        """
        if self.metric != "accuracy":
            return select(self.accuracies, rule).filter(~pl.col("test").is_nan())
        diverged = [index for index, run in enumerate(self.runs) if run.diverged is not None]
        return select(self.accuracies, rule).filter(
            ~(pl.col("run").is_in(diverged) & pl.col("test").is_nan())
        )

    def require(self, metric: str, who: str) -> None:
        """Refuse records that lack a metric.

        Args:
            metric: Its name.
            who: What needs it, after the name of the argument that asked for it.

        Raises:
            ValueError: Naming the runs that have none in their records.
        """
        lacking = [run for run in self.runs if run.lacks(metric)]
        if lacking:
            named = ", ".join(str(run.folder) for run in lacking[:NAMED])
            more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
            raise ValueError(
                f"{who} needs {metric}, which is not in the records of {len(lacking)} of {len(self.runs)} "
                f"runs, as of DomainBed and of former versions: {named}{more}"
            )

    def example(self, dataset: str, setting: str) -> Run:
        """A run of a dataset in a setting; all of them share their domains and their config."""
        keys = zip(self.runs, self.settings, strict=True)
        return next(run for run, name in keys if (run.dataset, name) == (dataset, setting))


def read_sweep(folder: Path, unfinished: bool = False, metric: str = "accuracy") -> Records:
    """Read every run below a folder: ours, and those of DomainBed's sweeps. Works while they are written.

    Args:
        folder: A sweep's folder, or any above run folders.
        unfinished: Whether runs that have not done all of their steps count.
        metric: What tables report, ``"accuracy"`` (default) or ``"worst_group_accuracy"`` say; hyphens may
            stand for underscores. It has no part in what the rules select.

    Returns:
        The records of all runs that count, and notes on those that do not.

    Raises:
        ValueError: If there is no run to read, a file is not what it should be, naming it, the metric is not
            known, or runs have not recorded it.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.benchmark import read_sweep
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, train
        >>> y, site = np.arange(24) % 2, np.arange(24) // 8
        >>> X = (np.random.default_rng(0).normal(size=(24, 3)) + 3 * y[:, None]).astype("float32")
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("features", {"batch_size": 4})
        >>> spec = RunSpec(
        ...     dataset="features_file",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="identity"),
        ...     hparams=hparams.model_dump(),
        ...     steps=4,
        ...     evaluate_every=2,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder)
        ...     written = save_features(place / "sites.safetensors", X, y, site)
        ...     dataset = find_data(f"{folder}/sites.safetensors").open(seed=0)
        ...     record = train(spec, dataset, place / "run", Machine("cpu"))
        ...     records = read_sweep(place)
        >>> len(records.runs), records.accuracies["step"].unique().sort().to_list()
        (1, [0, 2, 3])
    """
    metric = check_metric(metric)
    found = dict(_run_folders(folder))
    strays = [path for path, files in found.items() if _is_stray(files)]
    for path in strays:
        del found[path]
    if not found:
        raise ValueError(f"folder: {folder} holds no run; a run is a folder with {' or '.join(READERS)}")
    opened = [run for path, files in found.items() if (run := _open(path, files)) is not None]
    runs = [run for run in opened if run.finished or unfinished]
    left_out = [
        *(f"{path} holds the records of a run but no {SPEC}, and is left out." for path in strays[:NAMED]),
        *([f"So are {len(strays) - NAMED} more."] if len(strays) > NAMED else []),
        *_left_out(found, opened, unfinished),
    ]
    if not runs:
        raise ValueError(f"folder: {folder} holds no finished run yet. {' '.join(left_out)}")
    settings, told_apart = _name_settings(runs)
    accuracies, dropped = _parse(runs, metric)
    algorithms, variants = _name_algorithms(runs)
    table = pl.DataFrame(
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
    repeated = [f"Resumed runs repeated {dropped} records; the last of each step counts."] if dropped else []
    records = Records(
        accuracies=accuracies.join(table, on="run", how="left", maintain_order="left"),
        runs=tuple(runs),
        settings=tuple(settings),
        notes=(
            *left_out,
            *_diverged(folder, runs),
            *told_apart,
            *variants,
            *repeated,
            *_shared_draws(table),
            *_undefined(runs, metric),
        ),
        metric=metric,
    )
    if metric != "accuracy":
        records.require(metric, "metric: the table")
    return records


def check_metric(name: str) -> str:
    """The name of a metric of tables, with underscores.

    Returns:
        The name.

    Raises:
        ValueError: If there is none of that name.
    """
    chosen = name.replace("-", "_")
    if chosen not in METRICS_OF_TABLES:
        allowed = [known.replace("_", "-") for known in METRICS_OF_TABLES]
        raise ValueError(
            f"metric: {name!r} is not known; allowed are {', '.join(allowed)}{did_you_mean(name, allowed)}"
        )
    return chosen


def describe_value(value: Any) -> str:
    """A field's value for a reader."""
    return value if isinstance(value, str) else json.dumps(value)


def _run_folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Run folders and the names of their files, sorted by path; nothing below a run folder is looked at."""
    for path, subfolders, files in os.walk(folder):
        if READERS.keys() & set(files) or _is_stray(files):
            subfolders.clear()
            yield Path(path), files
        subfolders.sort()


def _is_stray(files: Collection[str]) -> bool:
    """Whether a folder is one of our runs that has lost its spec."""
    return {METRICS, DONE} <= set(files) and not READERS.keys() & set(files)


def _open(folder: Path, files: Collection[str]) -> Run | None:
    """The run of a folder, by the names of its files, listed before any of them is read."""
    reader = next(reader for name, reader in READERS.items() if name in files)
    run = reader.open(folder, finished=DONE in files)
    if run is None:
        return None
    domains = len(run.domain_names)
    if not domains:
        path = folder / reader.records_file
        raise ValueError(f"{path}, line 1, is not the record of an evaluation: it has no accuracies")
    for target in run.target_domains:
        if not 0 <= target < domains:
            raise ValueError(
                f"{folder}: target domain {target} is none of the {domains} domains of its records"
            )
    return run


def _parse(runs: Sequence[Run], metric: str) -> tuple[pl.DataFrame, int]:
    """Records of all runs.

    A record that has a later one of the same run and step was repeated by a resumed run and is dropped, where
    the program may do that.

    Args:
        runs: At least one.
        metric: That tables report.

    Returns:
        A row for each domain of each record, ``run`` (index), ``record``, ``step``, ``domain``, ``inside``,
        ``outside``, ``reported``, ``worst_outside``; and the number of records dropped.

    Raises:
        ValueError: If a line is no record, naming file and line.
    """

    def kind(index: int) -> tuple[str, tuple[str, ...]]:
        return runs[index].program, runs[index].domain_names

    frames: list[pl.DataFrame] = []
    first_record = dropped = 0
    for (_, domain_names), indices in groupby(sorted(range(len(runs)), key=kind), key=kind):
        chosen = list(indices)
        records = _parse_alike([runs[index] for index in chosen], chosen, metric)
        if runs[chosen[0]].reader.repeats:
            last = records.unique(["run", "step"], keep="last", maintain_order=True)
            dropped += records.height - last.height
            records = last
        records = records.with_row_index("record", first_record)
        first_record += records.height
        frames += [
            records.select(
                "run",
                "record",
                "step",
                pl.lit(domain, pl.Int64).alias("domain"),
                *(
                    pl.col(f"{side}{domain}").fill_null(float("nan")).alias(side)
                    for side in (*SIDES, "reported", "worst_outside")
                ),
            )
            for domain in range(len(domain_names))
        ]
    return pl.concat(frames), dropped


def _parse_alike(runs: Sequence[Run], indices: Sequence[int], metric: str) -> pl.DataFrame:
    """``run``, ``step`` and ``(inside0, outside0, inside1 ...)`` of runs whose lines look alike."""
    reader, domain_names = runs[0].reader, runs[0].domain_names
    text = b"".join(run.lines for run in runs)
    if b"NaN" in text or b"Infinity" in text:
        text = _NOT_NUMBERS.sub(b": null", text)
    counts = [run.lines.count(b"\n") for run in runs]
    try:
        lines = pl.read_ndjson(text, schema=reader.schema(domain_names, {metric, WORST_GROUP} - {"accuracy"}))
    except PolarsError as error:
        raise _bad_line(runs) from error
    if lines.height != sum(counts):
        raise _bad_line(runs)
    owner = pl.Series("run", indices, dtype=pl.UInt32).repeat_by(pl.Series(counts, dtype=pl.UInt32)).explode()
    accuracies = {
        f"{side}{domain}": expression
        for domain, pair in enumerate(reader.accuracies(domain_names))
        for side, expression in zip(SIDES, pair, strict=True)
    }
    reported = reader.accuracies if metric == "accuracy" else partial(reader.metric, metric)
    metrics = {
        **{f"reported{domain}": inside for domain, (inside, _) in enumerate(reported(domain_names))},
        **{
            f"worst_outside{domain}": outside
            for domain, (_, outside) in enumerate(reader.metric(WORST_GROUP, domain_names))
        },
    }
    records = lines.select(owner, "step", **accuracies, **metrics)
    # What is null may be missing, so each such line is read on its own.
    good = pl.all_horizontal(pl.col("step") >= 0, *(pl.col(name).is_between(0, 1) for name in accuracies))
    doubtful = set(records.filter(~good.fill_null(False))["run"])
    for index, run in zip(indices, runs, strict=True):
        if index in doubtful:
            run.check()
    return records


def _bad_line(runs: Iterable[Run]) -> ValueError:
    """Why the records could not be read at once."""
    for run in runs:
        try:
            run.check()
        except ValueError as error:
            return error
    return ValueError("folder: records hold something that is not a record")


def _left_out(found: Mapping[Path, Collection[str]], opened: Sequence[Run], unfinished: bool) -> list[str]:
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


def _diverged(folder: Path, runs: Sequence[Run]) -> list[str]:
    """A note that names the runs that diverged."""
    diverged = [run for run in runs if run.diverged is not None]
    if not diverged:
        return []
    named = "; ".join(
        f"{run.algorithm} on {run.dataset}, target {','.join(map(str, run.target_domains))}, trial "
        f"{run.trial_seed}, draw {run.hparams_seed}: {run.diverged} ({run.folder.relative_to(folder)})"
        for run in diverged[:NAMED]
    )
    more = f"; and {len(diverged) - NAMED} more" if len(diverged) > NAMED else ""
    return [
        f"{len(diverged)} of {len(runs)} runs diverged; their evaluations before that count, and where a "
        f"rule takes the last step they come last. They are {named}{more}."
    ]


def _undefined(runs: Sequence[Run], metric: str) -> list[str]:
    """Notes on target domains for which the metric is not defined; no figure rests on them."""
    found: dict[tuple[str, str, str], None] = {}
    for run in runs if metric != "accuracy" else ():
        last = json.loads(run.lines.rstrip(b"\n").rpartition(b"\n")[2])
        reasons = last.get(UNDEFINED, {}).get(metric, {})
        for target in run.target_domains:
            name = run.domain_names[target]
            if SPLITS[0] in reasons.get(name, {}):
                found[run.dataset, name, reasons[name][SPLITS[0]]] = None
    return [f"{metric} is not defined on {name} of {dataset}: {why}." for dataset, name, why in found]


def _shared_draws(table: pl.DataFrame) -> list[str]:
    """A note if two runs cannot be told apart by what the rules know of them."""
    shared = table.filter(pl.len().over(RUN_KEY) > 1)
    if shared.is_empty():
        return []
    return [
        f"{shared.height} runs share dataset, algorithm, targets, trial and draw with another run (they "
        "differ in seed or in hyper-parameters set by hand); the rules take such runs for one."
    ]


def _name_settings(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Name each run's setting by the fields of the config in which runs of one dataset differ.

    Runs of different datasets may differ in anything: each dataset has tables of its own. Where runs of one
    dataset differ in a field, every run's name tells its value, so that settings match across datasets.

    Args:
        runs: All runs.

    Returns:
        For each run its setting's name, ``""`` if nothing differs; and a note for the reader if it does.
    """
    # Thousands of runs have a handful of configs, so the work is done once for each of these.
    keys = [(run.dataset, run.program, json.dumps(run.config)) for run in runs]
    distinct = dict(zip(keys, runs, strict=True))
    fields = _differing_fields(list(distinct.values()))
    data = _data_names(runs) if "data" in fields else {}
    names = {key: _setting(run.config, fields, data) for key, run in distinct.items()}
    notes = [f"Runs differ in {', '.join(fields)}; those that do share no table: each names its setting."]
    return [names[key] for key in keys], notes if fields else []


def _differing_fields(runs: Sequence[Run]) -> list[str]:
    """Fields with more than one value within one dataset and program; the program, if a dataset has two."""
    programs = _differing(((run.dataset, "program"), run.program) for run in runs)
    fields = _differing(
        ((run.dataset, run.program, field), describe_value(value))
        for run in runs
        for field, value in run.config.items()
    )
    return list(dict.fromkeys(field for *_, field in (*programs, *fields)))


def _differing(values: Iterable[tuple[tuple[str, ...], str]]) -> list[tuple[str, ...]]:
    """The keys that have more than one value, in the order in which they come first."""
    known: dict[tuple[str, ...], set[str]] = {}
    for key, value in values:
        known.setdefault(key, set()).add(value)
    return [key for key, found in known.items() if len(found) > 1]


def _data_names(runs: Sequence[Run]) -> dict[str, str]:
    """What data of one's own are called, by fingerprint, as their sweeps noted it."""
    sweeps = {run.folder.parent.parent for run in runs}
    noted = {data: name for sweep in sorted(sweeps) for data, name in data_names_of(sweep).items()}
    shared = {name for name, count in Counter(noted.values()).items() if count > 1}
    return {data: f"{name} {data[:SHOWN_DIGITS]}" if name in shared else name for data, name in noted.items()}


def _setting(config: Mapping[str, Any], fields: Sequence[str], data_names: Mapping[str, str]) -> str:
    shown = {
        field: describe_value(config[field])[: SHOWN_DIGITS if field in HASHES else None]
        for field in fields
        if field in config
    }
    if "data" in shown:
        shown["data"] = data_names.get(config["data"], shown["data"])
    return ", ".join(f"{field} {value}" for field, value in shown.items())


def _name_algorithms(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Name each run's algorithm, and its variant where runs of one dataset and algorithm have several.

    Args:
        runs: All runs.

    Returns:
        For each run ``"hutchinson"`` say, or ``"hutchinson (variant domainbed)"``; and notes for the reader.
    """
    differing: dict[str, set[str]] = {}
    for _, algorithm, field in _differing(
        ((run.dataset, run.algorithm, field), value) for run in runs for field, value in run.variant.items()
    ):
        differing.setdefault(algorithm, set()).add(field)

    def variant(run: Run) -> str:
        fields = sorted(differing.get(run.algorithm, set()) & set(run.variant))
        return ", ".join(f"{field} {run.variant[field]}" for field in fields)

    names = [with_variant(run.algorithm, variant(run)) for run in runs]
    notes = [f"Runs of {name} have several variants; each has a row." for name in sorted(differing)]
    return names, notes
