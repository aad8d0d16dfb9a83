# ruff: noqa: N806 (X is what the field calls it)
"""Four hospitals, each left out in turn: what the estimators' ``"auto"`` chooses from the other three alone.

    python -m benchmarks.heart_disease FOLDER [METHOD ...]

``FOLDER`` holds the 14-column files of the UCI Heart Disease data set (Janosi, Steinbrunn, Pfisterer and
Detrano, 1988). The table compares every method with logistic regression whose C is chosen the same way, on
the hospital that was left out.
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import hessalign as ha

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
# "spectral" takes minutes; name it on the command line to see it.
METHODS = ("gradient", "hgp", "hutchinson", "diagonal", "frobenius")
# age, trestbps, chol, thalach, oldpeak, ca are numbers; the others are categories.
NUMBERS = [0, 3, 4, 7, 9, 11]
CATEGORIES = [1, 2, 5, 6, 8, 10, 12]

Table = dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64], str]]]


def read(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.str_]]:
    """Columns ``(n, 13)`` with NaN where a value is missing, disease or not, and each patient's hospital."""
    parts, hospitals = [], []
    for hospital in HOSPITALS:
        lines = (folder / f"{hospital}.data").read_text(encoding="utf-8").split()
        cells = [line.split(",") for line in lines]
        parts.append(
            np.array([[np.nan if cell in {"?", "-9"} else float(cell) for cell in row] for row in cells])
        )
        hospitals += [hospital] * len(lines)
    table = np.concatenate(parts)
    X, y = table[:, :13], (table[:, 13] > 0).astype(np.intp)
    for column in (3, 4):  # a blood pressure or cholesterol of 0 was not measured
        X[X[:, column] == 0, column] = np.nan
    return X, y, np.array(hospitals)


def encoder(kind: str) -> Any:
    """Features from columns: ``"numbers"``, the 13 as they are, or ``"one-hot"`` with categories apart."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    if kind == "numbers":
        return numbers
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([("numbers", numbers, NUMBERS), ("categories", categories, CATEGORIES)])


def leave_one_hospital_out(folder: Path, kind: str, scoring: str, methods: Sequence[str]) -> Table:
    """Accuracy and log-loss of each patient of each hospital left out, by method, and what was chosen."""
    X, y, hospitals = read(folder)
    table: Table = {}
    for target in HOSPITALS:
        source = hospitals != target
        features = encoder(kind).fit(X[source])
        for method in ("none", *methods):
            weights = {} if method == "none" else {"alpha": "auto", "beta": "auto"}
            classifier = ha.HessianAlignedClassifier(method, **weights, C="auto", scoring=scoring)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                classifier.fit(features.transform(X[source]), y[source], sample_domain=hospitals[source])
            log_probabilities = classifier.predict_log_proba(features.transform(X[~source]))
            truth = y[~source]
            right = (log_probabilities.argmax(1) == truth).astype(float)
            losses = -log_probabilities[np.arange(len(truth)), truth]
            chosen = f"C={classifier.C_:g} α={classifier.alpha_:g} β={classifier.beta_:g}"
            table.setdefault(method, []).append((right, losses, chosen))
    return table


def difference(ours: list[NDArray[np.float64]], base: list[NDArray[np.float64]]) -> tuple[float, float]:
    """Mean over hospitals of the mean difference, and its standard error.

    Returns:
        The mean, and the larger error of what the spread of the hospitals tells and what the patients within
        them do.
    """
    pairs = [a - b for a, b in zip(ours, base, strict=True)]
    means = np.array([pair.mean() for pair in pairs])
    between = means.std(ddof=1) / np.sqrt(len(means))
    within = np.sqrt(sum(pair.var(ddof=1) / len(pair) for pair in pairs)) / len(pairs)
    return float(means.mean()), float(max(between, within))


def rows(table: Table) -> list[str]:
    """Markdown rows: means, paired differences to logistic regression, and what was chosen."""
    base = table["none"]
    lines = [
        "| method | accuracy | difference | log-loss | difference | chosen, hospital by hospital |",
        "|---|---|---|---|---|---|",
    ]
    for method, results in table.items():
        accuracy = 100 * np.mean([right.mean() for right, _, _ in results])
        log_loss = np.mean([losses.mean() for _, losses, _ in results])
        compared = ["", ""]
        if method != "none":
            gain, gain_error = difference([100 * row[0] for row in results], [100 * row[0] for row in base])
            cost, cost_error = difference([row[1] for row in results], [row[1] for row in base])
            compared = [f"{gain:+.1f} ± {gain_error:.1f}", f"{cost:+.3f} ± {cost_error:.3f}"]
        chosen = "; ".join(choice for _, _, choice in results)
        cells = [method, f"{accuracy:.1f}", compared[0], f"{log_loss:.3f}", compared[1], chosen]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print a table for each kind of features and scoring."""
    if len(sys.argv) < 2:
        raise SystemExit("give the folder that holds cleveland.data and the others")
    folder, methods = Path(sys.argv[1]), sys.argv[2:] or METHODS
    for kind in ("numbers", "one-hot"):
        for scoring in ("neg_log_loss", "accuracy"):
            print(f"\n{kind}, chosen by {scoring}\n")
            print("\n".join(rows(leave_one_hospital_out(folder, kind, scoring, methods))), flush=True)


if __name__ == "__main__":
    main()
