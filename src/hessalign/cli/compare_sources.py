"""What ``hessalign compare`` can look at: features files and tables, as arrays."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from hessalign.datasets.base import MISSING as MISSING_NAMES
from hessalign.datasets.features_format import SUFFIX, read_features
from hessalign.datasets.tables import TABLES, read_table
from hessalign.files import shown

LABEL, DOMAIN = "label", "domain"
MISSING = (*MISSING_NAMES, "?", "na", "#n/a", "-", "--", ".")
"""What stands for no value, in small or capital letters, as the common programs write it."""
NO_NUMBER = (*MISSING, "none")
"""The same among numbers; among words none may be a category."""
MOSTLY = 0.5
"""Share of numbers, and of what was meant as one, from which a column is not taken for categories."""
# Decimal commas, separators of thousands, limits of detection, percent: 1,5  1'000  <0.3  12 %
_LIKE_A_NUMBER = re.compile(r"[<>≤≥~]?\s*[-+]?\d[\d.,'\s]*%?|[-+]?,\d+")
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+")


@dataclass(frozen=True, eq=False)
class Samples:
    """What a file holds.

    Attributes:
        arguments: Features, labels, domains and preprocessing, as compare_heads takes them.
        notes: How the columns of a table were understood, where one may be surprised.
    """

    arguments: dict[str, Any]
    notes: tuple[str, ...] = ()


def read_samples(path: Path, standardize: bool) -> Samples:
    """Read a features file, or a table with the columns label and domain.

    Args:
        path: A features file, or a table (.csv, .parquet).
        standardize: Whether features of a features file are standardised; those of a table always are.

    Returns:
        What it holds.

    Raises:
        ValueError: If the file is no such thing.
    """
    if path.suffix.lower() in TABLES:
        return _read_table(path)
    if path.suffix != SUFFIX:
        raise ValueError(
            f"features: {shown(path)} must end in {SUFFIX}, as files of hessalign features do, or in "
            f"{' or '.join(TABLES)}, as tables do"
        )
    metadata, tensors = read_features(path)
    return Samples(
        {
            "X": tensors["features"].double().numpy(),
            "y": np.array(metadata.class_names)[tensors["labels"].numpy()],
            "sample_domain": np.array(metadata.domain_names)[tensors["domains"].numpy()],
            "preprocessing": StandardScaler() if standardize else None,
        }
    )


def _read_table(path: Path) -> Samples:
    """Numbers are filled with their mean and standardised, text becomes categories, by what sources show."""
    start = f"features: {shown(path)}"
    table = read_table("features", path, (LABEL, DOMAIN))
    table = table.rename({found: name for name in (LABEL, DOMAIN) for found in _named(start, table, name)})
    names = [name for name in table.columns if name not in (LABEL, DOMAIN)]
    if len(names) == len(table.columns) or len(table.columns) - len(names) < 2 or not names:
        raise ValueError(
            f"{start} must have the columns {LABEL} and {DOMAIN} and at least one more, got "
            f"{', '.join(map(repr, table.columns))}"
        )
    if "" in names:
        raise ValueError(
            f"{start} has a column without a name; if it numbers the rows, remove it, or name it"
        )
    if not len(table):
        raise ValueError(f"{start} has no row below its header")
    labels = _classes(start, _given(start, table[LABEL], LABEL))
    domains = _given(start, table[DOMAIN], DOMAIN).to_numpy()
    columns = [_column(start, table[name]) for name in names]
    texts = [place for place, column in enumerate(columns) if column.categories is not None]
    numbers = [place for place in range(len(columns)) if place not in texts]
    numeric = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    arguments = {
        "X": np.column_stack([column.values for column in columns]),
        "y": labels,
        "sample_domain": domains,
        "preprocessing": ColumnTransformer(
            [("numbers", numeric, numbers), ("categories", categories, texts)]
        ),
    }
    return Samples(arguments, tuple(_notes(names, columns, len(table))))


def _named(start: str, table: pl.DataFrame, wanted: str) -> list[str]:
    """The column of a name, however it is spelt; none where there is none."""
    found = [name for name in table.columns if name.strip().lower() == wanted]
    if len(found) > 1:
        raise ValueError(f"{start} has {' and '.join(map(repr, found))}; only one column may be {wanted}")
    return found


def _given(start: str, column: pl.Series, name: str) -> pl.Series:
    """Labels or domains as text, none of them missing; whole numbers of any type in one spelling."""
    if column.dtype.is_nested() or column.dtype.is_temporal():
        raise ValueError(f"{start}: the column {name} must hold names or numbers, got {column.dtype}")
    texts = column.cast(pl.String).str.strip_chars()
    missing = texts.is_null() | texts.str.to_lowercase().is_in(MISSING)
    if missing.any():
        row = _first(missing)
        sign = f"; {column[row]!r} reads as missing, give it another name" if texts[row] else ""
        raise ValueError(f"{start}, row {row + 1}, has a row without a {name}{sign}")
    return texts


def _classes(start: str, labels: pl.Series) -> NDArray[Any]:
    """Class labels: whole numbers, also written 0.0, as such, and all else as names."""
    numbers = labels.cast(pl.Float64, strict=False)
    if numbers.null_count() or not numbers.is_finite().all():
        return labels.to_numpy()
    fractions = numbers != numbers.round()
    if fractions.any():
        row = _first(fractions)
        raise ValueError(
            f"{start}, row {row + 1}: {LABEL} {labels[row]} is no class; write classes as whole numbers or "
            "names"
        )
    return numbers.cast(pl.Int64).to_numpy() if numbers.abs().max() < 2**53 else labels.to_numpy()  # type: ignore[operator]


@dataclass(frozen=True, eq=False)
class _Column:
    """A column of features.

    Attributes:
        values: Numbers, or numbers of categories in the order of their names; NaN is missing.
        categories: How many there are; None where the column holds numbers.
        signs: How often a sign was read as missing.
    """

    values: NDArray[np.float64]
    categories: int | None
    signs: dict[str, int]


def _column(start: str, column: pl.Series) -> _Column:
    start = f"{start}: the column {column.name!r}"
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return _Column(_finite(start, column.cast(pl.Float64), column), None, {})
    if column.dtype in (pl.Categorical, pl.Enum):
        return _Column(_codes(column.cast(pl.String)), column.n_unique() - bool(column.null_count()), {})
    if column.dtype != pl.String:
        raise ValueError(f"{start} must hold numbers or text, got {column.dtype}")
    texts = column.str.strip_chars()
    small = texts.str.to_lowercase()
    missing = small.is_null() | small.is_in(NO_NUMBER)
    present = texts.filter(~missing)
    if small.filter(~missing).is_in(("true", "false")).all() and len(present):
        values = pl.select(pl.when(missing).then(None).otherwise(small == "true")).to_series()
        return _Column(_finite(start, values.cast(pl.Float64), column), None, _signs(texts, missing))
    numbers = (
        pl.select(pl.when(missing).then(None).otherwise(texts)).to_series().cast(pl.Float64, strict=False)
    )
    wrong = ~missing & numbers.is_null()
    if not wrong.any():
        return _Column(_finite(start, numbers, column), None, _signs(texts, missing))
    _refuse_mixed(start, texts, wrong, len(present))
    missing = small.is_null() | small.is_in(MISSING)
    kept = pl.select(pl.when(missing).then(None).otherwise(texts)).to_series()
    return _Column(_codes(kept), kept.drop_nulls().n_unique(), _signs(texts, missing))


def _refuse_mixed(start: str, texts: pl.Series, wrong: pl.Series, present: int) -> None:
    """Refuse a column of numbers that holds what is none: as categories it would lose what numbers tell."""
    others = texts.filter(wrong).to_list()
    meant = sum(_LIKE_A_NUMBER.fullmatch(value) is not None for value in others)
    if present - len(others) + meant < MOSTLY * present:
        return
    row = _first(wrong)
    value = texts[row]
    remedy = "correct it or leave the cell empty"
    if _DECIMAL_COMMA.fullmatch(value):
        remedy = f"write decimals with a point, {value.replace(',', '.')}"
    raise ValueError(
        f"{start} holds {present - len(others):,} numbers and {len(others):,} other, the first {value!r} in "
        f"row {row + 1}; {remedy}, or, if these are categories, write all of them with a letter"
    )


def _finite(start: str, numbers: pl.Series, given: pl.Series) -> NDArray[np.float64]:
    infinite = numbers.is_infinite().fill_null(value=False)
    if infinite.any():
        row = _first(infinite)
        raise ValueError(f"{start} holds infinite numbers, the first {given[row]} in row {row + 1}")
    return numbers.fill_null(float("nan")).to_numpy()


def _codes(texts: pl.Series) -> NDArray[np.float64]:
    """A category's number tells nothing: the encoder makes columns of those that the sources have."""
    known = texts.drop_nulls().unique().sort()
    codes = np.searchsorted(known.to_numpy(), texts.fill_null("").to_numpy()).astype(np.float64)
    codes[texts.is_null().to_numpy()] = np.nan
    return codes


