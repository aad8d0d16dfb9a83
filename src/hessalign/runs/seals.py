"""Seals: digests of what a run wrote, by which damage is seen when it is read.

A checkpoint has one of all its files and of the records so far; the file ``done`` is one of the finished run.
What was written before there were seals has none, and is read without.
"""

import hashlib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hessalign.checks import problem_in_words
from hessalign.files import write_atomically
from hessalign.runs.layout import CHECKPOINTS, DONE, METRICS, SPEC, latest_name

SEAL = "seal.json"
Read = TypeVar("Read", bound=BaseModel)


class Seal(BaseModel):
    """What was there when it was written; digests are SHA-256, in hexadecimal.

    Attributes:
        spec: Digest of ``spec.json``; empty where there was none.
        metrics: Digest of ``metrics.jsonl``, or of its beginning for a run that went on.
        metrics_bytes: Its length then.
        files: Digests of a checkpoint's files, by name.
        trained_together: Number of runs that were computed at once; 1 for a run alone.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    spec: str = ""
    metrics: str
    metrics_bytes: int = Field(ge=0)
    files: dict[str, str] = {}
    trained_together: int = 1


def seal(folder: Path, files: dict[str, str] | None = None, together: int | None = None) -> Seal:
    """A seal of a run's folder as it is now.

    Args:
        folder: Of the run.
        files: Digests of a checkpoint's files.
        together: Number of runs that were computed at once; None (default) for what was noted before, of a
            run that goes on.

    Returns:
        The seal, which is not written yet.
    """
    spec, metrics = (_read(folder / name) for name in (SPEC, METRICS))
    return Seal(
        spec="" if spec is None else sha256(spec),
        metrics=sha256(metrics or b""),
        metrics_bytes=len(metrics or b""),
        files=files or {},
        trained_together=company_of(folder) if together is None else together,
    )


def sha256(content: bytes) -> str:
    """Digest in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def finish(folder: Path, together: int | None = None) -> None:
    """Mark a run as done, and seal it.

    Args:
        folder: Of the run.
        together: As ``seal`` takes it.
    """
    write_atomically(folder / DONE, seal(folder, together=together).model_dump_json())


def company_of(folder: Path) -> int:
    """How many runs were computed at once with a run, itself included, as it noted; 1 for a run alone."""
    sealed = _latest_seal(folder)
    return 1 if sealed is None else sealed.trained_together


def reopen(folder: Path, checkpoint: Path, records: int) -> None:
    """Let a run go on from its checkpoint with another spec, as one that is lengthened.

    At every moment the folder is in order: the checkpoint's seal holds whether or not the spec is replaced,
    and whether or not later records are dropped, which whoever goes on does next.

    Args:
        folder: Of the run.
        checkpoint: Its latest.
        records: How many of the first records stay.

    Raises:
        ValueError: If the records are damaged.
        OSError: If a file cannot be written.
    """
    lines, _ = read_lines(folder)
    kept = b"".join(lines.splitlines(keepends=True)[:records])
    written, latest = read_seal(checkpoint / SEAL), _latest_seal(folder)
    if written is not None and latest is not None:
        changes = {
            "spec": "",
            "metrics": sha256(kept),
            "metrics_bytes": len(kept),
            "trained_together": latest.trained_together,
        }
        write_atomically(checkpoint / SEAL, written.model_copy(update=changes).model_dump_json(indent=1))
    (folder / DONE).unlink(missing_ok=True)


def read_lines(folder: Path) -> tuple[bytes, bool]:
    """The whole lines of a run's records, and whether there is a last one without an end.

    Args:
        folder: Of the run.

    Returns:
        As of ``whole_lines``.

    Raises:
        ValueError: If they are not what the run wrote, naming the file.
        OSError: If they cannot be read.
    """
    for _ in range(2):  # what is replaced between the two readings looks like damage once
        sealed = _latest_seal(folder)  # read first: records may be added meanwhile
        text = _read(folder / METRICS)
        if sealed is None or sha256(_sealed_part(folder, text, sealed)) == sealed.metrics:
            break
    else:
        problem = "missing" if text is None else "damaged: its SHA-256 is not what the run noted"
        raise ValueError(f"{folder / METRICS} is {problem}; remove {folder} to do the run again")
    return whole_lines(text or b"")


def whole_lines(text: bytes) -> tuple[bytes, bool]:
    """The lines that have an end, and whether there is a last one without."""
    end = text.rfind(b"\n") + 1
    return text[:end], end < len(text)


def check_spec(folder: Path) -> None:
    """Refuse a spec that is not what the run began with.

    Raises:
        ValueError: Naming the file.
    """
    sealed = _latest_seal(folder)
    if sealed is not None and sealed.spec and sha256((folder / SPEC).read_bytes()) != sealed.spec:
        raise ValueError(
            f"{folder / SPEC} is damaged: its SHA-256 is not what the run noted; remove {folder} to do the "
            "run again"
        )


def read_seal(path: Path) -> Seal | None:
    """A seal; None where there is none, as in folders from before there were any.

    Args:
        path: Of the file.

    Returns:
        What was noted.

    Raises:
        ValueError: If the file is no seal, naming it.
    """
    text = _read(path)
    return read_as(Seal, path, text) if text else None


def read_as(model: type[Read], file: Path, text: bytes | None = None, line: int | None = None) -> Read:
    """A JSON file, or a line of one, as a model.

    Args:
        model: What it should be.
        file: To read, and to name in an error.
        text: What to read instead, if it was read from the file before.
        line: Which line of the file the text is; None for all of it.

    Returns:
        The model.

    Raises:
        ValueError: If it is not one, naming the file and what is wrong.
        OSError: If it cannot be read.
    """
    try:
        return model.model_validate_json(file.read_bytes() if text is None else text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = "" if line is None else f", line {line},"
        raise ValueError(f"{file}{place} cannot be read: {problem_in_words(problem)}") from error


def _latest_seal(folder: Path) -> Seal | None:
    """Of the finished run, or else of its latest checkpoint."""
    if (folder / DONE).exists():
        return read_seal(folder / DONE)
    checkpoints = folder / CHECKPOINTS
    name = latest_name(checkpoints)
    # The checkpoint may be replaced at this moment; whoever needs it will say where it is missing.
    return None if name is None else read_seal(checkpoints / name / SEAL)


def _sealed_part(folder: Path, text: bytes | None, sealed: Seal) -> bytes:
    """Of the records, all of a finished run; a run has gone on after the seal of a checkpoint."""
    known = text or b""
    return known if (folder / DONE).exists() else known[: sealed.metrics_bytes]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
