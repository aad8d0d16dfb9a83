"""Any images, in Parquet files."""

import hashlib
import os
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typing_extensions import override

from hessalign.datasets.base import Domain, DomainDataset, SearchSpace, require_root
from hessalign.datasets.image_files import ImageFiles
from hessalign.datasets.image_reading import (
    IMAGE_EXTENSIONS,
    IMAGE_SIZE,
    Transform,
    decode_image,
    is_image_name,
    plain_transform,
    read_image,
    training_transform,
)
from hessalign.datasets.parquet import DOMAIN, IMAGE_COLUMNS, LABEL, ParquetTable, rows_by_domain
from hessalign.datasets.registry import register
from hessalign.files import shown

SLICE = 256
"""Rows whose images are Python objects at one time."""


@register("parquet_images", reference_name="ParquetImages")
class ParquetImages(DomainDataset):
    """Your own images, or published ones, in Parquet files: one row for each, with image, label and domain.

    An image is the bytes of an image file, the path of one, or both in a struct (``bytes``, ``path``), as
    Hugging Face's ``datasets`` writes them; its names of classes are read, too. Bytes are held in memory,
    encoded as they are. Relative paths start at the Parquet file's folder and do not leave it. Domains and
    classes are in the order of their sorted names, integers in the order of numbers. Images are in the order
    of the rows; other columns are ignored.

    Args:
        path: A Parquet file, or a folder with several, which are read in the order of their names.
        image: Column of the images; None (default) for ``image``, or else ``path``.
        label: Column of the labels, integers or strings.
        domain: Column of the domains, integers or strings.

    Raises:
        ValueError: If a file or a column is missing, or a row lacks a value or names an image that is not
            there; the message names the first such row.
        OSError: If a file cannot be read.
    """

    search_space: ClassVar[SearchSpace] = "large"
    input_shape: tuple[int, ...] = (3, IMAGE_SIZE, IMAGE_SIZE)
    checkpoint_every: ClassVar[int] = 300

    def __init__(
        self, path: Path | str, image: str | None = None, label: str = LABEL, domain: str = DOMAIN
    ) -> None:
        table = ParquetTable(path)
        image = table.column("image", image, IMAGE_COLUMNS)
        classes = table.names("label", table.column("label", label, (LABEL,)))
        domains = table.names("domain", table.column("domain", domain, (DOMAIN,)))
        images = _EncodedImages(table, image)
        plain, augmented = plain_transform(), training_transform()
        made = []
        for name, rows, targets in rows_by_domain(classes, domains):
            samples = (_Images(images, rows, targets, transform) for transform in (plain, augmented))
            made.append(Domain(name, targets, *samples))
        super().__init__(classes.names, tuple(made))
        digest = hashlib.sha256(repr((classes.names, domains.names)).encode())
        for ids in (classes.ids, domains.ids):
            digest.update(ids.tobytes())
        digest.update(images.digest)
        self._fingerprint = digest.hexdigest()[:12]

    @property
    def fingerprint(self) -> str:
        """Short hash of the names of domains and classes, and of the images' bytes or paths."""
        return self._fingerprint

    @override
    @classmethod
    def make(cls, root: Path | None, seed: int) -> Self:
        return cls(require_root(cls.name, root, "the path of the file or folder"))


