# ruff: noqa: N806 (X is what the field calls it)
"""Four hospitals, each left out in turn: what the estimators' ``"auto"`` chooses from the other three alone.

    python -m benchmarks.heart_disease FOLDER [HEAD ...]

``FOLDER`` holds the 14-column files of the UCI Heart Disease data set (Janosi, Steinbrunn, Pfisterer and
Detrano, 1988). The table compares every method with logistic regression whose C is chosen the same way, on
the hospital that was left out.
"""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import hessalign as ha
from hessalign.estimator import (
    AFRClassifier,
    DFRClassifier,
    DomainCentering,
    DomainInformedFeatures,
    DomainWhitening,
    FishrClassifier,
    GroupDROClassifier,
    IRMClassifier,
    ISRCov,
    ISRMean,
    JTTClassifier,
    VRExClassifier,
)

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
Make = Callable[[str], Any]


def aligned(method: str) -> Make:
    """An aligned head whose weights and C are chosen."""
    weights = {"beta": "auto"} if method == "gradient" else {"alpha": "auto", "beta": "auto"}
    return lambda scoring: ha.HessianAlignedClassifier(method, **weights, scoring=scoring)


def plain(scoring: str, **kind: Any) -> Any:
    """Logistic regression whose C is chosen."""
    return ha.HessianAlignedClassifier("none", C="auto", scoring=scoring, **kind)


# By name: a head for a scoring. "spectral" takes minutes; name it on the command line to see it.
HEADS: dict[str, Make] = {
    "logistic regression": plain,
    "equal domains": lambda scoring: plain(scoring, domain_weight="equal"),
    **{method: aligned(method) for method in ("gradient", "hgp", "hutchinson", "diagonal", "frobenius")},
    "V-REx": lambda scoring: VRExClassifier("auto", scoring=scoring),
    "IRM": lambda scoring: IRMClassifier("auto", scoring=scoring),
    "Fishr": lambda scoring: FishrClassifier("auto", scoring=scoring),
    "group DRO": lambda scoring: GroupDROClassifier("auto", scoring=scoring),
    "DFR": lambda scoring: DFRClassifier("auto", scoring=scoring),
    "AFR": lambda scoring: AFRClassifier("auto", scoring=scoring),
    "JTT": lambda scoring: JTTClassifier("auto", scoring=scoring),
    "ISR-Mean": lambda scoring: make_pipeline(ISRMean(), plain(scoring)),
    "ISR-Cov": lambda scoring: make_pipeline(ISRCov(), plain(scoring)),
    "centred": lambda scoring: make_pipeline(DomainCentering(), plain(scoring)),
    "whitened": lambda scoring: make_pipeline(DomainWhitening(), plain(scoring)),
    "informed": lambda scoring: make_pipeline(DomainInformedFeatures(), plain(scoring)),
    "informed slopes": lambda scoring: make_pipeline(
        DomainInformedFeatures(interactions=True), plain(scoring)
    ),
}
BY_OWN_SAMPLES = ("centred", "whitened", "informed", "informed slopes")
"""What takes a new hospital's own samples, without their labels."""
ON_REQUEST: dict[str, Make] = {"spectral": aligned("spectral")}
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


def leave_one_hospital_out(folder: Path, kind: str, scoring: str, heads: Sequence[str]) -> Table:
    """Accuracy and log-loss of each patient of each hospital left out, by head, and what was chosen."""
    X, y, hospitals = read(folder)
    table: Table = {}
    for target in HOSPITALS:
        source = hospitals != target
        features = encoder(kind).fit(X[source])
        sources, targets = features.transform(X[source]), features.transform(X[~source])
        for name in ("logistic regression", *heads):
            head = (HEADS | ON_REQUEST)[name](scoring)
            passed = {"sample_domain": hospitals[~source]} if name in BY_OWN_SAMPLES else {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what did not converge, and of few samples
                head.fit(sources, y[source], sample_domain=hospitals[source])
                log_probabilities = head.predict_log_proba(targets, **passed)
            truth = y[~source]
            right = (log_probabilities.argmax(1) == truth).astype(float)
            losses = -log_probabilities[np.arange(len(truth)), truth]
            table.setdefault(name, []).append((right, losses, chosen(head)))
    return table


def chosen(head: Any) -> str:
    """The hyper-parameters that ``"auto"`` chose, or that it is the plain head."""
    last = head if isinstance(head, ha.HessianAlignedClassifier) or not hasattr(head, "steps") else head[-1]
    values = [f"{name}={getattr(last, name + '_'):g}" for name in last._hyper]
    strength = f"C={getattr(last, last._strength_name + '_'):g}"
    return f"plain, {strength}" if last.plain_ else " ".join([strength, *values])


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
    base = table["logistic regression"]
    lines = [
        "| head | accuracy | difference | log-loss | difference | chosen, hospital by hospital |",
        "|---|---|---|---|---|---|",
    ]
    for name, results in table.items():
        accuracy = 100 * np.mean([right.mean() for right, _, _ in results])
        log_loss = np.mean([losses.mean() for _, losses, _ in results])
        compared = ["", ""]
        if name != "logistic regression":
            gain, gain_error = difference([100 * row[0] for row in results], [100 * row[0] for row in base])
            cost, cost_error = difference([row[1] for row in results], [row[1] for row in base])
            compared = [f"{gain:+.1f} ± {gain_error:.1f}", f"{cost:+.3f} ± {cost_error:.3f}"]
        choices = "; ".join(choice for _, _, choice in results)
        cells = [name, f"{accuracy:.1f}", compared[0], f"{log_loss:.3f}", compared[1], choices]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def table(folder: str | None = None, *heads: str) -> str | None:
    """A table for each kind of features and scoring.

    Args:
        folder: That of the data; None for what the environment variable HEART_DISEASE names.
        *heads: Names of methods; all where none is given.

    Returns:
        The tables; None where no folder is named.
    """
    folder = folder or os.environ.get("HEART_DISEASE")
    if folder is None:
        return None
    compared = heads or tuple(name for name in HEADS if name != "logistic regression")
    lines = []
    with config_context(enable_metadata_routing=True):  # domains reach the transformers in pipelines
        for kind in ("numbers", "one-hot"):
            for scoring in ("neg_log_loss", "accuracy"):
                lines += [f"{kind}, chosen by {scoring}", ""]
                lines += [*rows(leave_one_hospital_out(Path(folder), kind, scoring, compared)), ""]
    return "\n".join(lines).strip()


if __name__ == "__main__":
    print(table(*sys.argv[1:]) or "give the folder that holds cleveland.data and the others")
