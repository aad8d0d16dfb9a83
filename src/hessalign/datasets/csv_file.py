"""Any images, listed in a CSV file."""

import csv
from collections.abc import Iterator
from pathlib import Path

from hessalign.datasets.image_files import IMAGE_EXTENSIONS, ImageFileDomains, Listing, is_image_name
from hessalign.datasets.registry import register

COLUMNS = ("path", "label", "domain")


@register("csv_file", reference_name="CSVDomains")
class CSVDomains(ImageFileDomains):
    """Your own images, wherever they lie: one row for each, with the columns path, label and domain.

    Paths are relative to the file's folder. More columns are ignored. Domains and classes are in the order of
    their sorted names, but labels that are all whole numbers in the order of the numbers. Images are in the
    order of the rows.

    Args:
        path: The CSV file, UTF-8, with a header.

    Raises:
        ValueError: If the file is missing or no such table, or a row lacks a value or its image is missing;
            the message names the first such row.
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
            raise ValueError(f"path: {root} has no row; allowed is one row for each image below the header")
        labels = {label for domain in files.values() for _, label in domain}
        numbers = all(label.isdecimal() for label in labels)
        class_names = sorted(labels, key=int) if numbers else sorted(labels)
        return Listing(tuple(class_names), {domain: files[domain] for domain in sorted(files)})


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Image path, label and domain of each row."""
    if not path.is_file():
        raise ValueError(f"path: {path} is not a file; allowed is a CSV file with the columns {_columns()}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(
                    f"path: {path} lacks the column {missing[0]}; allowed is a header with {_columns()}"
                )
            for row in reader:
                yield _checked(row, path, reader.line_num)
    except UnicodeDecodeError as error:
        raise ValueError(f"path: {path} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        # The row after the last good one: an open quote is noticed only at the end of the file.
        line = reader.line_num + 1
        raise ValueError(f"path: {path}, line {line}: not CSV ({error}); correct the line") from None


def _checked(row: dict[str, str | None], path: Path, line: int) -> tuple[str, str, str]:
    """The values of a row; None where it is too short, under the key None what is too much."""
    values = {column: (row[column] or "").strip() for column in COLUMNS}
    empty = [column for column in COLUMNS if not values[column]]
    if empty:
        raise ValueError(f"path: {path}, line {line}: no {empty[0]}; every row needs {_columns()}")
    if None in row:
        raise ValueError(
            f"path: {path}, line {line}: more values than columns; quote a value that contains a comma"
        )
    image = path.parent / values["path"]
    if not is_image_name(image.name):
        raise ValueError(
            f"path: {path}, line {line}: {values['path']} is no image; "
            f"allowed are names ending in {', '.join(IMAGE_EXTENSIONS)}"
        )
    if not image.is_file():
        raise ValueError(
            f"path: {path}, line {line}: there is no file {image}; paths are relative to the CSV's folder"
        )
    return str(image), values["label"], values["domain"]


def _columns() -> str:
    return f"{', '.join(COLUMNS[:-1])} and {COLUMNS[-1]}"
