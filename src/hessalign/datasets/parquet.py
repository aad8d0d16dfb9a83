"""Parquet files that hold a dataset: which files, which columns, labels and domains; read by Polars."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessalign.checks import require_path
from hessalign.datasets.registry import PARQUET
from hessalign.files import shown

Read = TypeVar("Read")

LABEL, DOMAIN = "label", "domain"
IMAGE_COLUMNS = ("image", "path")
VECTOR_COLUMNS = ("features", "embedding", "embeddings", "vector")
HUGGING_FACE = "huggingface"
"""Where ``datasets`` keeps, in a file, what integers mean."""


@dataclass(frozen=True)
class Names:
    """What the values of a column are called.

    Attributes:
        names: Each name once, in the order of ids.
        ids: Position in ``names`` of each row, ``(n,)``, int64.
    """

    names: tuple[str, ...]
    ids: NDArray[np.int64]


def rows_by_domain(classes: Names, domains: Names) -> Iterator[tuple[str, NDArray[np.int64], Tensor]]:
    """The rows of each domain that has any.

    Args:
        classes: Labels of all rows.
        domains: Domains of all rows.

    Yields:
        Name of the domain, its rows, and their class ids, ``(n,)``, int64.
    """
    for number, name in enumerate(domains.names):
        rows = np.flatnonzero(domains.ids == number)
        if len(rows):
            yield name, rows, torch.from_numpy(classes.ids[rows])


class ParquetTable:
    """One table in one or several Parquet files, of which columns are read when they are asked for.

    Args:
        path: A file, or a folder: then all files in it and below it that end in ``.parquet``, in the order of
            their sorted paths; hidden ones are ignored.

    Raises:
        ValueError: If there is no such file, a file is none, or files have different columns.

    Attributes:
        path: As given.
        files: The files.
        starts: Number of the first row of each file, and of all rows, ``len(files) + 1``.
        schema: Type of each column, by name.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = require_path("path", path)
        self.files = _files(self.path)
        schemas = [self._of_file(file, _schema) for file in self.files]
        self.schema = schemas[0]
        for file, schema in zip(self.files, schemas, strict=True):
            if schema != self.schema:
                raise ValueError(
                    f"path: {shown(file)} has other columns than {shown(self.files[0])} ({_told(schema)} "
                    f"where that has {_told(self.schema)}); the files of a dataset must have the same"
                )
        sizes = [self._of_file(file, _rows) for file in self.files]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        if not self.starts[-1]:
            raise ValueError(f"path: {shown(self.path)} has no row; allowed is one row for each sample")

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.starts[-1])

    def column(self, argument: str, given: str | None, known: Sequence[str]) -> str:
        """The column that holds something.

        Args:
            argument: What it is called in messages.
            given: Its name, where a person gave one.
            known: What it may be called where not; the first that there is counts.

        Returns:
            Its name.

        Raises:
            ValueError: If there is no such column.
        """
        allowed = known if given is None else (given,)
        for name in allowed:
            if name in self.schema:
                return name
        raise ValueError(
            f"{argument}: {shown(self.path)} lacks a column {' or '.join(map(repr, allowed))}; found are "
            f"{_told(self.schema)}; rename a column, or name it from Python"
        )

    def read(self, file: Path, column: str) -> polars.Series:
        """A column of one file.

        Returns:
            Its values.

        Raises:
            ValueError: If they cannot be read.
        """
        return self._of_file(file, lambda path: _scan(path).select(column).collect().to_series())

    def names(self, argument: str, column: str) -> Names:
        """A column of labels or domains: integers in the order of numbers, or strings in theirs.

        Integers that Hugging Face's ``datasets`` has names for have those, in their order.

        Args:
            argument: What it is called in messages.
            column: Its name.

        Returns:
            The names, and the id of each row.

        Raises:
            ValueError: If a row has none, or they are of another type.
        """
        values = polars.concat([self.read(file, column) for file in self.files])
        if isinstance(values.dtype, polars.Categorical | polars.Enum):
            values = values.cast(polars.String)
        if not values.dtype.is_integer() and values.dtype != polars.String:
            raise ValueError(
                f"{argument}: the column {column!r} of {shown(self.path)} must hold integers or strings, got "
                f"{values.dtype}"
            )
        if values.null_count():
            raise self.refused(int(values.is_null().arg_true()[0]), f"{argument}: no {column}")
        known = self._class_names(column) if values.dtype.is_integer() else None
        if known is not None:
            wrong = ((values < 0) | (values >= len(known))).arg_true()
            if len(wrong):
                row = int(wrong[0])
                raise self.refused(
                    row, f"{argument}: {column} {values[row]} is not among the {len(known)} names of the file"
                )
            return Names(known, values.cast(polars.Int64).to_numpy().copy())
        found = values.unique().sort()
        ids = values.replace_strict(found, np.arange(len(found)), return_dtype=polars.Int64)
        return Names(tuple(map(str, found.to_list())), ids.to_numpy().copy())

    def place(self, row: int) -> str:
        """File and row, for messages; rows of a file count from 0."""
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"{shown(self.files[file])}, row {row - int(self.starts[file])}"

    def refused(self, row: int, reason: str) -> ValueError:
        """What to raise of a row that must not be."""
        argument, _, rest = reason.partition(": ")
        return ValueError(f"{argument}: {self.place(row)} (from 0): {rest}")

    def _class_names(self, column: str) -> tuple[str, ...] | None:
        """Names of the integers of a column, where Hugging Face's ``datasets`` wrote the file."""
        found = {self._of_file(file, lambda path: _class_names(path, column)) for file in self.files}
        if len(found) > 1:
            raise ValueError(
                f"path: the files of {shown(self.path)} have different names for the values of {column!r}"
            )
        return found.pop()

    def _of_file(self, file: Path, read: Callable[[Path], Read]) -> Read:
        try:
            return read(file)
        except polars.exceptions.PolarsError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"path: {shown(file)} cannot be read as Parquet ({reason})") from None


