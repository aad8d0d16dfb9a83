"""What was found of predictions: metrics of slices, their summaries, and the names of both."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hessalign import metrics
from hessalign.checks import require_choice
from hessalign.metrics.slicing import HIGHER_IS_BETTER

if TYPE_CHECKING:
    import polars as pl

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


def value_for_scoring(found: Evaluation, name: str) -> float:
    """A number of an evaluation, the higher the better: losses with their sign changed."""
    value = found.value(name)
    return value if HIGHER_IS_BETTER[parse_metric(name)[0]] else -value


def is_metric(name: object) -> bool:
    """Whether this is the name of a number that scikit-learn lacks: of domains or groups, or ``"ece"``."""
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
