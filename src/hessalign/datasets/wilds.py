"""Datasets in the layout in which WILDS keeps them, read without its package."""

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import polars
import torch
from typing_extensions import override

from hessalign.datasets.image_files import Listing, PublishedImages
from hessalign.datasets.image_reading import CROP, RESIZE
from hessalign.files import shown


class WildsImages(PublishedImages):
    """Images that a table of metadata names, in the order of its rows, all of WILDS' splits together.

    Training images are resized and then cropped, as DomainBed does it.

    Args:
        root: Folder that holds the dataset's folder, or that folder itself.

    Raises:
        ValueError: If a table or an image that it names is missing, or a table holds what it must not.
        OSError: If a folder cannot be read.

    Attributes:
        tables: Names of the tables, the one of metadata first, and the columns that are read of each.
        images_in: Folder of the images.
    """

    geometry: ClassVar[Sequence[torch.nn.Module]] = (*RESIZE, *CROP)
    checkpoint_every: ClassVar[int] = 100
    tables: ClassVar[Mapping[str, Sequence[str]]]
    images_in: ClassVar[str]

    @classmethod
    @abstractmethod
    def list_images(cls, place: Path, tables: Sequence[polars.DataFrame]) -> Listing:
        """The images that tables name, whether they are there or not.

        Args:
            place: The dataset's folder.
            tables: In the order of ``tables``, all values as text.

        Returns:
            The images, by domain, and all classes.

        Raises:
            ValueError: If a row is wrong.
        """

    @override
    def list_files(self, root: Path) -> Listing:
        place = self.base(root)
        if not self.is_whole(place):
            raise ValueError(
                f"root: {shown(place)} lacks {self.contents()}; allowed is WILDS' folder {self.folder}, or "
                "one that holds it"
            )
        tables = [read_table(place / name, columns) for name, columns in self.tables.items()]
        listing = self.list_images(place, tables)
        for domain, files in listing.files.items():
            if not files:
                raise ValueError(
                    f"root: {shown(place / next(iter(self.tables)))} has no image of {domain}; {self.folder} "
                    f"has {', '.join(self.domain_names)}"
                )
        _require_there([path for files in listing.files.values() for path, _ in files], place)
        return listing

    @override
    @classmethod
    def contents(cls) -> str:
        return f"{', '.join(cls.tables)} and {cls.images_in}/"

    @override
    @classmethod
    def is_whole(cls, place: Path) -> bool:
        return (place / cls.images_in).is_dir() and all((place / name).is_file() for name in cls.tables)


def read_table(path: Path, columns: Sequence[str]) -> polars.DataFrame:
    """Columns of a CSV file, as text.

    Returns:
        The columns, in this order.

    Raises:
        ValueError: If it is no such table, or lacks a column.
    """
    try:
        table = polars.read_csv(path, infer_schema=False)
    except polars.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"root: {shown(path)} is no table ({reason}); get the archive anew") from None
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"root: {shown(path)} lacks the column {missing[0]}; allowed is WILDS' table with "
            f"{', '.join(columns)}"
        )
    return table.select(columns)


def refuse_row(path: Path, row: int, column: str, value: object, allowed: str) -> ValueError:
    """What to raise of a value that a table must not hold.

    Args:
        path: The table.
        row: Counted from 0, the header left out.
        column: Of the value.
        value: What is there; None for nothing.
        allowed: What may be there, in words.

    Returns:
        The error; its sentence counts lines as an editor does.
    """
    found = "nothing" if value is None else repr(value)
    return ValueError(
        f"root: {shown(path)}, line {row + 2}: {column} must be {allowed}, got {found}; get the archive anew"
    )


def _require_there(paths: Sequence[str], place: Path) -> None:
    """Refuse images that are not there; every folder is listed once, not every image asked for."""
    listed: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listed[folder]:
            missing.append(path)
    if missing:
        raise ValueError(
            f"root: {shown(place)} lacks {len(missing):,} of the {len(paths):,} images that its table names, "
            f"the first is {shown(missing[0])}; extract the archive anew"
        )