def kind_of(path: Path) -> str:
    """Which dataset Parquet files are, by their columns.

    Returns:
        ``"parquet_features"`` where there are vectors and no images, else ``"parquet_images"``.

    Raises:
        ValueError: If they cannot be read.
    """
    schema = ParquetTable(path).schema
    has_images = any(name in schema for name in IMAGE_COLUMNS)
    return "parquet_images" if has_images or not _any_vector(schema) else "parquet_features"


def _any_vector(schema: polars.Schema) -> bool:
    return any(name in schema for name in VECTOR_COLUMNS)


def _files(path: Path) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    found = []
    for place, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(place, name) for name in names if name.lower().endswith(PARQUET) and not name.startswith(".")
        ]
    if not found:
        raise ValueError(
            f"path: {shown(path)} is no file, and no folder that holds one; allowed is a Parquet file, or a "
            f"folder with files that end in {PARQUET}"
        )
    return tuple(sorted(found))


def _scan(path: Path) -> polars.LazyFrame:
    return polars.scan_parquet(path, glob=False, hive_partitioning=False)


def _schema(path: Path) -> polars.Schema:
    return _scan(path).collect_schema()


def _rows(path: Path) -> int:
    return int(_scan(path).select(polars.len()).collect().item())


def _class_names(path: Path, column: str) -> tuple[str, ...] | None:
    with path.open("rb") as file:
        text = polars.read_parquet_metadata(file).get(HUGGING_FACE)
    try:
        feature = json.loads(text)["info"]["features"][column] if text else {}
        names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # of another version of that program; the integers then name themselves
    return tuple(map(str, names)) if names else None


def _told(schema: polars.Schema) -> str:
    return ", ".join(f"{name!r} ({dtype})" for name, dtype in schema.items())