class _EncodedImages:
    """The images of a table as they are in it: bytes, of all rows in one tensor, or paths.

    Tensors, since Polars' own memory must not be used in a process that was forked.

    Args:
        table: The table.
        column: Of the images.

    Attributes:
        digest: Hash of all bytes and paths.
    """

    def __init__(self, table: ParquetTable, column: str) -> None:
        self._table = table
        self._paths: dict[int, str] = {}
        contents, sizes = [], []
        digest = hashlib.sha256()
        for file, start in zip(table.files, table.starts, strict=False):
            content, paths = self._read(file, column)
            for row, given in paths.items():
                self._paths[int(start) + row] = self._checked(int(start) + row, given, file)
                digest.update(repr((int(start) + row, given)).encode())
            size = content.bin.size().fill_null(0).to_numpy()
            buffer = np.empty(int(size.sum()), np.uint8)
            end = 0
            for part in range(0, len(content), SLICE):
                joined = b"".join(value or b"" for value in content.slice(part, SLICE).to_list())
                buffer[end : end + len(joined)] = np.frombuffer(joined, np.uint8)
                end += len(joined)
            digest.update(buffer.data)
            contents.append(torch.from_numpy(buffer))
            sizes.append(size)
        whole = contents[0] if len(contents) == 1 else torch.cat(contents)
        ends = np.concatenate(([0], *sizes), dtype=np.int64).cumsum()
        digest.update(ends.tobytes())
        self._content, self._ends = whole, torch.from_numpy(ends)
        self.digest = digest.digest()

    def image(self, row: int) -> Image.Image:
        """The decoded image of a row.

        Returns:
            An image of mode RGB.

        Raises:
            OSError: If it cannot be read; the message names it.
        """
        path = self._paths.get(row)
        return decode_image(self.content(row), self.name(row)) if path is None else read_image(path)

    def path(self, row: int) -> str | None:
        """The file of a row's image; None where the row holds its bytes."""
        return self._paths.get(row)

    def content(self, row: int) -> bytes:
        """The bytes of a row's image."""
        start, end = self._ends[row : row + 2].tolist()
        return bytes(self._content[start:end].numpy())

    def name(self, row: int) -> str:
        """What messages call the image of a row: its file, or where it stands."""
        return self._paths.get(row) or self._table.place(row)

    def _read(self, file: Path, column: str) -> tuple[polars.Series, dict[int, str]]:
        """Bytes of each row, null where it has a path, and the paths by row."""
        values = self._table.read(file, column)
        kind = values.dtype
        if kind == polars.Binary:
            content, named = values, polars.repeat(None, len(values), dtype=polars.String, eager=True)
        elif kind == polars.String:
            content, named = polars.repeat(None, len(values), dtype=polars.Binary, eager=True), values
        elif isinstance(kind, polars.Struct) and _fields(kind) >= {("bytes", polars.Binary)}:
            content = values.struct.field("bytes")
            fields = dict(_fields(kind))
            named = (
                values.struct.field("path")
                if fields.get("path") == polars.String
                else polars.repeat(None, len(values), dtype=polars.String, eager=True)
            )
        else:
            raise ValueError(
                f"image: the column {column!r} of {shown(file)} must hold bytes, paths, or a struct of bytes "
                f"and path, got {kind}"
            )
        start = self._table.starts[self._table.files.index(file)]
        if len(nothing := (content.is_null() & named.is_null()).arg_true()):
            raise self._table.refused(int(start) + int(nothing[0]), f"image: no {column}")
        if len(empty := (content.bin.size() == 0).arg_true()):
            raise self._table.refused(int(start) + int(empty[0]), "image: it has 0 bytes")
        rows = content.is_null().arg_true()
        return content, dict(zip(rows.to_list(), named.gather(rows).to_list(), strict=True))

    def _checked(self, row: int, given: str, file: Path) -> str:
        """The path of an image, from what a row says."""
        folder = os.path.abspath(file.parent)
        path = os.path.normpath(os.path.join(folder, given))
        if not os.path.isabs(given) and not path.startswith(os.path.join(folder, "")):
            reason = "leads out of the file's folder; allowed are paths below it, and absolute ones"
        elif not is_image_name(os.path.basename(path)):
            reason = f"is no image; allowed are names ending in {', '.join(IMAGE_EXTENSIONS)}"
        elif not os.path.isfile(path):
            reason = "is not there; relative paths start at the Parquet file's folder"
        else:
            return path
        raise self._table.refused(row, f"image: {given!r} {reason}")


def _fields(kind: polars.Struct) -> set[tuple[str, Any]]:
    return {(field.name, field.dtype) for field in kind.fields}


class _Images(ImageFiles):
    """Some rows' images, decoded when they are asked for.

    Args:
        images: All images.
        rows: Which of them, ``(n,)``.
        targets: Class ids, ``(n,)``, int64.
        transform: Makes an input of an RGB image.
    """

    def __init__(
        self, images: _EncodedImages, rows: NDArray[np.int64], targets: Tensor, transform: Transform
    ) -> None:
        super().__init__([images.name(row) for row in rows.tolist()], targets, transform)
        self._images, self._rows = images, torch.from_numpy(rows)

    @override
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self._images.image(int(self._rows[index]))), int(self.targets[index])

    @override
    def check(self, index: int) -> None:
        self._images.image(int(self._rows[index]))

    @override
    def file_of(self, index: int) -> str | None:
        return self._images.path(int(self._rows[index]))

    @override
    def content_of(self, index: int) -> tuple[str, bytes] | None:
        row = int(self._rows[index])
        return None if self._images.path(row) is not None else (self.paths[index], self._images.content(row))
