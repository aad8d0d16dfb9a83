"""Any images, listed in a CSV file."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from hessalign.datasets.image_files import ImageFileDomains, Listing
from hessalign.datasets.image_reading import IMAGE_EXTENSIONS, is_image_name
from hessalign.datasets.registry import register
from hessalign.datasets.tables import DELIMITERS, csv_header
from hessalign.files import shown

COLUMNS = ("path", "label", "domain")


@register("csv_file", reference_name="CSVDomains")
class CSVDomains(ImageFileDomains):
    """Your own images, wherever they lie: one row for each, with the columns path, label and domain.

    Values are separated by commas, semicolons or tabs, as the header is; a value that holds one is quoted
    (``"``). The columns may be in any order and written in capitals, and others are ignored. Paths are
    absolute, or relative to the file's folder. Domains and classes are in the order of their sorted names,
    but labels that are all whole numbers in the order of the numbers. Images are in the order of the rows.
    Blanks around a value do not count.

    Args:
        path: The CSV file, UTF-8 with or without a byte order mark, with a header.

    Raises:
        ValueError: If the file is missing or no such table, or a row lacks a value, repeats the header or
            its image is missing; the message names the first such row.
        OSError: If it cannot be read.
    """

    def base(self, root: Path) -> Path:
        """The file's folder."""
        return root.parent

    def list_files(self, root: Path) -> Listing:
        """The images that the file names."""
        files: dict[str, list[tuple[str, str]]] = {}
        for path, label, domain in _rows(root):
            files.setdefault(domain, []).append((path, label))
        if not files:
            raise ValueError(
                f"path: {shown(root)} has no row; allowed is one row for each image below the header"
            )
        labels = {label for domain in files.values() for _, label in domain}
        # Numbers in one spelling each: "1" and "01" are two names.
        numbers = all(label.isascii() and label.isdecimal() for label in labels)
        class_names = sorted(labels, key=lambda label: (int(label), label)) if numbers else sorted(labels)
        return Listing(tuple(class_names), {domain: files[domain] for domain in sorted(files)})


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Image path, label and domain of each row."""
    if not path.is_file():
        raise ValueError(
            f"path: {shown(path)} is not a file; allowed is a CSV file with the columns {_columns()}"
        )
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, delimiter = _header(path, file)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            next(reader)
            places = {column: header.index(column) for column in COLUMNS}
            line = reader.line_num
            for row in reader:
                line = reader.line_num
                if row:
                    yield _checked(row, header, places, path, line)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"path: {shown(path)} is not UTF-8 text ({error.reason}); save it as UTF-8"
        ) from None
    except csv.Error as error:
        # The row after the last good one: an open quote is noticed only at the end of the file.
        raise ValueError(
            f"path: {shown(path)}, line {line + 1}: not CSV ({error}); correct the line"
        ) from None


def _header(path: Path, file: TextIO) -> tuple[list[str], str]:
    """The names of the columns, in small letters, and what separates them; the file is put back."""
    names, delimiter = csv_header(file, COLUMNS)
    # Where no delimiter gives all columns, the one that gives most of them tells what was found.
    header = _names(names)
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        found = f"found are {', '.join(map(repr, header))}" if any(header) else "its first line is empty"
        raise ValueError(
            f"path: {shown(path)} lacks the column {missing[0]}; allowed is a header with {_columns()} "
            f"between {', '.join(DELIMITERS.values())}; {found}"
        )
    twice = [column for column in COLUMNS if header.count(column) > 1]
    if twice:
        raise ValueError(
            f"path: {shown(path)} has the column {twice[0]} more than once; allowed is a header with each of "
            f"{_columns()} once"
        )
    return header, delimiter


def _names(header: list[str]) -> list[str]:
    return [name.strip().lower() for name in header]


def _checked(
    row: list[str], header: list[str], places: dict[str, int], path: Path, line: int
) -> tuple[str, str, str]:
    """The values of a row."""
    start = f"path: {shown(path)}, line {line}:"
    values = {column: row[place].strip() if place < len(row) else "" for column, place in places.items()}
    empty = [column for column in COLUMNS if not values[column]]
    if empty:
        raise ValueError(f"{start} no {empty[0]}; every row needs {_columns()}")
    if len(row) > len(header):
        raise ValueError(f"{start} more values than columns; quote a value that contains the separator")
    if _names(row) == header:
        raise ValueError(f"{start} the header is there again; remove the line")
    image = path.parent / values["path"]
    if not is_image_name(image.name):
        raise ValueError(
            f"{start} {values['path']!r} is no image; allowed are names ending in "
            f"{', '.join(IMAGE_EXTENSIONS)}"
        )
    if not os.path.isfile(image):  # which, unlike Path's, takes any text for an answer
        raise ValueError(
            f"{start} there is no file {shown(image)!r}; relative paths start at the CSV's folder"
        )
    return str(image), values["label"], values["domain"]


def _columns() -> str:
    return f"{', '.join(COLUMNS[:-1])} and {COLUMNS[-1]}"
