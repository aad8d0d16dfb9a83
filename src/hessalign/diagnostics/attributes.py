r"""What differs between two domains: label proportions, feature means, feature covariances, or confidence.

When anything differs, all parts of gradient and Hessian move. The four statistics here are kept apart instead
by conditioning, each on what comes before it: labels; features given the label; logits given the features.

All four are squared distances of two means in units of their own spread, ``D² = ‖m_e − m_f‖²``, so that they
can be compared: to second order each is the information, in nats, by which one sample tells the two domains
apart (Jeffreys divergence). What chance adds is subtracted, and ``z`` counts standard deviations from none.

None of them depends on the unit or the origin of a feature. What too few samples cannot tell is not told:
a covariance in more directions than there are samples for, or confidence beyond what the features explain
where no map from features to logits can be fitted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hessalign.diagnostics.groups import DomainSamples
from hessalign.head import HeadLoss, SquaredError

CERTAIN = 4.0
"""From this many standard deviations on, a difference counts as found."""

# A group that has fewer samples in one of two domains tells nothing about covariances there.
FEWEST_IN_GROUP = 5
# Directions of features are kept up to one for so many samples: whitening more of them would fit noise.
SAMPLES_FOR_DIRECTION = 10
# A group's covariance needs so many samples for each direction in each domain. With two, differences come
# out a quarter too small; with less than one, equal domains lie nats apart.
SAMPLES_FOR_COVARIANCE = 3
# A linear map needs so many samples for each of its coefficients, in each half.
SAMPLES_FOR_COEFFICIENT = 1.5
NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Difference:
    """One attribute's difference between two domains.

    Attributes:
        attribute: Name.
        effect: In nats, without what chance adds; at least 0. None where the samples cannot tell it.
        z: Standard deviations above what chance gives; infinite where chance has no part in it, None where
            the samples cannot tell it.
        by_group: The effect within each group of targets, in nats, NaN where a group is too small; for label
            proportions each group's term of the sum.
        note: Why nothing is told, or what is told only in part; empty for most.
    """

    attribute: str
    effect: float | None
    z: float | None
    by_group: tuple[float, ...]
    note: str = ""

    @property
    def found(self) -> bool:
        """Whether chance is ruled out."""
        return self.z is not None and self.z >= CERTAIN


def attribute_names(loss: HeadLoss) -> tuple[str, str, str, str]:
    """Names of the four attributes under a loss."""
    if isinstance(loss, SquaredError):
        return "target distribution", "feature mean", "feature covariance", "curvature"
    return "label proportions", "feature mean", "feature covariance", "confidence"


def rank(differences: Sequence[Difference]) -> list[Difference]:
    """The largest first; then those that chance may explain; last those that cannot be told."""

    def key(item: Difference) -> tuple[bool, bool, float]:
        size = item.effect if item.found else item.z
        return item.effect is not None, item.found, -math.inf if size is None else size

    return sorted(differences, key=key, reverse=True)


@dataclass(frozen=True, eq=False)
class _GroupMoments:
    """What pairs of domains are compared by, for one domain and one group of targets.

    Attributes:
        count: Number of samples.
        mean: Of the whitened features, ``(k,)``.
        covariance: Of the whitened features, without bias, ``(k, k)``.
        fourth: Mean of ``‖z − mean‖⁴``.
        overlap: ``tr Cov(z zᵀ)²``.
        confidence_variance: Of the confidence.
        unexplained_mean: Of the confidence beyond what the features explain.
        unexplained_variance: Likewise.
    """

    count: int
    mean: Tensor
    covariance: Tensor
    fourth: float
    overlap: float
    confidence_variance: float
    unexplained_mean: float
    unexplained_variance: float


class AttributeComparison:
    """Compares pairs of domains; what all of them share, whitening and explained logits, is computed once.

    Args:
        domains: All domains of the report.
        loss: Of the head.
        generator: Draws the two halves of samples that explain each other's logits.
        resolution: Relative distance of neighbouring numbers in the type that the features came in: a
            feature that varies by less is constant.
    """

    def __init__(
        self,
        domains: Sequence[DomainSamples],
        loss: HeadLoss,
        generator: torch.Generator,
        resolution: float = 0.0,
    ) -> None:
        self.names = attribute_names(loss)
        self.group_count = 1 + max(int(domain.groups.max()) for domain in domains)
        sizes = list(map(len, domains))
        features = standardised(torch.cat([domain.derivatives.features for domain in domains]), resolution)
        whitened, self.dimensions = _whiten(features.split(sizes), [domain.groups for domain in domains])
        self.directions = whitened[0].shape[1]
        coefficients = self.dimensions + 1
        self.explainable = len(features) // 2 >= SAMPLES_FOR_COEFFICIENT * coefficients
        logits = torch.cat([domain.logits for domain in domains])
        explained = _explained_logits(features, logits, generator) if self.explainable else logits
        self.counts = [torch.bincount(domain.groups, minlength=self.group_count) for domain in domains]
        self.moments: list[list[_GroupMoments | None]] = []
        for domain, white, by_features in zip(domains, whitened, explained.split(sizes), strict=True):
            confidence = _confidence(domain.logits, domain.targets, loss)
            unexplained = confidence - _confidence(by_features, domain.targets, loss)
            members = [domain.groups == group for group in range(self.group_count)]
            self.moments.append(
                [_moments(white[rows], confidence[rows], unexplained[rows]) for rows in members]
            )

    def differences(self, first: int, second: int) -> list[Difference]:
        """The four differences between two domains, ranked."""
        pairs = {
            group: (one, other)
            for group, (one, other) in enumerate(zip(self.moments[first], self.moments[second], strict=True))
            if one is not None and other is not None
        }
        _, mean, covariance, confidence = self.names
        labels = self._labels(self.counts[first], self.counts[second])
        if not pairs:
            note = f"no class has {FEWEST_IN_GROUP} samples in both domains"
            return rank([labels, *(self._untold(name, note) for name in self.names[1:])])
        fewest = SAMPLES_FOR_COVARIANCE * self.directions
        covariances = {
            group: pair for group, pair in pairs.items() if min(side.count for side in pair) > fewest
        }
        return rank(
            [
                labels,
                self._combine(mean, _mean_statistic, pairs, note=self._about_mean()),
                self._combine(covariance, _covariance_statistic, covariances)
                if covariances and self.directions == self.dimensions
                else self._untold(covariance, self._about_covariance(pairs)),
                self._combine(confidence, _confidence_statistic, pairs)
                if self.explainable
                else self._untold(confidence, self._about_confidence()),
            ]
        )

    def _untold(self, name: str, note: str) -> Difference:
        return Difference(name, None, None, (math.nan,) * self.group_count, note)

    def _about_mean(self) -> str:
        if self.directions == self.dimensions:
            return ""
        return f"in the {self.directions} leading of {self.dimensions} directions alone: at least so much"

    def _about_covariance(self, pairs: Mapping[int, tuple[_GroupMoments, _GroupMoments]]) -> str:
        most = max(min(one.count, other.count) for one, other in pairs.values())
        return (
            f"too few samples for {self.dimensions} directions of features: {self._samples()} in all and "
            f"at most {most} of a class in both domains, where {SAMPLES_FOR_DIRECTION * self.dimensions} and "
            f"{SAMPLES_FOR_COVARIANCE * self.dimensions + 1} are needed"
        )

    def _about_confidence(self) -> str:
        needed = math.ceil(2 * SAMPLES_FOR_COEFFICIENT * (self.dimensions + 1))
        return (
            f"too few samples for {self.dimensions} directions of features: {self._samples()} in all, where "
            f"{needed} are needed"
        )

    def _samples(self) -> int:
        return sum(int(count.sum()) for count in self.counts)

    def _labels(self, *counts: Tensor) -> Difference:
        sizes = [int(count.sum()) for count in counts]
        shares = [count.double() / size for count, size in zip(counts, sizes, strict=True)]
        mean = (shares[0] + shares[1]) / 2
        terms = (shares[0] - shares[1]).square() / mean.clamp(min=NEGLIGIBLE)
        freedom = int((mean > 0).sum()) - 1
        chance = freedom * (1 / sizes[0] + 1 / sizes[1])
        spread = math.sqrt(2 * freedom) * (1 / sizes[0] + 1 / sizes[1])
        return _difference(self.names[0], float(terms.sum()) - chance, spread, terms.tolist())

    def _combine(
        self,
        name: str,
        statistic: Callable[[_GroupMoments, _GroupMoments], tuple[float, float]],
        pairs: Mapping[int, tuple[_GroupMoments, _GroupMoments]],
        note: str = "",
    ) -> Difference:
        """Mean over groups, a group weighing more the more samples both domains have of it."""
        by_group = [math.nan] * self.group_count
        effect = variance = total = 0.0
        for group, (first, second) in pairs.items():
            value, spread = statistic(first, second)
            weight = 1 / (1 / first.count + 1 / second.count)
            effect, variance, total = (
                effect + weight * value,
                variance + (weight * spread) ** 2,
                total + weight,
            )
            by_group[group] = max(0.0, value)
        return _difference(name, effect / total, math.sqrt(variance) / total, by_group, note)


def _difference(
    name: str, effect: float, spread: float, by_group: Sequence[float], note: str = ""
) -> Difference:
    if effect <= NEGLIGIBLE:
        z = min(0.0, effect / spread) if spread > 0 else 0.0
    else:
        z = effect / spread if spread > 0 else math.inf
    return Difference(name, max(0.0, effect), z, tuple(by_group), note)


def _moments(features: Tensor, confidence: Tensor, unexplained: Tensor) -> _GroupMoments | None:
    """None where there are too few samples."""
    count = len(features)
    if count < FEWEST_IN_GROUP:
        return None
    centred = features - features.mean(0)
    covariance = centred.T @ centred / (count - 1)
    return _GroupMoments(
        count=count,
        mean=features.mean(0),
        covariance=covariance,
        fourth=float(centred.square().sum(1).square().mean()) * (count / (count - 1)) ** 2,
        overlap=_mean_squared_overlap(centred, covariance),
        confidence_variance=float(confidence.var()),
        unexplained_mean=float(unexplained.mean()),
        unexplained_variance=float(unexplained.var()),
    )


def _mean_squared_overlap(centred: Tensor, covariance: Tensor) -> float:
    """``tr Cov(z zᵀ)²``: mean of ``⟨z zᵀ − S, z′ z′ᵀ − S⟩²`` over pairs of different samples."""
    forms, square = ((centred @ covariance) * centred).sum(1), covariance.square().sum()
    shifts = range(1, min(len(centred), 5))
    totals = [
        ((centred * centred.roll(shift, 0)).sum(1).square() - forms - forms.roll(shift) + square)
        .square()
        .mean()
        for shift in shifts
    ]
    return float(torch.stack(totals).mean())


def _mean_statistic(first: _GroupMoments, second: _GroupMoments) -> tuple[float, float]:
    """``‖m_e − m_f‖²`` of whitened features, less chance; and its standard deviation by chance."""
    noise = first.covariance / first.count + second.covariance / second.count
    squared = (first.mean - second.mean).square().sum()
    return float(squared - noise.trace()), math.sqrt(2) * float(noise.norm())


def _covariance_statistic(first: _GroupMoments, second: _GroupMoments) -> tuple[float, float]:
    """``½ ‖S_e − S_f‖_F²`` of whitened features, less chance."""
    squared = float((first.covariance - second.covariance).square().sum())
    chance = sum(
        (side.fourth - float(side.covariance.square().sum())) / (side.count - 1) for side in (first, second)
    )
    spread = math.sqrt(2) * (
        math.sqrt(first.overlap) / first.count + math.sqrt(second.overlap) / second.count
    )
    return (squared - chance) / 2, spread / 2


def _confidence_statistic(first: _GroupMoments, second: _GroupMoments) -> tuple[float, float]:
    """``((c_e − c_f) / s)²``, less chance.

    ``c``: mean confidence beyond what the features explain; ``s``: spread of the whole confidence.
    """
    spread = (first.confidence_variance + second.confidence_variance) / 2
    if spread <= NEGLIGIBLE**2:
        return 0.0, 0.0
    noise = first.unexplained_variance / first.count + second.unexplained_variance / second.count
    squared = (first.unexplained_mean - second.unexplained_mean) ** 2
    return (squared - noise) / spread, math.sqrt(2) * noise / spread


def _confidence(logits: Tensor, targets: Tensor, loss: HeadLoss) -> Tensor:
    """``tr A`` of each sample, for cross-entropy ``Σ_k p_k (1 − p_k)``, ``(n,)``."""
    return loss.derivatives(logits, loss.prepare_targets(logits, targets))[1].diagonal().sum(1)


def standardised(features: Tensor, resolution: float) -> Tensor:
    """Features about their mean in units of their spread, those that are constant left out.

    Args:
        features: ``(n, d)``, float64.
        resolution: Relative distance of neighbouring numbers in the type that they came in.
    """
    largest = features.abs().amax(0)
    # In units of the largest value no square overflows or vanishes.
    scaled = features / torch.where(largest > 0, largest, 1.0)
    centred = scaled - scaled.mean(0)
    spread = centred.square().mean(0).sqrt()
    varies = spread > max(resolution / 2, 16 * torch.finfo(features.dtype).eps)
    return centred[:, varies] / spread[varies]


def _whiten(features: Sequence[Tensor], groups: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """Features along their leading directions, in units of their spread within domains and groups.

    Returns:
        ``(n_e, k)`` for each domain, and the number of all directions in which features vary, at least ``k``.
    """
    everything = torch.cat(list(features))
    sizes = list(map(len, features))
    group_ids = torch.cat(list(groups))
    domain_ids = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    within_groups = _about_means(everything, group_ids)
    values, vectors = torch.linalg.eigh(within_groups.T @ within_groups / len(everything))
    varying = (values > 1e-10 * values.amax()).nonzero().squeeze(1) if len(values) else values.long()
    if not len(varying):
        return [part[:, :0] for part in features], 0
    kept = varying[-max(2, len(everything) // SAMPLES_FOR_DIRECTION) :]
    directions = vectors[:, kept] / values[kept].sqrt()
    within = _about_means(within_groups, domain_ids * (1 + int(group_ids.max())) + group_ids)
    inner = directions.T @ (within.T @ within) @ directions
    inner_values, inner_vectors = torch.linalg.eigh(inner / len(within))
    # A direction that varies between domains alone must not count without limit.
    scale = inner_vectors / inner_values.clamp(min=1e-3).sqrt()
    return list((everything @ (directions @ scale)).split(sizes)), len(varying)


def _about_means(values: Tensor, ids: Tensor) -> Tensor:
    """Rows less the mean of those with the same id."""
    count = 1 + int(ids.max())
    sums = torch.zeros(count, values.shape[1], dtype=values.dtype).index_add(0, ids, values)
    sizes = torch.bincount(ids, minlength=count).clamp(min=1)
    means: Tensor = sums / sizes.unsqueeze(1)
    return values - means[ids]


def _explained_logits(features: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
    """Logits by one linear map of the features for all domains; each half by the other half's fit.

    Args:
        features: Standardised, ``(n, d)``.
        logits: ``(n, C)``.
        generator: Draws the halves.
    """
    augmented = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
    order = torch.randperm(len(features), generator=generator)
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    explained = torch.empty_like(logits)
    for fitted, explained_rows in (halves, halves[::-1]):
        rows = augmented[fitted]
        gram = rows.T @ rows
        ridge = 1e-10 if len(rows) > 1.5 * rows.shape[1] else 1e-2
        gram.diagonal().add_(ridge * float(gram.diagonal().mean()))
        weights = torch.linalg.solve(gram, rows.T @ logits[fitted])
        explained[explained_rows] = augmented[explained_rows] @ weights
    return explained
