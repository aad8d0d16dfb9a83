r"""Choosing a configuration without the target domain, and what an oracle would have chosen.

All rules but the oracle see held-out images of the source domains only. With two source domains,
leave-one-domain-out cannot tell penalties apart: one domain is left to train on, where every alignment is
zero.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

import numpy as np

from hessalign.experiments.colored_mnist import PenaltyTerms, RestartRecord

STANDARD_ERRORS = 2.0
"""Two domains' accuracies that differ by no more than this count as equal."""

RISK_STANDARD_ERRORS = 1.0
"""Two domains' risks that differ by no more than this count as equal.

One, not two: the rule prefers accurate configurations, and more accurate ones lean on colour, so it ends at
the edge of what counts as equal.
"""


@dataclass(frozen=True)
class Candidate:
    """A configuration after one number of steps, with what may be known about it.

    Accuracies in percent; all values are means over the restarts.

    Attributes:
        restarts: Its records, which differ by their seed alone, all with terms.
        step: At which training would end.
        accuracies: Held-out accuracy in each source domain.
        standard_error: Of the difference of the two accuracies, from the number of held-out images.
        predictive_values: For label 0 and label 1, in each source domain, the percentage of the held-out
            images predicted so that carry the label, where one right and one wrong image are added (rule of
            succession) lest it be certain. Empty for records without the accuracies of the classes.
        predictive_errors: For each label the standard error of the difference of the two shares.
        risks: Held-out cross-entropy in each source domain; empty for records without it.
        risk_error: Standard error of the difference of the two risks; 0 without them.
        source_accuracy: On the images that were trained on, mean over domains.
        gradient_distance: ``Σ_e ‖G_e − Ḡ‖²``.
        off_diagonal: ``off(H_e)``, mean over domains.
        target_accuracy: For the oracle, and to report.
        target_deviation: Its population standard deviation over the restarts, likewise.
    """

    restarts: Sequence[RestartRecord]
    step: int
    accuracies: tuple[float, ...]
    standard_error: float
    predictive_values: tuple[tuple[float, ...], ...]
    predictive_errors: tuple[float, ...]
    risks: tuple[float, ...]
    risk_error: float
    source_accuracy: float
    gradient_distance: float
    off_diagonal: float
    target_accuracy: float
    target_deviation: float

    @property
    def gap(self) -> float:
        """Largest difference between the domains' accuracies."""
        return max(self.accuracies) - min(self.accuracies)

    @property
    def risk_gap(self) -> float:
        """Largest difference between the domains' risks, in standard errors."""
        return (max(self.risks) - min(self.risks)) / self.risk_error

    @property
    def predictive_differences(self) -> tuple[float, ...]:
        """By label, the largest difference between what a prediction is worth in two domains, in points."""
        return tuple(max(values) - min(values) for values in self.predictive_values)

    @property
    def predictive_gap(self) -> float:
        """The largest of these differences in standard errors."""
        pairs = zip(self.predictive_differences, self.predictive_errors, strict=True)
        return max(difference / error for difference, error in pairs)


def candidate(restarts: Sequence[RestartRecord]) -> Candidate:
    """What is known about a configuration at the last step.

    Args:
        restarts: Records that differ by their seed alone.

    Returns:
        Means over the restarts at their last step.

    Raises:
        ValueError: If a record has no terms.
    """
    _require_terms(restarts)
    return _candidate_at(restarts, len(restarts[0].terms) - 1)


def candidates(restarts: Sequence[RestartRecord]) -> list[Candidate]:
    """What is known about a configuration at every recorded step after the full weight has set in.

    Training may be ended at any of them: when to stop is part of a schedule.

    Args:
        restarts: Records that differ by their seed alone.

    Returns:
        One for each step, in order; the last step alone where none is recorded after the anneal step.

    Raises:
        ValueError: If a record has no terms.
    """
    _require_terms(restarts)
    after = [i for i, terms in enumerate(restarts[0].terms) if terms.step > restarts[0].spec.anneal_step]
    return [_candidate_at(restarts, i) for i in after or [len(restarts[0].terms) - 1]]


def _require_terms(restarts: Sequence[RestartRecord]) -> None:
    for record in restarts:
        if not record.terms:
            raise ValueError(
                f"restarts: {record.spec.method}, seed {record.spec.seed} was run without its terms being "
                "logged, so nothing is known of its accuracy on held-out source images"
            )


def _candidate_at(restarts: Sequence[RestartRecord], index: int) -> Candidate:
    metrics = [record.history[index] for record in restarts]
    measured = [record.terms[index] for record in restarts]
    accuracies = tuple(map(fmean, zip(*(terms.held_out_accuracies for terms in measured), strict=True)))
    images = [sum(counts) for counts in zip(*(terms.held_out_images for terms in measured), strict=True)]
    variances = [a * (100 - a) / n for a, n in zip(accuracies, images, strict=True)]
    values, value_errors = _predictive_values([terms for terms in measured if terms.held_out_class_images])
    know_risks = all(terms.held_out_losses for terms in measured)
    losses = zip(*(terms.held_out_losses for terms in measured), strict=True) if know_risks else ()
    errors = [error for terms in measured for error in terms.held_out_loss_errors] if know_risks else []
    return Candidate(
        restarts=restarts,
        step=metrics[0].step,
        accuracies=accuracies,
        standard_error=math.sqrt(sum(variances)),
        predictive_values=values,
        predictive_errors=value_errors,
        risks=tuple(map(fmean, losses)),
        risk_error=math.hypot(*errors) / len(restarts),
        source_accuracy=fmean(m.source_accuracy for m in metrics),
        gradient_distance=fmean(terms.gradient_distance for terms in measured),
        off_diagonal=fmean(terms.off_diagonal for terms in measured),
        target_accuracy=fmean(m.target_accuracy for m in metrics),
        target_deviation=pstdev([m.target_accuracy for m in metrics]),
    )


