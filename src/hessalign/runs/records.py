"""The metrics of a run as JSON lines, one for each evaluation: how they are written, read and checked."""

import json
import math
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hessalign.exceptions import NoEffectWarning
from hessalign.files import write_atomically
from hessalign.runs.layout import METRICS, is_finished, remove_predictions
from hessalign.runs.seals import read_lines

DIVERGED = "diverged"
"""Field of a record: why the run ended there, in words."""
SPLITS = ("in", "out")
"""Of each domain: the larger one, which source domains are trained on, and what is held out."""
METRICS_FIELD, UNDEFINED, PREDICTIONS_FIELD = "metrics", "undefined", "predictions"
"""Fields of a record: numbers beside the accuracies, by name, domain and split; why some are null; and the
SHA-256 of the file of the predictions that all of them are of, where it is kept."""
MEASURED: Mapping[str, bool] = {
    "balanced_accuracy": True,
    "macro_f1": True,
    "auroc": True,
    "log_loss": False,
    "ece": False,
    "worst_group_accuracy": True,
    "worst_group_log_loss": False,
    "worst_group_ece": False,
    "mean_group_accuracy": True,
    "mean_group_log_loss": False,
    "mean_group_ece": False,
}
"""The numbers of every domain, and whether the larger value is the better one. Groups are its classes."""
OF_SOURCES = ("training_mean_group_accuracy", "training_mean_group_log_loss", "training_mean_group_ece")
"""Those of source domains alone: each group weighs what it does in training."""


def append_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Add a line and bring it to disk; what is not finite becomes null."""
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(_as_line(record))
        file.flush()
        os.fsync(file.fileno())


def write_records(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace all lines at once."""
    write_atomically(folder / METRICS, "".join(map(_as_line, records)))


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that was torn by a kill is left out.

    Accuracies are from 0 to 1, or None where a split is empty or the run had diverged. A scalar that was not
    finite is None. Records from before there were ``metrics`` have none, nor does that of a run that had
    diverged.

    Args:
        folder: Of the run.

    Returns:
        A record for each line.

    Raises:
        ValueError: If a line is no record, naming file and line; or if a run that is finished, or has a
            checkpoint, wrote something else.
        OSError: If the file cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, read_records, train
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
        ...     records = read_records(place / "run")
        >>> [record["step"] for record in records]
        [0, 2, 3]
    """
    lines, _ = read_lines(folder)
    return [
        parse_record(line, folder / METRICS, number)
        for number, line in enumerate(lines.split(b"\n")[:-1], start=1)
    ]


def parse_record(
    line: bytes, path: Path, number: int, to_record: Callable[[Any], Any] = lambda content: content
) -> dict[str, Any]:
    """A line's record, checked; a scalar that was not finite is None.

    Args:
        line: Without its end.
        path: The file, to be named in an error.
        number: Of the line, from 1.
        to_record: Makes a record of what another program writes; by default the line's content is one.

    Returns:
        The record.

    Raises:
        ValueError: If it is none, naming file, line and what is wrong.
    """
    try:
        record = to_record(json.loads(line))
    except (ValueError, RecursionError):
        problem: str | None = "it is not JSON"
    else:
        problem = _problem(record)
    if problem is not None:
        raise ValueError(f"{path}, line {number}, is not the record of an evaluation: {problem}")
    cleaned: dict[str, Any] = _finite(record)  # records from before null was written hold Python's NaN
    return cleaned


def keep_records_before(folder: Path, step: int) -> None:
    """Drop what a killed run wrote after the checkpoint at which it resumes."""
    lines, torn = read_lines(folder)
    whole = lines.split(b"\n")[:-1]
    steps = [
        parse_record(line, folder / METRICS, number)["step"] for number, line in enumerate(whole, start=1)
    ]
    kept = [line + b"\n" for line, done in zip(whole, steps, strict=True) if done < step]
    if torn or len(kept) < len(whole):
        write_atomically(folder / METRICS, b"".join(kept))
    remove_predictions(folder, [done for done in steps if done < step])


def remove_unrecorded(folder: Path) -> None:
    """Remove predictions that no record tells of, as those of an evaluation at which the run had diverged."""
    records = read_records(folder)
    remove_predictions(folder, [record["step"] for record in records if PREDICTIONS_FIELD in record])


def keeps_predictions(folder: Path) -> bool:
    """Whether the run in a folder has kept predictions so far.

    Returns:
        False where no run was begun, and where the records are damaged, of which whoever goes on tells.
    """
    with suppress(ValueError, OSError):
        return have_predictions(read_records(folder))
    return False


def have_predictions(records: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the predictions of any of some evaluations were kept."""
    return any(PREDICTIONS_FIELD in record for record in records)


