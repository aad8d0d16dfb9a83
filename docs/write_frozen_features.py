# ruff: noqa: N806 (X is what the field calls it)
"""The benchmark on frozen features: its data, its records, and what docs/frozen-features.md says of them.

    python -m docs.write_frozen_features hospitals FOLDER FILE.safetensors
    python -m docs.write_frozen_features sample FEATURES.safetensors N FILE.safetensors
    python -m docs.write_frozen_features record NAME SWEEP
    python -m docs.write_frozen_features spec NAME ALGORITHM TARGET TRIAL
    python -m docs.write_frozen_features

The first two make features: of the four hospitals, and of N samples of each
domain, standardised. ``record`` reads the folder of a ``hessalign sweep`` and writes ``results/frozen_features/NAME.json``. ``spec`` prints the configuration of
one of its choices, for ``hessalign train --spec``. Without arguments the page is written from the records.
"""

import sys
from pathlib import Path

import numpy as np
from benchmarks.heart_disease import CATEGORIES, read
from numpy.typing import NDArray

from hessalign.datasets.features_file import feature_rows, save_features

UNITS = {0: (55, 10), 3: (130, 20), 4: (240, 50), 7: (140, 25), 9: (1, 1), 11: (1, 1)}
"""Centre and unit of each number of a patient: round, so that nothing of a hospital is in them."""


def patients(folder: Path) -> tuple[NDArray[np.float32], list[str], NDArray[np.str_]]:
    """Features, diagnosis and hospital of each patient; the features are no statistic of any hospital.

    Of a number ``(value - centre) / unit``, 0 where it is missing, and whether it is; of a category a column
    for each value, all 0 where it is missing.
    """
    X, y, hospitals = read(folder)
    columns = []
    for column, (centre, unit) in UNITS.items():
        missing = np.isnan(X[:, column])
        columns += [np.where(missing, 0, (X[:, column] - centre) / unit), missing]
    for column in CATEGORIES:
        values = np.unique(X[:, column][~np.isnan(X[:, column])])
        columns += [X[:, column] == value for value in values]
    labels = ["disease" if ill else "healthy" for ill in y]
    return np.stack(columns, axis=1).astype(np.float32), labels, hospitals


def save_hospitals(folder: Path, file: Path) -> None:
    """The features of all patients, as a file."""
    save_features(file, *patients(folder))


def save_sample(features: Path, size: int, file: Path) -> None:
    """So many samples of each domain, drawn with seed 0, standardised over all of them."""
    rows = feature_rows(features, views=False)
    random = np.random.default_rng(0)
    domains = np.asarray(rows.sample_domain)
    chosen = np.concatenate(
        [
            np.sort(random.choice(np.flatnonzero(domains == domain), size, replace=False))
            for domain in np.unique(domains)
        ]
    )
    X = rows.X[chosen].astype(np.float64)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    save_features(file, X.astype(np.float32), np.asarray(rows.y)[chosen], domains[chosen])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hospitals", folder, file]:
            save_hospitals(Path(folder), Path(file))
        case ["sample", features, size, file]:
            save_sample(Path(features), int(size), Path(file))
        case _:
            raise SystemExit(__doc__)
