"""One run as it lies on disk, whichever program wrote it: what it was, and its records as text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl


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
        finished: Whether it was done before its records were read: all steps, or those until it diverged.
        diverged: Why the run ended before its steps were done, in words; None where it did not diverge.
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
    diverged: str | None = None


def whole_lines(path: Path) -> tuple[bytes, bool]:
    """The lines of a file that have an end, and whether there was another one without."""
    text = path.read_bytes()
    end = text.rfind(b"\n") + 1
    return text[:end], end < len(text)


def first_line(lines: bytes) -> bytes:
    """The first of some lines."""
    return lines[: lines.find(b"\n")]


def last_line(lines: bytes) -> bytes:
    """The last of some lines that have an end."""
    return lines[lines[:-1].rfind(b"\n") + 1 : -1]
