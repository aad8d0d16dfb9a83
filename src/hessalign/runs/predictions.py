"""What a run's network says of every evaluated sample, a Parquet file for each evaluation.

A record holds the SHA-256 of its file, and seals hold that of the records, so damage is seen when a file is
read.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.exceptions import PolarsError

from hessalign.files import write_atomically
from hessalign.runs.layout import is_started, predictions_path
from hessalign.runs.records import METRICS_FIELD, PREDICTIONS_FIELD, divergence, read_records
from hessalign.runs.seals import sha256

COLUMNS = ("domain", "split", "sample", "file", "target", "predicted", "logits")


class PredictionTable:
    """The predictions of one evaluation, while they come in.

    Args:
        domain_names: Of the dataset, in its order.
        class_names: By class id.
    """

    def __init__(self, domain_names: Sequence[str], class_names: Sequence[str]) -> None:
        self._domains = pl.Enum(domain_names)
        self._classes = pl.Series(class_names, dtype=pl.Enum(class_names))
        self._parts: list[pl.DataFrame] = []

    def add(
        self,
        domain: str,
        split: str,
        samples: NDArray[np.integer[Any]],
        targets: NDArray[np.integer[Any]],
        logits: NDArray[np.floating[Any]],
        files: Sequence[str | None],
    ) -> None:
        """Take in a split.

        Args:
            domain: Name of its domain.
            split: ``"in"`` or ``"out"``.
            samples: Place of each sample in its domain, ``(n,)``.
            targets: Class ids, ``(n,)``.
            logits: ``(n, C)``.
            files: Of each sample; None of one that has no file of its own.
        """
        self._parts.append(
            pl.DataFrame(
                {
                    "domain": pl.repeat(domain, len(samples), dtype=self._domains, eager=True),
                    "split": pl.repeat(split, len(samples), dtype=pl.String, eager=True),
                    "sample": pl.Series(samples.astype(np.int64)),
                    "file": pl.Series(files, dtype=pl.String),
                    "target": self._classes.gather(targets),
                    "predicted": self._classes.gather(logits.argmax(1)),
                    "logits": pl.Series(logits, dtype=_logits_type(logits)),
                }
            )
        )

    def write(self, folder: Path, step: int) -> str:
        """Write what came in, whole or not at all.

        Args:
            folder: Of the run.
            step: Of the evaluation.

        Returns:
            The file's SHA-256, in hexadecimal, for the record.

        Raises:
            OSError: If it cannot be written.
        """
        # Made in memory first: on a full disk Polars does not say what is wrong.
        file = BytesIO()
        pl.concat(self._parts).write_parquet(file)
        content, path = file.getvalue(), predictions_path(folder, step)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, content)
        return sha256(content)


def _logits_type(logits: NDArray[np.floating[Any]]) -> pl.Array:
    return pl.Array(pl.Float64 if logits.dtype == np.float64 else pl.Float32, logits.shape[1])


def read_predictions(folder: Path, step: int | None = None) -> pl.DataFrame:
    """What a run's network said of every sample that an evaluation looked at.

    The run was trained with ``--save-predictions``. Metrics are computed from the table by
    [evaluate][hessalign.metrics.evaluate].

    Args:
        folder: Of the run.
        step: Of an evaluation; None (default) for the last one.

    Returns:
        A row for each sample, domain by domain in the dataset's order: ``domain``; ``split``, ``"in"`` or
        ``"out"``; ``sample``, its place in the domain from 0; ``file``, null where samples have no files of
        their own; ``target`` and ``predicted``, whose categories are the classes in the order of their ids;
        and ``logits``, ``(C,)``.

    Raises:
        ValueError: If there is no such evaluation, it kept no predictions, or they are damaged.
        OSError: If a file cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.metrics import evaluate
        >>> from hessalign.training import Machine, RunSpec, read_predictions, train
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
        ...     record = train(spec, dataset, place / "run", Machine("cpu"), save_predictions=True)
        ...     table = read_predictions(place / "run")
        >>> table.columns
        ['domain', 'split', 'sample', 'file', 'target', 'predicted', 'logits']
        >>> target = table.filter(domain="2", split="in")
        >>> found = evaluate(target["target"].to_physical(), logits=target["logits"].to_numpy())
        >>> found.overall["accuracy"] == record["accuracies"]["2"]["in"]
        True
    """
    if not is_started(folder):
        raise ValueError(f"folder: there is no run in {folder}")
    records = read_records(folder)
    by_step = {record["step"]: record for record in records}
    if not by_step:
        raise ValueError(f"folder: the run in {folder} has no evaluation yet")
    if step is not None and step not in by_step:
        raise ValueError(f"step: the run in {folder} was evaluated at {_shown(list(by_step))}, got {step}")
    record = by_step[records[-1]["step"] if step is None else step]
    digest = record.get(PREDICTIONS_FIELD)
    if digest is None:
        raise ValueError(_why_none(folder, record, by_step))
    path = predictions_path(folder, record["step"])
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; remove {folder} to do the run again") from None
    if sha256(content) != digest:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is not what the run noted; remove {folder} to do the run again"
        )
    try:
        return pl.read_parquet(content)
    except PolarsError as error:  # written by a version of Polars that knows more
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from error


def _why_none(folder: Path, record: dict[str, Any], by_step: dict[int, dict[str, Any]]) -> str:
    problem = divergence([record])
    if problem is not None:
        return f"step: the run in {folder} had diverged at step {record['step']}: {problem}"
    kept = [step for step, each in by_step.items() if PREDICTIONS_FIELD in each]
    if kept:
        return f"step: the run in {folder} kept predictions of {_shown(kept)}, not of step {record['step']}"
    advice = "train it again with --save-predictions"
    if METRICS_FIELD in record:
        advice += "; the numbers that its record holds are in metrics.jsonl"
    return f"folder: the run in {folder} kept no predictions; {advice}"


def _shown(steps: list[int]) -> str:
    """Steps in words, a few of many."""
    if len(steps) <= 6:
        return f"step{'s' * (len(steps) > 1)} {', '.join(map(str, steps))}"
    return f"steps {', '.join(map(str, steps[:3]))} … {steps[-1]}"
