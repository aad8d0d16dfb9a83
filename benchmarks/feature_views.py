"""What views and layers of frozen features are worth: logistic regression, each domain held out in turn.

python -m benchmarks.feature_views FILE[:WORD,...] ...

Every file holds features of the same images. Words: ``plain`` for no views, ``scaled`` for standardised
columns, or names of layers for their columns alone. A row for each: accuracy on the domain held out, without
views, and the paired difference from the first row. ``C`` is chosen on the sources alone (``C="auto"``).
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t
from sklearn.preprocessing import StandardScaler

import hessalign as ha
from hessalign.datasets.features_file import feature_rows
from hessalign.grid import markdown_table


def right(path: str, words: list[str]) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Of each domain held out: whether each of its samples is predicted rightly; and seconds for all fits."""
    layers = [word for word in words if word not in ("plain", "scaled")] or None
    test = feature_rows(path, layers=layers, views=False)
    found, started = {}, time.process_time()
    for domain in sorted(set(test.sample_domain)):
        sources = [name for name in sorted(set(test.sample_domain)) if name != domain]
        train = feature_rows(path, domains=sources, layers=layers, views="plain" not in words)
        head = ha.HessianAlignedClassifier("none", C="auto", scoring="accuracy")
        scaler = StandardScaler(with_mean="scaled" in words, with_std="scaled" in words).fit(train.X)
        head.fit(
            scaler.transform(train.X), train.y, sample_domain=train.sample_domain, sample_id=train.sample_id
        )
        held_out = test.sample_domain == domain
        predicted = head.predict(scaler.transform(test.X[held_out]))
        found[domain] = (predicted == test.y[held_out]).astype(float)
    return found, time.process_time() - started


def difference(one: dict[str, NDArray[np.float64]], other: dict[str, NDArray[np.float64]]) -> str:
    """Mean over domains of the paired difference, in points, with its standard error.

    The domains are a sample of domains, few of them: the spread of their differences is widened to where
    Student's distribution is as certain as the normal one, and is never less than what the samples within
    the domains leave uncertain.

    Returns:
        Both, in words.
    """
    paired = [100 * (one[domain] - other[domain]) for domain in one]
    means = np.array([values.mean() for values in paired])
    count = len(means)
    between = t.ppf(norm.cdf(1), count - 1) * means.std(ddof=1) / np.sqrt(count)
    within = np.sqrt(sum(values.var(ddof=1) / len(values) for values in paired)) / count
    return f"{means.mean():+.1f} ± {max(between, within):.1f}"


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    rows, first = [], None
    for argument in sys.argv[1:]:
        path, _, words = argument.partition(":")
        found, seconds = right(path, words.split(",") if words else [])
        first = found if first is None else first
        accuracies = [100 * values.mean() for values in found.values()]
        rows.append(
            [
                f"{Path(path).stem} {words}".strip(),
                *(f"{value:.1f}" for value in (*accuracies, np.mean(accuracies))),
                "–" if found is first else difference(found, first),
                f"{seconds:.0f}",
            ]
        )
        print(rows[-1], file=sys.stderr, flush=True)
        domains = list(found)
    print(markdown_table(["features", *domains, "mean", "against the first", "seconds of fits"], rows))


if __name__ == "__main__":
    main()
