"""Tables on disk: a CSV file is text, whatever its order; Parquet has types of its own."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import polars as pl
from polars.exceptions import PolarsError

from hessalign.files import shown

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
TABLES = (".csv", ".parquet")
"""Endings of tables, in small letters."""


def csv_header(file: TextIO, wanted: Sequence[str] = ()) -> tuple[list[str], str]:
    """The names of a CSV file's columns, without blanks around them, and what separates them.

    Of the ``DELIMITERS`` it is the one that gives most of the wanted columns, in small or capital letters,
    and then most columns.

    Args:
        file: Open at any place; it is put to its start.
        wanted: Names in small letters.

    Returns:
        Names, none where the first line is empty, and the delimiter.

    Raises:
        csv.Error: If the first line is not CSV.
        UnicodeDecodeError: If it is not UTF-8.
    """
    headers: dict[str, list[str]] = {}
    for delimiter in DELIMITERS:
        file.seek(0)
        first = next(csv.reader(file, delimiter=delimiter), [])
        headers[delimiter] = [name.strip() for name in first]
    file.seek(0)

    def names_found(delimiter: str) -> tuple[int, int]:
        names = [name.lower() for name in headers[delimiter]]
        return sum(name in names for name in wanted), len(names)

    delimiter = max(DELIMITERS, key=names_found)
    return headers[delimiter], delimiter


def read_table(argument: str, path: Path, wanted: Sequence[str] = ()) -> pl.DataFrame:
    """A table; all values of a CSV file are text, or None where a cell is empty.

    Nothing is guessed from the values, so that a table is the same in any order of its rows.

    Args:
        argument: What messages begin with.
        path: A file ``.parquet``, or else CSV: UTF-8 with a header, and commas, semicolons or tabs.
        wanted: Names of columns, in small letters, by which the delimiter is told.

    Returns:
        The table. Empty lines of a CSV file are left out.

    Raises:
        ValueError: If it is no table: not text, without a header, with a name twice or a row that has
            more or fewer values than the header. The message names the first such line.
        OSError: If it cannot be read.
    """
    start = f"{argument}: {shown(path)}"
    try:
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            names, delimiter = csv_header(file, wanted)
        if not any(names):
            raise ValueError(f"{start} cannot be read as a table: its first line is empty")
        for name in names:
            if name and names.count(name) > 1:
                raise ValueError(f"{start} has the column {name!r} more than once; rename or remove one")
        if names.count("") > 1:
            raise ValueError(f"{start} has {names.count('')} columns without a name; name or remove them")
        table = _text(start, path, names, delimiter)
    except UnicodeDecodeError as error:
        raise ValueError(f"{start} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except (PolarsError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{start} cannot be read as a table ({reason})") from None
    table.columns = names
    if len(names) > 1:
        # Polars fills the end of a row that is too short.
        if table[:, -1].null_count():
            _refuse_ragged(start, path, names, delimiter)
        table = table.filter(~pl.all_horizontal(pl.all().is_null()))
    return table


def _text(start: str, path: Path, names: Sequence[str], delimiter: str) -> pl.DataFrame:
    try:
        return pl.read_csv(path, separator=delimiter, infer_schema=False)
    except PolarsError:
        # Reading it again tells the line, or that it is no UTF-8.
        _refuse_ragged(start, path, names, delimiter)
        raise


def _refuse_ragged(start: str, path: Path, names: Sequence[str], delimiter: str) -> None:
    """Raise for the first row of another length than the header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        for row in reader:
            if row and len(row) != len(names):
                raise ValueError(
                    f"{start}, line {reader.line_num}: {len(row)} values for {len(names)} columns; quote a "
                    "value that contains the separator, and write one for every column"
                )