def _first(marked: pl.Series) -> int:
    """Position of the first row that is marked."""
    return int(marked.arg_true()[0])


def _signs(texts: pl.Series, missing: pl.Series) -> dict[str, int]:
    """How often each sign of a missing value is there, empty cells aside."""
    found = texts.filter(missing & (texts != "").fill_null(value=False))
    return dict(sorted(found.value_counts().iter_rows()))


def _notes(names: Sequence[str], columns: Sequence[_Column], rows: int) -> list[str]:
    """What may surprise: columns of text, of nothing, and signs that were read as missing."""
    found = list(zip(names, columns, strict=True))
    texts = [(name, column.categories) for name, column in found if column.categories is not None]
    notes = []
    if texts:
        shown_names = ", ".join(f"{name} ({count:,})" for name, count in texts)
        notes.append(f"Columns of text, with their number of categories: {shown_names}.")
    for name, count in texts:
        if 2 * count > rows:
            notes.append(
                f"{name}: {count:,} categories in {rows:,} rows; a name or a date of each row tells nothing "
                "of a new row, so leave the column out."
            )
    signs = [
        f"{name} ({', '.join(f'{sign} {count:,} times' for sign, count in column.signs.items())})"
        for name, column in found
        if column.signs
    ]
    if signs:
        notes.append(f"Read as missing: {', '.join(signs)}.")
    empty = [name for name, column in found if np.isnan(column.values).all()]
    if empty:
        notes.append(f"Columns without any value, which tell nothing: {', '.join(empty)}.")
    return notes