def check_predictions(folder: Path) -> None:
    """Tell of a run that was done before without keeping the predictions that are asked for now."""
    if is_finished(folder) and not have_predictions(read_records(folder)):
        warnings.warn(
            f"save_predictions: the run in {folder} was done before without, and nothing is done again; for "
            "its predictions do it in another folder",
            NoEffectWarning,
            stacklevel=3,
        )


def evaluated_steps(steps: int, every: int) -> list[int]:
    """The steps at which a run is evaluated: every so many, and the last."""
    return sorted({*range(0, steps, every), steps - 1})


def check_evaluations(asked: int | None, steps: int) -> None:
    """Tell where evaluations were asked for that begin only after the run's end.

    Args:
        asked: Steps between them; None for the dataset's.
        steps: Of the run.
    """
    if asked is not None and asked > steps:
        warnings.warn(
            f"evaluate_every: {asked} of {steps} steps, so there is an evaluation after the first and the "
            "last step, and no checkpoint between",
            NoEffectWarning,
            stacklevel=3,
        )


def divergence(records: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a run ended early, in words; None where it did not diverge."""
    return records[-1].get(DIVERGED) if records else None


def source_accuracy(record: Mapping[str, Any], target_domains: Collection[int]) -> float:
    """Mean accuracy on the held-out splits of the source domains, 0 to 1; NaN where one was not measured."""
    domains = record["accuracies"].values()  # in index order
    sources = [splits["out"] for index, splits in enumerate(domains) if index not in target_domains]
    if any(value is None for value in sources):
        return math.nan
    return float(sum(sources) / len(sources))


def _as_line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _problem(record: Any) -> str | None:
    if not isinstance(record, dict):
        return f"it must be an object, got {type(record).__name__}"
    step = record.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**63:
        return f"step must be a whole number of at least 0, got {step!r:.80}"
    for name, value in record.items():
        if name in ("accuracies", METRICS_FIELD, UNDEFINED):
            wrong = _wrong_accuracy(value) if name == "accuracies" else _wrong_metric(name, value)
            if wrong is not None:
                return wrong
        elif name in (DIVERGED, PREDICTIONS_FIELD):
            if not isinstance(value, str):
                return f"{name} must be text, got {value!r:.80}"
        elif not _is_number(value):
            return f"{name} must be a number, got {value!r:.80}"
    return None


def _wrong_accuracy(accuracies: Any) -> str | None:
    if not isinstance(accuracies, dict) or not accuracies:
        return f"accuracies must be given by domain, got {accuracies!r:.80}"
    for domain, splits in accuracies.items():
        if not isinstance(splits, dict) or splits.keys() != set(SPLITS):
            return f"accuracies of {domain!r} must be those of in and out, got {splits!r:.80}"
        for split, value in splits.items():
            if not _is_number(value) or not (_finite(value) is None or 0 <= value <= 1):
                return f"accuracies of {domain!r}, {split}, must be from 0 to 1, got {value!r:.80}"
    return None


def _wrong_metric(field: str, numbers: Any) -> str | None:
    """What is wrong with numbers, or with words on those that are null, by name, domain and split."""
    if not isinstance(numbers, dict):
        return f"{field} must be given by name, got {numbers!r:.80}"
    for name, domains in numbers.items():
        if not isinstance(domains, dict) or not all(isinstance(splits, dict) for splits in domains.values()):
            return f"{field} must be given by name, domain and split, got {domains!r:.80} of {name!r}"
        for domain, splits in domains.items():
            for split, value in splits.items():
                if not (isinstance(value, str) if field == UNDEFINED else _is_number(value)):
                    kind = "text" if field == UNDEFINED else "a number"
                    return f"{field} {name!r} of {domain!r}, {split}, must be {kind}, got {value!r:.80}"
    return None


def _is_number(value: Any) -> bool:
    if value is None or isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
