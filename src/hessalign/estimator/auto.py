"""Choosing strength and hyper-parameters without the target domain: source domains held out in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from hessalign.estimator.data import Head
from hessalign.estimator.problem import PATH_TOLERANCE, Plain, Problem
from hessalign.estimator.solver import Solution

AUTO_GRID = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Weights that ``"auto"`` tries for each term of a penalty, beside 0."""
STRENGTH_DECADES = range(-4, 3)
"""Powers of ten that ``"auto"`` tries for ``C · s²`` or ``s² / l2``, ``s`` the features' root mean square."""
MOST_FOLDS = 5
"""More domains are held out several at a time, so that a choice takes as long with 300 as with 5."""

# Standard errors below the best at which larger values are not tried any more.
HOPELESS = 2.0
# Values in a row, each worse than the one before, after which larger ones are not tried any more.
MOST_FALLS = 2
# Most steps of a fit that is only to be compared; "converged" of the results tells which ended short of it.
SEARCH_STEPS = 100

Solve = Callable[[Problem, Plain, Mapping[str, float], float, Head | None], Solution]


@dataclass(frozen=True, eq=False)
class HeldOutScore:
    """How well a head does on a domain held out.

    Attributes:
        mean: The score.
        samples: Of each sample, ``(n,)``, where the score is their mean; else None.
        weight: Weight of each sample in that mean, adding up to 1.
    """

    mean: float
    samples: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Fold:
    """Domains held out together, and the problem on the others.

    Attributes:
        problem: The other domains.
        scores: By the position of each domain held out: score on it of ``[W | b]``, the higher the better;
            and whether the head is the plain one.
    """

    problem: Problem
    scores: Mapping[int, Callable[[Head, bool], HeldOutScore]]


