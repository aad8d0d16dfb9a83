"""Choosing strength and weights without the target domain: leave-one-domain-out on the source domains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hessalign.estimator.problem import PATH_TOLERANCE, Plain, Problem

AUTO_GRID = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Weights that ``"auto"`` tries for alpha and for beta, beside 0."""
STRENGTH_DECADES = range(-4, 3)
"""Powers of ten that ``"auto"`` tries for ``C · s²`` or ``s² / l2``, ``s`` the features' root mean square."""

# Most steps of a fit that is only to be compared; "converged" of the results tells which ended short of it.
SEARCH_STEPS = 100

Head = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fold:
    """A domain held out and the problem on the others.

    Attributes:
        problem: The other domains.
        score: Score on the domain held out of ``[W | b]``, the higher the better.
    """

    problem: Problem
    score: Callable[[Head], "HeldOutScore"]


@dataclass(frozen=True, eq=False)
class HeldOutScore:
    """How well a head does on the domain held out.

    Attributes:
        mean: The score.
        samples: Of each sample, ``(n,)``, where the score is their mean; else None.
        weight: Weight of each sample in that mean, adding up to 1.
    """

    mean: float
    samples: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = None


@dataclass(frozen=True, order=True)
class Candidate:
    """What is tried: the decay that a strength stands for, and the weights."""

    strength: float
    alpha: float
    beta: float


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen, and everything that was tried.

    Attributes:
        candidate: The choice.
        results: ``alpha``, ``beta``, the strength under its own name, and ``mean_score``, ``(k,)``;
            ``scores``, ``converged`` and ``refused``, ``(k, m)``, a column for each domain held out;
            ``standard_error``, ``(k,)``, of the mean difference to the best; and ``chosen``, ``(k,)``.
    """

    candidate: Candidate
    results: dict[str, NDArray[Any]]


@dataclass(eq=False)
class _Trial:
    """One candidate on one fold."""

    score: HeldOutScore
    converged: bool
    refused: bool


@dataclass(eq=False)
class Search:
    """Trials of candidates on every fold, remembered in the order they were made.

    Attributes:
        folds: One for each domain.
        decay: From a strength to the weight of ``½ ‖W‖²`` beside the mean loss, for a sum of weights.
        tol: See [solve][hessalign.estimator.solver.solve].
    """

    folds: Sequence[Fold]
    decay: Callable[[float, float], float]
    tol: float
    _trials: dict[Candidate, list[_Trial]] = field(default_factory=dict)
    _plain: dict[tuple[int, float], Plain] = field(default_factory=dict)
    _paths: dict[tuple[int, Candidate], Head] = field(default_factory=dict)

    def run(
        self, strengths: Sequence[float], alphas: Sequence[float], betas: Sequence[float], name: str
    ) -> Choice:
        """Try and choose.

        The strengths are tried without alignment first. Then the weights of the gradient distance with the
        best of them and its two neighbours, then those of the Hessian distance with the beta and again the
        three strengths around the best so far.

        Args:
            strengths: In ascending order of the decay's inverse.
            alphas: One number, or what to choose from in ascending order, 0 first.
            betas: The same.
            name: What the strength is called.
        """
        first = alphas[0], betas[0]
        self._try([Candidate(strength, *first) for strength in strengths])
        for values, chosen in ((betas, "beta"), (alphas, "alpha")):
            if len(values) > 1:
                best = self._best()
                position = strengths.index(best.strength)
                around = strengths[max(0, position - 1) : position + 2]
                self._try(
                    [
                        Candidate(
                            strength, *((best.alpha, value) if chosen == "beta" else (value, best.beta))
                        )
                        for strength, value in product(around, values)
                    ]
                )
        return self._choice(name)

    def _try(self, candidates: list[Candidate]) -> None:
        for candidate in candidates:
            if candidate not in self._trials:
                self._trials[candidate] = [
                    self._trial(number, fold, candidate) for number, fold in enumerate(self.folds)
                ]

    def _trial(self, number: int, fold: Fold, candidate: Candidate) -> _Trial:
        problem = replace(fold.problem, max_iter=min(SEARCH_STEPS, fold.problem.max_iter))
        plain = self._plain_fit(number, problem, candidate.strength)
        tol = max(self.tol, PATH_TOLERANCE)
        if candidate.alpha == candidate.beta == 0:
            solution = plain.solution
        else:
            solution = problem.aligned(
                plain, candidate.alpha, candidate.beta, tol, self._start(number, candidate)
            )
        self._paths[number, candidate] = solution.theta
        refused = bool(candidate.alpha or candidate.beta) and problem.collapsed(plain, solution.theta)
        return _Trial(fold.score(problem.data.head(solution.theta)), solution.converged, refused)

    def _plain_fit(self, number: int, problem: Problem, strength: float) -> Plain:
        if (number, strength) not in self._plain:
            near = [found for (fold, _), found in self._plain.items() if fold == number]
            start = near[-1].solution.theta if near else None
            decay = self.decay(strength, problem.data.total)
            self._plain[number, strength] = problem.plain(decay, max(self.tol, PATH_TOLERANCE), start)
        return self._plain[number, strength]

    def _start(self, number: int, candidate: Candidate) -> Head | None:
        """The head of the next smaller weight tried on the same fold: a path from small weights."""
        smaller = [
            other
            for fold, other in self._paths
            if fold == number
            and other.strength == candidate.strength
            and other.alpha <= candidate.alpha
            and other.beta <= candidate.beta
            and (other.alpha or other.beta)
        ]
        return self._paths[number, max(smaller, key=_weight)] if smaller else None

    def _best(self) -> Candidate:
        """Of those not refused on any fold the one of the highest mean score."""
        return max(self._admitted(), key=self._mean)

    def _admitted(self) -> list[Candidate]:
        plain = [candidate for candidate in self._trials if _weight(candidate) == 0]
        admitted = [
            candidate
            for candidate, trials in self._trials.items()
            if not any(trial.refused for trial in trials) and np.isfinite(self._mean(candidate))
        ]
        return admitted or plain or list(self._trials)

    def _mean(self, candidate: Candidate) -> float:
        return float(np.mean([trial.score.mean for trial in self._trials[candidate]]))

    def _choice(self, name: str) -> Choice:
        best = self._best()
        errors = {candidate: self._standard_error(best, candidate) for candidate in self._trials}
        within = [
            candidate
            for candidate in self._admitted()
            if self._mean(best) - self._mean(candidate) <= errors[candidate]
        ]
        # Of the smallest weights that will do, the strength that is best for them: where they are 0, what a
        # plain fit would have chosen.
        smallest = min(within, key=lambda candidate: (_weight(candidate), -self._mean(candidate)))
        same = [c for c in self._admitted() if (c.alpha, c.beta) == (smallest.alpha, smallest.beta)]
        chosen = max(same, key=self._mean)
        tried, trials = list(self._trials), list(self._trials.values())
        results = {
            "alpha": np.array([candidate.alpha for candidate in tried]),
            "beta": np.array([candidate.beta for candidate in tried]),
            name: np.array([candidate.strength for candidate in tried]),
            "mean_score": np.array([self._mean(candidate) for candidate in tried]),
            "scores": np.array([[trial.score.mean for trial in row] for row in trials]),
            "standard_error": np.array([errors[candidate] for candidate in tried]),
            "converged": np.array([[trial.converged for trial in row] for row in trials]),
            "refused": np.array([[trial.refused for trial in row] for row in trials]),
            "chosen": np.array([candidate == chosen for candidate in tried]),
        }
        return Choice(chosen, results)

    def _standard_error(self, best: Candidate, other: Candidate) -> float:
        """Of the mean difference between two candidates' scores, the domains being a sample of domains.

        The spread of the domains' differences tells it, but with few domains not well; so never less than
        what the samples within the domains alone make uncertain.
        """
        pairs = list(zip(self._trials[best], self._trials[other], strict=True))
        count = len(pairs)
        between = np.std([a.score.mean - b.score.mean for a, b in pairs], ddof=1) / np.sqrt(count)
        variances = [_variance_of_difference(a.score, b.score) for a, b in pairs]
        return float(max(between, np.sqrt(sum(variances)) / count))


def _weight(candidate: Candidate) -> float:
    return candidate.alpha + candidate.beta


def _variance_of_difference(a: HeldOutScore, b: HeldOutScore) -> float:
    """Of a domain's difference between two mean scores; 0 where only the means are known."""
    if a.samples is None or b.samples is None or a.weight is None or len(a.samples) < 2:
        return 0.0
    differences = a.samples - b.samples
    centred = differences - a.weight @ differences
    return float(np.square(a.weight * centred).sum() * len(centred) / (len(centred) - 1))
