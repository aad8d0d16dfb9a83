"""What is measured of predictions: over all samples, for each domain and for each group."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hessalign import metrics
from hessalign.checks import require_choice, require_number, require_whole
from hessalign.inputs import read_domains
from hessalign.metrics.reading import (
    length_of,
    log_softmax,
    read_logits,
    read_probabilities,
    read_targets,
    read_weight,
)
from hessalign.metrics.slicing import HIGHER_IS_BETTER, OF_ONE_CLASS, Measure

if TYPE_CHECKING:
    import polars as pl

BINS = 15
"""Bins of the calibration error by default, as in Guo et al., "On Calibration of Modern Neural Networks"."""

Kind = Literal["domain", "group"]


@dataclass(frozen=True, eq=False)
class Slices:
    """Metrics of slices of the samples, each by itself.

    Attributes:
        kind: What the slices are: ``"domain"`` or ``"group"``.
        names: Their ids; of groups that are domain × class ``(domain, class)``. ``m`` of them.
        counts: Samples of each, ``(m,)``.
        values: Of each metric ``(m,)``; NaN where it is not defined, as the AUROC of a single class is not.
        training_shares: Share of each slice in the training samples, ``(m,)``, or None where not known.
    """

    kind: Kind
    names: Sequence[Hashable]
    counts: NDArray[np.intp]
    values: Mapping[str, NDArray[np.float64]]
    training_shares: NDArray[np.float64] | None = None

    def worst(self, metric: str) -> float:
        """The worst value: the smallest, or the largest of a loss. NaN where it is defined for no slice."""
        position = self._worst(metric)
        return float("nan") if position is None else float(self.values[metric][position])

    def worst_name(self, metric: str) -> Hashable | None:
        """Id of the slice that is worst; the first of them if several are. None where none is defined."""
        position = self._worst(metric)
        return None if position is None else self.names[position]

    def mean(self, metric: str) -> float:
        """Mean over slices, each counting the same; of those for which the metric is defined."""
        return self._mean(metric, np.ones(len(self.names)))

    def training_mean(self, metric: str) -> float:
        """Mean over slices, each by its share of the training samples; NaN where the shares are not known."""
        if self.training_shares is None:
            require_choice("metric", metric, tuple(self.values))
            return float("nan")
        return self._mean(metric, self.training_shares)

    def to_frame(self) -> "pl.DataFrame":
        """A row for each slice: its id, ``samples``, ``training_share`` if known, and every metric."""
        return metrics.slices_frame(self)

    def _worst(self, metric: str) -> int | None:
        require_choice("metric", metric, tuple(self.values))
        losses = -self.values[metric] if HIGHER_IS_BETTER[metric] else self.values[metric]
        unknown = np.isnan(losses)
        return None if unknown.all() else int(np.where(unknown, -np.inf, losses).argmax())

    def _mean(self, metric: str, weight: NDArray[np.float64]) -> float:
        require_choice("metric", metric, tuple(self.values))
        values = self.values[metric]
        weight = np.where(np.isnan(values), 0.0, weight)
        total = weight.sum()
        return float(np.where(weight > 0, values, 0.0) @ weight / total) if total > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What [evaluate][hessalign.metrics.evaluate] found.

    Attributes:
        samples: How many there were.
        overall: Each metric over all samples.
        domains: Of each domain; None if none were given.
        groups: Of each group; None if neither domains nor groups were given.
    """

    samples: int
    overall: Mapping[str, float]
    domains: Slices | None
    groups: Slices | None

    def summary(self) -> dict[str, float]:
        """All numbers by name: ``accuracy``, ``worst_group_accuracy``, ``mean_domain_log_loss`` and so on.

        Names are ``METRIC``, or ``worst_``, ``mean_`` or ``training_mean_``, then ``domain_`` or ``group_``,
        then ``METRIC``. Those over the training's shares are there if these are known.

        Returns:
            The numbers.
        """
        numbers = dict(self.overall)
        for slices in (self.domains, self.groups):
            if slices is not None:
                for metric in slices.values:
                    numbers[f"worst_{slices.kind}_{metric}"] = slices.worst(metric)
                    numbers[f"mean_{slices.kind}_{metric}"] = slices.mean(metric)
                    if slices.training_shares is not None:
                        numbers[f"training_mean_{slices.kind}_{metric}"] = slices.training_mean(metric)
        return numbers

    def value(self, name: str) -> float:
        """One number of the summary.

        Args:
            name: As in [summary][hessalign.metrics.Evaluation.summary]; hyphens may stand for underscores.

        Returns:
            The number; NaN where it is not defined.

        Raises:
            ValueError: If there is no number of that name here.
        """
        numbers = self.summary()
        key = str(name).replace("-", "_")
        if key not in numbers:
            raise ValueError(f"name: {name!r} is not known here; allowed are {', '.join(numbers)}")
        return numbers[key]


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


def value_for_scoring(found: Evaluation, name: str) -> float:
    """A number of an evaluation, the higher the better: losses with their sign changed."""
    value = found.value(name)
    return value if HIGHER_IS_BETTER[parse_metric(name)[0]] else -value


def is_metric(name: object) -> bool:
    """Whether this is the name of a number that only this module has: of domains or groups, or ``"ece"``."""
    try:
        return isinstance(name, str) and (parse_metric(name)[1] is not None or name == "ece")
    except ValueError:
        return False


def parse_metric(name: str) -> tuple[str, Kind | None]:
    """The metric of a name, and what it is summarised over, if anything."""
    key = str(name).replace("-", "_")
    if key in HIGHER_IS_BETTER:
        return key, None
    kinds: tuple[Kind, ...] = ("domain", "group")
    for summary in ("worst", "mean"):
        for kind in kinds:
            start = f"{summary}_{kind}_"
            if key.startswith(start) and key.removeprefix(start) in HIGHER_IS_BETTER:
                return key.removeprefix(start), kind
    raise ValueError(
        f"name: {name!r} is not known; allowed are {', '.join(HIGHER_IS_BETTER)}, each alone or after "
        "worst_domain_, mean_domain_, worst_group_ or mean_group_"
    )


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