@dataclass(frozen=True)
class Candidate:
    """What is tried: a strength, which stands for a decay, and hyper-parameters; None for the plain head."""

    strength: float
    values: tuple[float, ...] | None

    @property
    def cost(self) -> tuple[bool, float]:
        """What the one-standard-error rule keeps small: first the plain head, then small values."""
        return self.values is not None, 0.0 if self.values is None else sum(self.values)


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen, and everything that was tried.

    Attributes:
        strength: The choice.
        values: The hyper-parameters chosen; None for the plain head.
        results: Each hyper-parameter and the strength under their own names, ``plain``, ``mean_score``,
            ``standard_error`` (of the mean difference to the best) and ``chosen``, ``(k,)``; ``scores``,
            ``converged`` and ``refused``, ``(k, m)``, a column for each domain held out.
    """

    strength: float
    values: dict[str, float] | None
    results: dict[str, NDArray[Any]]


@dataclass(eq=False)
class _Trial:
    """One candidate on one domain held out."""

    score: HeldOutScore
    converged: bool
    refused: bool


@dataclass(eq=False)
class Search:
    """Trials of candidates on every fold, remembered in the order they were made.

    Attributes:
        folds: Every domain is held out in one of them.
        decay: From a strength to the weight of ``½ ‖W‖²`` beside the mean loss, for a sum of weights.
        solve: From a problem, its plain fit, hyper-parameters, tolerance and a start to the head.
        neutral: Value of each hyper-parameter at which the head is the plain one; None where there is none.
        tol: Largest element of the gradient that counts as zero, in ``solve``'s units.
        own_strength: Whether the strength matters to any but the plain head.
    """

    folds: Sequence[Fold]
    decay: Callable[[float, float], float]
    solve: Solve
    neutral: Mapping[str, float | None]
    tol: float
    own_strength: bool = True
    _trials: dict[Candidate, list[_Trial]] = field(default_factory=dict)
    _plain: dict[tuple[int, float], Plain] = field(default_factory=dict)
    _heads: dict[tuple[int, Candidate], Head] = field(default_factory=dict)

    def run(self, strengths: Sequence[float], grids: Mapping[str, Sequence[float]], name: str) -> Choice:
        """Try and choose.

        The strengths are tried with the plain head first. Then the values of each hyper-parameter, one after
        the other, with the best of the strengths and its two neighbours and the best so far of the others;
        for each strength from small to large, until they do clearly worse than the best, or worse twice in a
        row and worse than the smallest.

        Args:
            strengths: In ascending order of the decay's inverse.
            grids: Values of each hyper-parameter in ascending order; a single one is not chosen.
            name: What the strength is called.

        Returns:
            What was chosen, and everything that was tried.
        """
        chosen = [key for key, grid in grids.items() if len(grid) > 1]
        first = tuple(grid[0] for grid in grids.values())
        opening = None if chosen and self._has_plain_start(grids) else self._plain_or(first, grids)
        self._try([Candidate(strength, opening) for strength in strengths])
        for key in chosen:
            best = self._best()
            position = strengths.index(best.strength)
            reach = int(self.own_strength)
            around = strengths[max(0, position - reach) : position + reach + 1]
            others = dict(zip(grids, best.values or first, strict=True))
            for strength in around:
                self._try_path(
                    [
                        Candidate(strength, self._plain_or(tuple((others | {key: value}).values()), grids))
                        for value in grids[key]
                    ]
                )
        return self._choice(name, list(grids))

    def _has_plain_start(self, grids: Mapping[str, Sequence[float]]) -> bool:
        """Whether nothing that is fixed already makes the head another than the plain one."""
        return all(
            len(grid) > 1 or self.neutral[key] is None or grid[0] == self.neutral[key]
            for key, grid in grids.items()
        )

    def _plain_or(
        self, values: tuple[float, ...], grids: Mapping[str, Sequence[float]]
    ) -> tuple[float, ...] | None:
        is_plain = values == tuple(self.neutral[key] for key in grids)
        return None if is_plain or not values else values

    def _try_path(self, candidates: list[Candidate]) -> None:
        """Try growing values until they do clearly worse and worse, or are refused.

        Values that did worse twice in a row, to less than the smallest did, are not followed either: what
        heavier ones are worth is not found on the way down.
        """
        means: list[float] = []
        falls = 0
        for candidate in candidates:
            self._try([candidate])
            mean, best = self._mean(candidate), self._best()
            falls = falls + 1 if means and mean < means[-1] else 0
            if falls and self._mean(best) - mean > HOPELESS * self._standard_error(best, candidate):
                return
            if falls >= MOST_FALLS and mean < means[0]:
                return
            if any(trial.refused for trial in self._trials[candidate]):
                return
            means.append(mean)

    def _try(self, candidates: list[Candidate]) -> None:
        for candidate in candidates:
            if candidate not in self._trials:
                found: dict[int, _Trial] = {}
                for number, fold in enumerate(self.folds):
                    found |= self._trial(number, fold, candidate)
                self._trials[candidate] = [found[position] for position in sorted(found)]

    def _trial(self, number: int, fold: Fold, candidate: Candidate) -> dict[int, _Trial]:
        problem = replace(fold.problem, max_iter=min(SEARCH_STEPS, fold.problem.max_iter))
        plain = self._plain_fit(number, problem, candidate.strength)
        tol = max(self.tol, PATH_TOLERANCE)
        refused = False
        if candidate.values is None:
            solution = plain.solution
        else:
            values = dict(zip(self.neutral, candidate.values, strict=True))
            solution = self.solve(problem, plain, values, tol, self._start(number, candidate))
            refused = problem.collapsed(plain, solution.theta)
        self._heads[number, candidate] = solution.theta
        head = problem.data.head(solution.theta)
        return {
            position: _Trial(score(head, candidate.values is None), solution.converged, refused)
            for position, score in fold.scores.items()
        }

    def _plain_fit(self, number: int, problem: Problem, strength: float) -> Plain:
        if (number, strength) not in self._plain:
            near = [found for (fold, _), found in self._plain.items() if fold == number]
            start = near[-1].solution.theta if near else None
            decay = self.decay(strength, problem.data.total)
            self._plain[number, strength] = problem.plain(decay, max(self.tol, PATH_TOLERANCE), start)
        return self._plain[number, strength]

    def _start(self, number: int, candidate: Candidate) -> Head | None:
        """The head of the next smaller weights tried on the same fold: a path from small weights."""
        smaller = [
            other
            for fold, other in self._heads
            if fold == number
            and other.strength == candidate.strength
            and other.values is not None
            and candidate.values is not None
            and all(mine >= its for mine, its in zip(candidate.values, other.values, strict=True))
        ]
        return self._heads[number, max(smaller, key=lambda other: other.cost)] if smaller else None

    def _best(self) -> Candidate:
        """Of those not refused on any fold the one of the highest mean score."""
        return max(self._admitted(), key=self._mean)

    def _admitted(self) -> list[Candidate]:
        plain = [candidate for candidate in self._trials if candidate.values is None]
        admitted = [
            candidate
            for candidate, trials in self._trials.items()
            if not any(trial.refused for trial in trials) and np.isfinite(self._mean(candidate))
        ]
        return admitted or plain or list(self._trials)

    def _mean(self, candidate: Candidate) -> float:
        return float(np.mean([trial.score.mean for trial in self._trials[candidate]]))

    def _choice(self, name: str, keys: list[str]) -> Choice:
        best = self._best()
        errors = {candidate: self._standard_error(best, candidate) for candidate in self._trials}
        within = [
            candidate
            for candidate in self._admitted()
            if self._mean(best) - self._mean(candidate) <= errors[candidate]
        ]
        # Of the smallest values that will do, the strength that is best for them: for the plain head what a
        # plain fit would have chosen.
        smallest = min(within, key=lambda candidate: (candidate.cost, -self._mean(candidate)))
        chosen = max((c for c in self._admitted() if c.values == smallest.values), key=self._mean)
        tried, trials = list(self._trials), list(self._trials.values())

        def column(position: int, key: str) -> NDArray[np.float64]:
            neutral = self.neutral[key]
            plain = float("nan") if neutral is None else neutral
            return np.array([plain if c.values is None else c.values[position] for c in tried])

        results = {key: column(position, key) for position, key in enumerate(keys)} | {
            name: np.array([candidate.strength for candidate in tried]),
            "plain": np.array([candidate.values is None for candidate in tried]),
            "mean_score": np.array([self._mean(candidate) for candidate in tried]),
            "scores": np.array([[trial.score.mean for trial in row] for row in trials]),
            "standard_error": np.array([errors[candidate] for candidate in tried]),
            "converged": np.array([[trial.converged for trial in row] for row in trials]),
            "refused": np.array([[trial.refused for trial in row] for row in trials]),
            "chosen": np.array([candidate == chosen for candidate in tried]),
        }
        values = None if chosen.values is None else dict(zip(keys, chosen.values, strict=True))
        return Choice(chosen.strength, values, results)

    def _standard_error(self, best: Candidate, other: Candidate) -> float:
        """Of the mean difference between two candidates' scores, the domains being a sample of domains."""
        pairs = list(zip(self._trials[best], self._trials[other], strict=True))
        return standard_error(
            np.array([a.score.mean - b.score.mean for a, b in pairs]),
            np.array([_variance_of_difference(a.score, b.score) for a, b in pairs]),
        )


