# ruff: noqa: N803, N806 (X is what the field calls it)
"""The linear unit tests for invariance: every head on problems whose invariant solution is known.

    python -m benchmarks.linear_unit_tests [SEEDS [SAMPLES]]

Aubin, Slowik, Arjovsky, Bottou and Lopez-Paz, "Linear unit-tests for invariance discovery" (2021): five
invariant and five spurious features in three domains; in the test the spurious ones are shuffled. In the
scrambled variants (s) an orthogonal matrix mixes all features. Example 1 is regression (mean squared error),
2 and 3 are classification (share of errors). All heads choose by the source domains alone; the oracle is
fitted on shuffled features.
"""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.pipeline import make_pipeline

import hessalign as ha
from benchmarks.heart_disease import HEADS
from hessalign.estimator import ISRCov, ISRMean

INVARIANT, SPURIOUS, DOMAINS = 5, 5, 3
Array = NDArray[np.float64]
Draw = Callable[[int, bool], tuple[Array, Array]]


def example_1(random: np.random.Generator) -> Draw:
    """Cause and effect of a target whose noise differs from domain to domain."""
    deviations = (0.1, 1.5, 2.0)
    to_target = random.normal(size=(INVARIANT, INVARIANT)) / INVARIANT
    to_effect = random.normal(size=(INVARIANT, SPURIOUS)) / SPURIOUS

    def draw(samples: int, shuffled: bool) -> tuple[Array, Array]:
        parts = []
        for deviation in deviations:
            cause = deviation * random.normal(size=(samples, INVARIANT))
            target = cause @ to_target + deviation * random.normal(size=(samples, INVARIANT))
            effect = target @ to_effect + random.normal(size=(samples, SPURIOUS))
            parts.append((cause, random.permutation(effect) if shuffled else effect, target.sum(1)))
        return _joined(parts)

    return draw


def example_2(random: np.random.Generator) -> Draw:
    """Cows and camels: the animal is small and faint, the background large and nearly always right."""
    settings = ((0.95, 0.3), (0.97, 0.5), (0.99, 0.7))
    animal = np.outer([1, 1, -1, -1], np.ones(INVARIANT))
    background = np.outer([1, -1, -1, 1], np.ones(SPURIOUS))

    def draw(samples: int, shuffled: bool) -> tuple[Array, Array]:
        parts = []
        for usual, share in settings:
            weights = np.array([usual, 1 - usual, usual, 1 - usual]) * np.repeat([share, 1 - share], 2)
            kind = random.choice(4, samples, p=weights)
            noise = random.normal(size=(2, samples, INVARIANT)) / np.sqrt(10)
            faint, strong = 0.01 * (noise[0] + animal[kind]), noise[1] + background[kind]
            label = (faint.sum(1) > 0).astype(float)
            parts.append((faint, random.permutation(strong) if shuffled else strong, label))
        return _joined(parts)

    return draw


def example_3(random: np.random.Generator) -> Draw:
    """A small invariant margin beside a large spurious one that points elsewhere in every domain."""
    directions = random.normal(size=(DOMAINS, SPURIOUS))

    def draw(samples: int, shuffled: bool) -> tuple[Array, Array]:
        parts = []
        for direction in directions:
            label = np.arange(samples) % 2
            sign = 1.0 - 2.0 * label[:, None]
            own = 0.1 * random.normal(size=(samples, INVARIANT)) + 0.1 * sign
            shortcut = 0.1 * random.normal(size=(samples, SPURIOUS)) + sign * direction
            parts.append((own, random.permutation(shortcut) if shuffled else shortcut, label.astype(float)))
        return _joined(parts)

    return draw


def _joined(parts: list[tuple[Array, Array, Array]]) -> tuple[Array, Array]:
    X = np.concatenate([np.hstack([own, other]) for own, other, _ in parts])
    return X, np.concatenate([target for *_, target in parts])


EXAMPLES = {"1": example_1, "2": example_2, "3": example_3}


def classifiers() -> dict[str, Any]:
    """By name, each choosing by accuracy on source domains held out."""
    plain = HEADS["logistic regression"]
    heads = {name: make("accuracy") for name, make in HEADS.items() if name not in ("ISR-Mean", "ISR-Cov")}
    return heads | {
        "ISR-Mean": make_pipeline(ISRMean(), plain("accuracy")),
        f"ISR-Cov, {SPURIOUS} directions": make_pipeline(ISRCov(SPURIOUS), plain("accuracy")),
    }


def regressors() -> dict[str, Any]:
    """By name, each choosing by the squared error on source domains held out."""
    return {
        "least squares": ha.HessianAlignedRegressor("none", l2="auto"),
        "gradient": ha.HessianAlignedRegressor("gradient", beta="auto"),
        "hgp": ha.HessianAlignedRegressor("hgp", "auto", "auto"),
    }


def error_of(head: Any, name: str, X: Array, y: Array, domains: NDArray[np.intp]) -> float:
    """Mean over domains of the test error."""
    passed = {"sample_domain": domains} if name in ("centred", "whitened") else {}
    predicted = head.predict(X, **passed)
    regression = isinstance(head, ha.HessianAlignedRegressor)
    errors = np.square(predicted - y) if regression else (predicted != y).astype(float)
    return float(np.mean([errors[domains == domain].mean() for domain in range(DOMAINS)]))


def errors_on(example: str, scrambled: bool, seed: int, samples: int) -> dict[str, float]:
    """Test error of each head on one draw of an example."""
    random = np.random.default_rng([seed, int(example), scrambled])
    draw = EXAMPLES[example](random)
    width = INVARIANT + SPURIOUS
    mix = np.linalg.qr(random.normal(size=(width, width)))[0] if scrambled else np.eye(width)
    (X, y), (test_X, test_y), (fair_X, fair_y) = (
        draw(samples, False),
        draw(samples, True),
        draw(samples, True),
    )
    domains = np.repeat(np.arange(DOMAINS), samples)
    heads = regressors() if example == "1" else classifiers()
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what did not converge, and of small groups
        for name, head in heads.items():
            head.fit(X @ mix, y, sample_domain=domains)
            found[name] = error_of(head, name, test_X @ mix, test_y, domains)
        first = next(iter(heads.values()))
        first.fit(fair_X @ mix, fair_y, sample_domain=domains)
        found["oracle"] = error_of(first, "", test_X @ mix, test_y, domains)
    return found


def _shown(errors: Array) -> str:
    """Mean and deviation over draws; a single draw tells no spread."""
    return f"{errors.mean():.2f}" + (f" ± {errors.std():.2f}" if len(errors) > 1 else "")


def table(seeds: int = 5, samples: int = 1000) -> str:
    """Mean errors and, of several draws, standard deviations: of regression, and of classification."""
    lines = []
    with config_context(enable_metadata_routing=True):  # domains reach the transformers in pipelines
        for examples in (("1",), ("2", "3")):
            columns = [(example, scrambled) for example in examples for scrambled in (False, True)]
            found = {
                column: [errors_on(*column, seed, samples) for seed in range(seeds)] for column in columns
            }
            lines.append("| head |" + "".join(f" {e}{'s' if s else ''} |" for e, s in columns))
            lines.append("|---|" + "---|" * len(columns))
            for name in found[columns[0]][0]:
                values = [np.array([draw[name] for draw in found[column]]) for column in columns]
                lines.append(f"| {name} |" + "".join(f" {_shown(errors)} |" for errors in values))
            lines.append("")
    return "\n".join(lines).strip()


if __name__ == "__main__":
    print(table(*map(int, sys.argv[1:])))
