# ruff: noqa: N806 (X is what the field calls it)
"""Fits of the estimators, in processor seconds of one thread, beside scikit-learn's logistic regression.

OMP_NUM_THREADS=1 python -m benchmarks.estimator_speed [CASE ...]
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import hessalign as ha

Data = tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]


def draw(samples: int, width: int, classes: int, domains: int, seed: int = 0) -> Data:
    """Class means that move from domain to domain, on features whose scales fall like a spectrum."""
    random = np.random.default_rng(seed)
    y, domain = random.integers(0, classes, samples), random.integers(0, domains, samples)
    means = 0.35 * random.normal(size=(classes, width))
    moves = 0.2 * random.normal(size=(domains, classes, width))
    spectrum = (1 + np.arange(width)) ** -0.5
    X = (means[y] + moves[domain, y] + random.normal(size=(samples, width))) * spectrum
    return X / np.sqrt(np.mean(spectrum**2)), y, domain


def seconds(fit: Callable[..., object], *arguments: object, **named: object) -> float:
    """Processor time of a call."""
    started = time.process_time()
    fit(*arguments, **named)
    return time.process_time() - started


def against_scikit_learn(samples: int, width: int, classes: int, domains: int = 3) -> str:
    """The default fit's time as a multiple of logistic regression's, a median of three."""
    X, y, domain = draw(samples, width, classes, domains)
    ours, theirs = [], []
    for _ in range(3):
        theirs.append(seconds(LogisticRegression(max_iter=1000).fit, X, y))
        ours.append(seconds(ha.HessianAlignedClassifier().fit, X, y, sample_domain=domain))
    ratio = np.median(ours) / np.median(theirs)
    return f"{np.median(ours):.2f} s, {ratio:.1f} times LogisticRegression's {np.median(theirs):.2f} s"


def many_domains(samples: int, width: int, classes: int) -> str:
    """The default fit's time with 3 and 300 domains."""
    found = []
    for domains in (3, 300):
        X, y, domain = draw(samples, width, classes, domains)
        classifier = ha.HessianAlignedClassifier(alpha=0.1, beta=0.1)
        found.append(np.median([seconds(classifier.fit, X, y, sample_domain=domain) for _ in range(3)]))
    return f"{found[0]:.2f} s with 3, {found[1]:.2f} s with 300: {found[1] / found[0]:.2f} times"


def weighted(method: str, strength: float, samples: int, width: int, classes: int) -> str:
    """Fits of a method with growing weights."""
    X, y, domain = draw(samples, width, classes, 3)
    found = []
    for alpha, beta in ((1e-3, 1e-2), (0.1, 0.1), (1.0, 1.0)):
        classifier = ha.HessianAlignedClassifier(method, alpha, beta, C=strength)
        spent = seconds(classifier.fit, X, y, sample_domain=domain)
        found.append(
            f"α={alpha:g} β={beta:g}: {spent:.2f} s{'' if classifier.converged_ else ', not converged'}"
        )
    return "; ".join(found)


def chosen(samples: int, width: int, classes: int, domains: int) -> str:
    """``"auto"`` of alpha, beta and C."""
    X, y, domain = draw(samples * domains, width, classes, domains)
    classifier = ha.HessianAlignedClassifier("hgp", "auto", "auto")
    spent = seconds(classifier.fit, X, y, sample_domain=domain)
    return f"{spent:.2f} s, {len(classifier.auto_results_['C'])} candidates"


def regression() -> str:
    """The default regressor on 45 domains, some of one sample, and on a domain held out: R² and time."""
    random = np.random.default_rng(0)
    sizes = np.concatenate([np.ones(5, dtype=int), random.integers(2, 100, 40)])
    domain = np.repeat(np.arange(45), sizes)
    X = random.normal(size=(len(domain), 122)) @ (0.1 * random.normal(size=(122, 122)))
    X = X + 0.5 * random.normal(size=(45, 122))[domain]
    X = (X - X.mean(0)) / X.std(0)
    y = 0.1 * X @ random.normal(size=122) + 0.3 * random.normal(size=len(domain))
    y, new = y + 0.2 * random.normal(size=45)[domain], domain >= 38
    found = []
    for method in ("none", "hgp"):
        regressor = ha.HessianAlignedRegressor(method)
        spent = seconds(regressor.fit, X[~new], y[~new], sample_domain=domain[~new])
        found.append(f"{method}: {spent:.2f} s, R² {regressor.score(X[new], y[new]):.3f}")
    return "; ".join(found)


CASES: dict[str, Callable[[], str]] = {
    "default, 6,000 × 1,280 × 7": lambda: against_scikit_learn(6_000, 1_280, 7),
    "default, 200,000 × 256 × 10": lambda: against_scikit_learn(200_000, 256, 10),
    "3 to 300 domains, 20,000 × 64 × 7": lambda: many_domains(20_000, 64, 7),
    "whole Hessian, 2,250 × 128 × 6": lambda: weighted("frobenius", 1.0, 2_250, 128, 6),
    "HGP at C = 1e-3, 1,200 × 1,280 × 7": lambda: weighted("hgp", 1e-3, 1_200, 1_280, 7),
    "auto, 11 domains of 65 × 23": lambda: chosen(65, 23, 2, 11),
    "auto, 16 domains of 150 × 43 × 6": lambda: chosen(150, 43, 6, 16),
    "least squares, 45 domains × 122": regression,
}


def table(names: Iterable[str] = CASES) -> str:
    """A row for each case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = ha.HessianAlignedClassifier()  # loads what the first fit needs
        first.fit([[0.0], [1.0], [0.5], [2.0]], [0, 1, 0, 1], sample_domain=[0, 0, 1, 1])
        return "\n".join(
            ["| fit | found |", "|---|---|", *(f"| {name} | {CASES[name]()} |" for name in names)]
        )


if __name__ == "__main__":
    print(table(sys.argv[1:] or CASES))