def standard_error(differences: NDArray[np.float64], variances: NDArray[np.float64]) -> float:
    """Of a mean over domains, which are a sample of domains, of differences between two heads.

    The spread of the domains' differences tells it, but with few domains not well; so never less than what
    the samples within the domains alone make uncertain. It is widened, for so few domains, to where
    Student's distribution is as certain as the normal one at one standard error.

    Args:
        differences: Of each domain, ``(m,)``.
        variances: What its samples alone make uncertain of each, ``(m,)``.

    Returns:
        The standard error, at least 0; of a single domain what its samples tell.
    """
    count = len(differences)
    within = float(np.sqrt(variances.sum()) / count)
    if count < 2:
        return within
    between = differences.std(ddof=1) / np.sqrt(count)
    return max(float(t.ppf(norm.cdf(1), count - 1) * between), within)


def _variance_of_difference(a: HeldOutScore, b: HeldOutScore) -> float:
    """Of a domain's difference between two mean scores; 0 where only the means are known."""
    if a.samples is None or b.samples is None or a.weight is None or len(a.samples) < 2:
        return 0.0
    differences = a.samples - b.samples
    centred = differences - a.weight @ differences
    return float(np.square(a.weight * centred).sum() * len(centred) / (len(centred) - 1))


def deal(sizes: NDArray[np.intp]) -> list[list[int]]:
    """Domains in at most ``MOST_FOLDS`` folds of about equal size: the largest first, to the smallest."""
    folds: list[list[int]] = [[] for _ in range(min(MOST_FOLDS, len(sizes)))]
    for position in np.argsort(-sizes, kind="stable").tolist():
        min(folds, key=lambda fold: (sizes[fold].sum(), len(fold))).append(position)
    return [sorted(fold) for fold in folds]
