"""One run as it lies on disk, whichever program wrote it: what it was, and its records as text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from pydantic import BaseModel, ValidationError

DONE = "done"
ERROR = "error.json"


@dataclass(frozen=True)
class LineFormat:
    """How to read one program's records in bulk.

    Attributes:
        schema: The fields of a line that are read.
        accuracies: Expressions for ``(in, out)`` accuracy of each domain, in index order.
    """

    schema: Mapping[str, pl.DataType]
    accuracies: tuple[tuple[pl.Expr, pl.Expr], ...]


@dataclass(frozen=True)
class RunFolder:
    """A run with at least one record.

    Attributes:
        folder: Where it lies.
        program: What wrote it: ``"hessalign"`` or ``"DomainBed"``.
        dataset: Our name of the dataset.
        algorithm: Our name of the algorithm.
        target_domains: Indices of the domains that were not trained on.
        trial_seed: Which trial.
        hparams_seed: Which draw of the search.
        form: Hyper-parameters that are words, ``variant`` say: no search draws them, and runs of an algorithm
            with different ones share no row of a table.
        setting: Everything else that the result depends on; runs with different ones share no table.
        configuration: What the run was, whole, for those who want to repeat it.
        domain_names: In index order.
        line_format: Makes the format of the records for these domains; one function for each program.
        lines: The records: whole lines only.
        torn: Whether a last line without an end was left out.
        finished: Whether all of its steps were done before its records were read.
    """

    folder: Path
    program: str
    dataset: str
    algorithm: str
    target_domains: tuple[int, ...]
    trial_seed: int
    hparams_seed: int
    form: Mapping[str, str]
    setting: Mapping[str, Any]
    configuration: Mapping[str, Any]
    domain_names: tuple[str, ...]
    line_format: Callable[[tuple[str, ...]], LineFormat]
    lines: bytes
    torn: bool
    finished: bool


Read = TypeVar("Read", bound=BaseModel)


def read_as(model: type[Read], file: Path, line: bytes | None = None) -> Read:
    """A JSON file as a model.

    Args:
        model: What the file should be.
        file: To read, and to name in an error.
        line: The first line of the file, if it was read and only that is wanted.

    Raises:
        ValueError: If it is not one, naming the file and what is wrong.
    """
    try:
        return model.model_validate_json(file.read_bytes() if line is None else line)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        place = "" if line is None else ", line 1,"
        message = f"{where}: {problem['msg']}" if where else problem["msg"]
        raise ValueError(f"{file}{place} cannot be read: {message}") from error


def whole_lines(path: Path) -> tuple[bytes, bool]:
    """The lines of a file that have an end, and whether there was another one without."""
    text = path.read_bytes()
    end = text.rfind(b"\n") + 1
    return text[:end], end < len(text)


def first_line(lines: bytes) -> bytes:
    """The first of some lines."""
    return lines[: lines.find(b"\n")]
