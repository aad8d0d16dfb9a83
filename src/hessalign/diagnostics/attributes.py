r"""What differs between two domains: label proportions, feature means, feature covariances, or confidence.

When anything differs, all parts of gradient and Hessian move. The four statistics here are kept apart instead
by conditioning, each on what comes before it: labels; features given the label; logits given the features.

All four are squared distances of two means in units of their own spread, ``D² = ‖m_e − m_f‖²``, so that they
can be compared: to second order each is the information, in nats, by which one sample tells the two domains
apart (Jeffreys divergence). What chance adds is subtracted, and ``z`` counts standard deviations from none.
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
NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Difference:
    """One attribute's difference between two domains.

    Attributes:
        attribute: Name.
        effect: In nats, without what chance adds; at least 0.
        z: Standard deviations above what chance gives.
        by_group: The effect within each group of targets, in nats, NaN where a group is too small; for label
            proportions each group's part of the sum.
    """

    attribute: str
    effect: float
    z: float
    by_group: tuple[float, ...]

    @property
    def found(self) -> bool:
        """Whether chance is ruled out."""
        return self.z >= CERTAIN


def attribute_names(loss: HeadLoss) -> tuple[str, str, str, str]:
    """Names of the four attributes under a loss."""
    if isinstance(loss, SquaredError):
        return "target distribution", "feature mean", "feature covariance", "curvature"
    return "label proportions", "feature mean", "feature covariance", "confidence"


def rank(differences: Sequence[Difference]) -> list[Difference]:
    """The largest first; those that chance may explain come last."""
    return sorted(
        differences, key=lambda item: (item.found, item.effect if item.found else item.z), reverse=True
    )


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
    """

    def __init__(self, domains: Sequence[DomainSamples], loss: HeadLoss, generator: torch.Generator) -> None:
        self.names = attribute_names(loss)
        self.group_count = 1 + max(int(domain.groups.max()) for domain in domains)
        features = [domain.derivatives.features.double() for domain in domains]
        whitened = _whiten(features, [domain.groups for domain in domains])
        explained = _explained_logits(
            torch.cat(features), torch.cat([domain.logits.double() for domain in domains]), generator
        ).split(list(map(len, domains)))
        self.counts = [torch.bincount(domain.groups, minlength=self.group_count) for domain in domains]
        self.moments: list[list[_GroupMoments | None]] = []
        for domain, white, logits in zip(domains, whitened, explained, strict=True):
            confidence = _confidence(domain.logits.double(), domain.targets, loss)
            unexplained = confidence - _confidence(logits, domain.targets, loss)
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
        statistics = (_mean_statistic, _covariance_statistic, _confidence_statistic)
        found = [self._labels(self.counts[first], self.counts[second])]
        for name, statistic in zip(self.names[1:], statistics, strict=True):
            found.append(self._combine(name, statistic, pairs))
        return rank(found)

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
        if not total:
            return Difference(name, 0.0, 0.0, tuple(by_group))
        return _difference(name, effect / total, math.sqrt(variance) / total, by_group)


def _difference(name: str, effect: float, spread: float, by_group: Sequence[float]) -> Difference:
    if effect <= NEGLIGIBLE:
        z = min(0.0, effect / spread) if spread > 0 else 0.0
    else:
        z = effect / spread if spread > 0 else math.inf
    return Difference(name, max(0.0, effect), z, tuple(by_group))


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


def _whiten(features: Sequence[Tensor], groups: Sequence[Tensor]) -> list[Tensor]:
    """Features along their leading directions, in units of their spread within domains and groups."""
    everything = torch.cat(list(features))
    sizes = list(map(len, features))
    group_ids = torch.cat(list(groups))
    domain_ids = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    within_groups = _about_means(everything, group_ids)
    total = within_groups.T @ within_groups / len(everything)
    values, vectors = torch.linalg.eigh(total)
    most = max(2, len(everything) // SAMPLES_FOR_DIRECTION)
    kept = (values > 1e-10 * values[-1]).nonzero().squeeze(1)[-most:]
    if not len(kept):
        return [part[:, :0] for part in features]
    directions = vectors[:, kept] / values[kept].sqrt()
    within = _about_means(within_groups, domain_ids * (1 + int(group_ids.max())) + group_ids)
    inner = directions.T @ (within.T @ within) @ directions
    inner_values, inner_vectors = torch.linalg.eigh(inner / len(within))
    # A direction that varies between domains alone must not count without limit.
    scale = inner_vectors / inner_values.clamp(min=1e-3).sqrt()
    return list(((everything - everything.mean(0)) @ (directions @ scale)).split(sizes))


def _about_means(values: Tensor, ids: Tensor) -> Tensor:
    """Rows less the mean of those with the same id."""
    count = 1 + int(ids.max())
    sums = torch.zeros(count, values.shape[1], dtype=values.dtype).index_add(0, ids, values)
    sizes = torch.bincount(ids, minlength=count).clamp(min=1)
    means: Tensor = sums / sizes.unsqueeze(1)
    return values - means[ids]


def _explained_logits(features: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
    """Logits by one linear map of the features for all domains; each half by the other half's fit."""
    ones = torch.ones(len(features), 1, dtype=features.dtype)
    augmented = torch.cat([features, ones], dim=1)
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
