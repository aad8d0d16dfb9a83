"""What ``hessalign compare`` can look at: features files and tables, as arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.exceptions import PolarsError
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from hessalign.datasets.features_format import read_features
from hessalign.files import shown

LABEL, DOMAIN = "label", "domain"
TABLES = (".csv", ".parquet")


def read_samples(path: Path, standardize: bool) -> dict[str, Any]:
    """Features, labels, domains and preprocessing, as compare_heads takes them.

    Args:
        path: A features file, or a table (.csv, .parquet) with the columns label and domain.
        standardize: Whether features of a features file are standardised; those of a table always are.

    Returns:
        The arguments by name.

    Raises:
        ValueError: If the file is no such thing.
    """
    if path.suffix in TABLES:
        return _read_table(path)
    metadata, tensors = read_features(path)
    return {
        "X": tensors["features"].double().numpy(),
        "y": np.array(metadata.class_names)[tensors["labels"].numpy()],
        "sample_domain": np.array(metadata.domain_names)[tensors["domains"].numpy()],
        "preprocessing": StandardScaler() if standardize else None,
    }


def _read_table(path: Path) -> dict[str, Any]:
    """Numbers are filled with their mean and standardised, text becomes categories, by what sources show."""
    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    except PolarsError as error:
        raise ValueError(f"features: {shown(path)} cannot be read as a table ({error})") from error
    missing = [name for name in (LABEL, DOMAIN) if name not in table.columns]
    if missing or len(table.columns) < 3:
        raise ValueError(
            f"features: {shown(path)} must have the columns {LABEL} and {DOMAIN} and at least one more, got "
            f"{', '.join(table.columns)}"
        )
    for name in (LABEL, DOMAIN):
        if table[name].null_count():
            raise ValueError(f"features: {shown(path)} has a row without a {name}")
    columns = [name for name in table.columns if name not in (LABEL, DOMAIN)]
    for name in columns:
        dtype = table[name].dtype
        if not dtype.is_numeric() and dtype not in (pl.String, pl.Boolean):
            raise ValueError(f"features: the column {name} must hold numbers or text, got {dtype}")
    texts = [place for place, name in enumerate(columns) if table[name].dtype == pl.String]
    numbers = [place for place in range(len(columns)) if place not in texts]
    # A category's number tells nothing: the encoder makes columns of those that the sources have.
    coded = [
        table[name].cast(pl.Categorical).to_physical() if place in texts else table[name]
        for place, name in enumerate(columns)
    ]
    features = np.column_stack(
        [column.cast(pl.Float64).fill_null(float("nan")).to_numpy() for column in coded]
    )
    if np.isinf(features).any():
        raise ValueError(f"features: {shown(path)} holds infinite numbers")
    numeric = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return {
        "X": features,
        "y": table[LABEL].to_numpy(),
        "sample_domain": table[DOMAIN].cast(pl.String).to_numpy(),
        "preprocessing": ColumnTransformer(
            [("numbers", numeric, numbers), ("categories", categories, texts)]
        ),
    }
