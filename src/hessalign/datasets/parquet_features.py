"""Any embeddings, in Parquet files."""

import hashlib
import warnings
from pathlib import Path
from typing import Self

import numpy as np
import polars
import torch
from numpy.typing import NDArray
from typing_extensions import override

from hessalign.datasets.base import Domain, require_root
from hessalign.datasets.features_file import FeatureDomains, FeatureSamples
from hessalign.datasets.parquet import DOMAIN, LABEL, VECTOR_COLUMNS, ParquetTable, rows_by_domain
from hessalign.datasets.registry import register
from hessalign.exceptions import HessalignWarning
from hessalign.files import shown

FLOATS = (polars.Float16, polars.Float32, polars.Float64)


@register("parquet_features", reference_name="ParquetFeatures")
class ParquetFeatures(FeatureDomains):
    """Embeddings of your own in Parquet files: one row for each sample, with vector, label and domain.

    A vector is a list or an array of floats, of one length in all rows. They are held in memory as they are,
    but float64 is rounded to float32, which gives a warning. Domains and classes are in the order of their
    sorted names, integers in the order of numbers. Other columns are ignored.

    Args:
        path: A Parquet file, or a folder with several, which are read in the order of their names.
        vector: Column of the vectors; None (default) for the first that there is of ``features``,
            ``embedding``, ``embeddings`` and ``vector``.
        label: Column of the labels, integers or strings.
        domain: Column of the domains, integers or strings.

    Raises:
        ValueError: If a file or a column is missing, or a row lacks a value, or its vector is of another
            length than the others or holds NaN or infinity; the message names the first such row.
        OSError: If a file cannot be read.
    """

    def __init__(
        self, path: Path | str, vector: str | None = None, label: str = LABEL, domain: str = DOMAIN
    ) -> None:
        table = ParquetTable(path)
        vector = table.column("vector", vector, VECTOR_COLUMNS)
        classes = table.names("label", table.column("label", label, (LABEL,)))
        domains = table.names("domain", table.column("domain", domain, (DOMAIN,)))
        vectors = _vectors(table, vector)
        self.input_shape = (vectors.shape[1],)
        digest = hashlib.sha256(repr((classes.names, domains.names)).encode())
        for values in (classes.ids, domains.ids, vectors):
            digest.update(values.tobytes())
        self._fingerprint = digest.hexdigest()
        made = []
        for name, rows, targets in rows_by_domain(classes, domains):
            samples = FeatureSamples(torch.from_numpy(vectors[rows]).unsqueeze(1), targets)
            made.append(Domain(name, targets, samples, samples))
        super().__init__(classes.names, tuple(made))

    @property
    def fingerprint(self) -> str:
        """Hash of the content, wherever it lies."""
        return self._fingerprint

    @override
    @classmethod
    def make(cls, root: Path | None, seed: int) -> Self:
        return cls(require_root(cls.name, root, "the path of the file or folder"))


def _vectors(table: ParquetTable, column: str) -> NDArray[np.floating]:
    """All vectors, ``(n, d)``."""
    kind = table.schema[column]
    inner = getattr(kind, "inner", None)
    if not isinstance(kind, polars.List | polars.Array) or inner not in FLOATS:
        raise ValueError(
            f"vector: the column {column!r} of {shown(table.path)} must hold lists or arrays of floats, got "
            f"{kind}"
        )
    read, width = [], None
    for file, start in zip(table.files, table.starts.tolist(), strict=False):
        values = table.read(file, column)
        lengths = values.list.len() if isinstance(kind, polars.List) else values.arr.len()
        if len(nothing := values.is_null().arg_true()):
            raise table.refused(start + int(nothing[0]), f"vector: no {column}")
        width = int(lengths[0]) if width is None and len(lengths) else width
        if len(other := (lengths != width).arg_true()):
            row = int(other[0])
            raise table.refused(
                start + row, f"vector: it has {lengths[row]} numbers where the first row has {width}"
            )
        if not width:
            raise table.refused(start, "vector: it has 0 numbers; allowed are 1 and more")
        flat = values.explode()
        if len(missing := flat.is_null().arg_true()):
            raise table.refused(start + int(missing[0]) // width, "vector: a number of it is missing")
        numbers = flat.to_numpy().reshape(-1, width)
        wrong = ~np.isfinite(numbers).all(axis=1)
        if wrong.any():
            raise table.refused(start + int(wrong.argmax()), "vector: it holds NaN or infinity")
        read.append(numbers)
    whole = np.concatenate(read)
    return whole if inner != polars.Float64 else _rounded(table, column, whole)


def _rounded(table: ParquetTable, column: str, numbers: NDArray[np.floating]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        rounded = numbers.astype(np.float32)
    wrong = ~np.isfinite(rounded).all(axis=1)
    if wrong.any():
        raise table.refused(int(wrong.argmax()), "vector: a number of it is too large for float32")
    if not np.array_equal(rounded, numbers):
        warnings.warn(
            f"vector: the float64 numbers of {column!r} in {shown(table.path)} are rounded to float32",
            HessalignWarning,
            stacklevel=4,
        )
    return rounded
