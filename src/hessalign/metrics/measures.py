"""What is measured of predictions: over all samples, for each domain and for each group."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hessalign.checks import require_number, require_whole
from hessalign.inputs import read_domains
from hessalign.metrics.evaluation import Evaluation, Slices
from hessalign.metrics.reading import (
    length_of,
    log_softmax,
    read_logits,
    read_probabilities,
    read_targets,
    read_weight,
)
from hessalign.metrics.slicing import OF_ONE_CLASS, Measure

BINS = 15
"""Bins of the calibration error by default, as in Guo et al., "On Calibration of Modern Neural Networks"."""


def evaluate(
    targets: ArrayLike,
    probabilities: ArrayLike | None = None,
    *,
    logits: ArrayLike | None = None,
    domains: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    training_counts: Mapping[Any, float] | None = None,
    bins: int = BINS,
) -> Evaluation:
    """Every metric at once, over all samples, for each domain and for each group.

    Args:
        targets: Class of each sample, ``(n,)``, integers or strings; tensor, array, series or sequence.
        probabilities: Of each class, ``(n, C)``, in the order of ``classes``; of the second of two, ``(n,)``.
        logits: In the place of probabilities, ``(n, C)``; or one logit, ``(n,)`` or ``(n, 1)``.
        domains: Domain id of each sample, ``(n,)``, integers or strings.
        groups: Group id of each sample, ``(n,)``. Default: the group of a sample is its domain and its class.
        classes: The ``C`` classes in their order. Default: the sorted classes of ``targets`` if there are
            ``C`` of them, or ``0 … C−1`` if the targets are integers among these.
        sample_weight: Weight of each sample, ``(n,)``, at least 0; equal by default.
        training_counts: Training samples of each group, by its id, for the mean by training share:
            [count_groups][hessalign.metrics.count_groups] of the training samples.
        bins: Of the calibration error, default 15.

    Returns:
        Everything that was measured.

    Raises:
        ValueError: If an argument has the wrong length or shape, a value is NaN or out of range, a target
            is no class, or predicted classes are given in the place of probabilities.

    Warns:
        UntrustworthyWarning: If every probability is 0 or 1, as of predicted classes: accuracies stand, but
            log-loss, AUROC and calibration error say nothing more.

    Examples:
        >>> from hessalign.metrics import evaluate
        >>> found = evaluate(["cow", "cow", "dog"], [0.2, 0.9, 0.8], domains=["a", "b", "b"])
        >>> round(found.overall["accuracy"], 3), found.groups.worst_name("accuracy")
        (0.667, ('b', 'cow'))
        >>> found.value("worst-group-accuracy")
        0.0
    """
    require_whole("bins", bins, least=1)
    if (probabilities is None) == (logits is None):
        raise ValueError(
            f"probabilities, logits: exactly one is needed, got {'both' if logits is not None else 'neither'}"
        )
    log_probabilities, predicted = (
        read_logits(logits) if probabilities is None else read_probabilities(probabilities)
    )
    labels, names = read_targets(targets, classes, *log_probabilities.shape)
    weight = read_weight(sample_weight, len(labels))
    measure = Measure(labels, log_probabilities, predicted, weight, bins)
    everything = measure.slices(np.zeros(len(labels), dtype=np.intp), 1)
    by_domain, codes = None, np.zeros(len(labels), dtype=np.intp)
    if domains is not None:
        found = read_domains("domains", domains, len(labels))
        codes = found.codes
        values = measure.slices(codes, len(found.names))
        by_domain = Slices("domain", found.names.tolist(), np.bincount(codes), values)
    by_group = None
    if groups is not None or domains is not None:
        group_names, positions = _groups(labels, names, domains, groups)
        by_group = Slices(
            "group",
            group_names,
            np.bincount(positions),
            measure.slices(positions, len(group_names)),
            _training_shares(training_counts, group_names),
        )
    elif training_counts is not None:
        raise ValueError("training_counts: are of groups, but neither groups nor domains are given")
    overall = {metric: float(values[0]) for metric, values in everything.items()}
    return Evaluation(len(labels), overall, by_domain, by_group)


def measure_split(
    targets: NDArray[np.integer[Any]],
    logits: NDArray[np.floating[Any]],
    training_counts: NDArray[np.integer[Any]] | None = None,
) -> dict[str, float]:
    """The numbers that records of runs hold of one split of one domain.

    The groups of a domain are its classes. Over them there are the worst, the mean, and the mean by training
    share, of accuracy, log-loss and calibration error; the others need two classes.

    Args:
        targets: Class of each sample, ``(n,)``, 0 to ``C − 1``.
        logits: Finite, ``(n, C)``.
        training_counts: Training samples of each class of the domain, ``(C,)``; None (default) for a domain
            that is not trained on.

    Returns:
        ``METRIC`` of all samples, ``worst_group_METRIC``, ``mean_group_METRIC`` and
        ``training_mean_group_METRIC``, by name. NaN where a number is not defined.

    Examples:
        >>> import numpy as np
        >>> from hessalign.metrics import measure_split
        >>> found = measure_split(np.array([0, 0, 1]), np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0]]))
        >>> round(found["accuracy"], 3), found["worst_group_accuracy"], found["auroc"]
        (0.667, 0.5, 1.0)
    """
    samples = len(logits)
    measure = Measure(
        targets.astype(np.intp),
        log_softmax(logits),
        logits.argmax(1) if samples else np.zeros(0, dtype=np.intp),
        np.ones(samples),
        BINS,
    )
    everything = measure.slices(np.zeros(samples, dtype=np.intp), 1)
    groups, positions = np.unique(measure.labels, return_inverse=True)
    shares = None
    if training_counts is not None and training_counts.sum() > 0:
        shares = training_counts[groups] / training_counts.sum()
    by_class = Slices(
        "group",
        groups.tolist(),
        np.bincount(positions),
        measure.of_one_class(positions, len(groups)),
        shares,
    )
    return {
        **{metric: float(values[0]) for metric, values in everything.items()},
        **{f"worst_group_{metric}": by_class.worst(metric) for metric in OF_ONE_CLASS},
        **{f"mean_group_{metric}": by_class.mean(metric) for metric in OF_ONE_CLASS},
        **{f"training_mean_group_{metric}": by_class.training_mean(metric) for metric in OF_ONE_CLASS},
    }


def count_groups(
    targets: ArrayLike, domains: ArrayLike | None = None, groups: ArrayLike | None = None
) -> dict[Any, int]:
    """Samples of each group, by the ids that [evaluate][hessalign.metrics.evaluate] gives them.

    Args:
        targets: Class of each sample, ``(n,)``.
        domains: Domain id of each sample, ``(n,)``; needed unless ``groups`` are given.
        groups: Group id of each sample, ``(n,)``; default: domain and class.

    Returns:
        Samples by group.

    Raises:
        ValueError: If lengths do not match, or neither is given.

    Examples:
        >>> from hessalign.metrics import count_groups
        >>> count_groups(["cow", "dog", "dog"], domains=["a", "a", "b"])
        {('a', 'cow'): 1, ('a', 'dog'): 1, ('b', 'dog'): 1}
    """
    if groups is None and domains is None:
        raise ValueError("domains, groups: one of them is needed, got neither")
    found = read_domains("targets", targets, length_of("targets", targets), "class")
    names, codes = _groups(found.codes, found.names.tolist(), domains, groups)
    return dict(zip(names, np.bincount(codes).tolist(), strict=True))


def _groups(
    labels: NDArray[np.intp], classes: Sequence[Any], domains: ArrayLike | None, groups: ArrayLike | None
) -> tuple[list[Hashable], NDArray[np.intp]]:
    """Ids of the groups that have samples, ascending, and each sample's position among them."""
    if groups is not None:
        found = read_domains("groups", groups, len(labels), "group")
        return found.names.tolist(), found.codes
    found = read_domains("domains", domains, len(labels))
    pairs, codes = np.unique(found.codes * len(classes) + labels, return_inverse=True)
    domain_names = found.names.tolist()
    return [(domain_names[p // len(classes)], classes[p % len(classes)]) for p in pairs.tolist()], codes


def _training_shares(
    counts: Mapping[Any, float] | None, names: Sequence[Hashable]
) -> NDArray[np.float64] | None:
    if counts is None:
        return None
    if not isinstance(counts, Mapping):
        raise ValueError(f"training_counts: must map group ids to counts, got {type(counts).__name__}")
    found = {name: require_number(f"training_counts[{name!r}]", n, least=0) for name, n in counts.items()}
    total = sum(found.values())
    if not any(found.get(name, 0.0) for name in names):
        raise ValueError(
            f"training_counts: none of the groups {', '.join(map(str, names[:5]))} has training samples; the "
            f"ids given are {', '.join(map(str, list(found)[:5]))}"
        )
    return np.array([found.get(name, 0.0) for name in names]) / total