def _predictive_values(
    measured: Sequence[PenaltyTerms],
) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """By label and domain, and the standard error of the difference for each label."""
    if not measured:
        return (), ()
    images = np.array([terms.held_out_class_images for terms in measured])  # restarts, domains, labels
    right = np.array([terms.held_out_class_accuracies for terms in measured]) / 100 * images
    wrong = (images - right)[:, :, ::-1]  # as the other label
    predicted = (right + wrong).sum(0) + 2
    shares = 100 * (right.sum(0) + 1) / predicted
    errors = np.sqrt((shares * (100 - shares) / predicted).sum(0))
    return tuple(map(tuple, shares.T.tolist())), tuple(errors.tolist())


def _source_accuracy(candidates: Sequence[Candidate]) -> Candidate:
    return max(candidates, key=lambda c: fmean(c.accuracies))


def _worst_source(candidates: Sequence[Candidate]) -> Candidate:
    return max(candidates, key=lambda c: min(c.accuracies))


def _gradient_agreement(candidates: Sequence[Candidate]) -> Candidate:
    return min(candidates, key=lambda c: c.gradient_distance)


def _of_equal_accuracies(
    candidates: Sequence[Candidate], prefer: Callable[[Sequence[Candidate]], Candidate]
) -> Candidate:
    equal = [c for c in candidates if c.gap <= STANDARD_ERRORS * c.standard_error]
    return prefer(equal) if equal else min(candidates, key=lambda c: c.gap)


def _invariant(candidates: Sequence[Candidate]) -> Candidate:
    return _of_equal_accuracies(candidates, _source_accuracy)


def _agreement(candidates: Sequence[Candidate]) -> Candidate:
    return _of_equal_accuracies(candidates, _gradient_agreement)


def _equal_risks(candidates: Sequence[Candidate]) -> Candidate:
    equal = [c for c in candidates if c.risk_gap <= RISK_STANDARD_ERRORS]
    return _source_accuracy(equal) if equal else min(candidates, key=lambda c: c.risk_gap)


def _equal_predictions(candidates: Sequence[Candidate]) -> Candidate:
    equal = [c for c in candidates if c.predictive_gap <= STANDARD_ERRORS]
    return _gradient_agreement(equal) if equal else min(candidates, key=lambda c: c.predictive_gap)


def _oracle(candidates: Sequence[Candidate]) -> Candidate:
    return max(candidates, key=lambda c: c.target_accuracy)


@dataclass(frozen=True)
class Rule:
    """A way to choose among configurations.

    Attributes:
        meaning: In words.
        choose: One of at least one candidate.
        sees_target: Whether it looks at the target domain.
        needs: What of a candidate it looks at that old records lack: a field that is empty for them.
    """

    meaning: str
    choose: Callable[[Sequence[Candidate]], Candidate]
    sees_target: bool = False
    needs: str = "accuracies"


RULES: dict[str, Rule] = {
    "source accuracy": Rule(
        "highest accuracy on held-out source images (training-domain validation)", _source_accuracy
    ),
    "worst source domain": Rule("highest accuracy in the worst source domain", _worst_source),
    "gradient agreement": Rule("smallest distance between the domains' head gradients", _gradient_agreement),
    "equal accuracies": Rule(
        "highest held-out accuracy among the configurations whose source domains differ by no more than "
        f"{STANDARD_ERRORS:g} standard errors; the smallest difference where there is none",
        _invariant,
    ),
    "agreement": Rule(
        "smallest distance between the domains' head gradients among the configurations whose source "
        f"domains' held-out accuracies differ by no more than {STANDARD_ERRORS:g} standard errors; the "
        "smallest difference where there is none",
        _agreement,
    ),
    "equal risks": Rule(
        "highest held-out accuracy among the configurations whose source domains' held-out cross-entropies "
        f"differ by no more than {RISK_STANDARD_ERRORS:g} standard error; the smallest difference where "
        "there is none",
        _equal_risks,
        needs="risks",
    ),
    "equal predictions": Rule(
        "smallest distance between the domains' head gradients among the configurations where what a "
        "prediction is worth, the share of held-out images predicted as a label that carry it, differs "
        f"between source domains by no more than {STANDARD_ERRORS:g} standard errors for each label; the "
        "smallest difference where there is none",
        _equal_predictions,
        needs="predictive_values",
    ),
    "oracle": Rule("highest accuracy in the target domain", _oracle, sees_target=True),
}


def choose_by_every_rule(groups: Iterable[Sequence[RestartRecord]]) -> dict[str, Candidate]:
    """By each rule, a configuration and the step at which to stop.

    A rule that needs what some record lacks is left out. Give groups of as many restarts each: standard
    errors shrink with their number, so rules that count differences in them favour smaller groups.

    Args:
        groups: Restarts that differ by their seed alone together, each with terms.

    Returns:
        The choice by the name of each rule that can be followed.

    Raises:
        ValueError: If a record has no terms.
    """
    pool = [c for group in groups for c in candidates(group)]
    return {
        name: rule.choose(pool) for name, rule in RULES.items() if all(getattr(c, rule.needs) for c in pool)
    }
