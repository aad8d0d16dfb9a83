r"""What differs between two domains: label proportions, feature means, feature covariances, or confidence.

When anything differs, all parts of gradient and Hessian move. The four statistics here are kept apart instead
by conditioning, each on what comes before it: labels; features given the label; logits given the features.

All four are squared distances of two means in units of their own spread, ``D² = ‖m_e − m_f‖²``, so that they
can be compared: to second order each is the information, in nats, by which one sample tells the two domains
apart (Jeffreys divergence). What chance adds is subtracted, and ``z`` counts standard deviations from none.

None of them depends on the unit or the origin of a feature. What too few samples cannot tell is not told:
a covariance in more directions than there are samples for, or confidence beyond what the features explain
where no map from features to logits can be fitted. For a covariance that is not told there is a shrunk value,
by Ledoit and Wolf, which is never ranked: what chance does to it is not known.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from hessalign.diagnostics.means import Pairs
from hessalign.diagnostics.samples import DomainSamples
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

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One attribute's difference between two domains.

    Attributes:
        attribute: Name.
        effect: In nats, without what chance adds; at least 0. None where the samples cannot tell it.
        z: Standard deviations above what chance gives; infinite where chance has no part in it, None where
            the samples cannot tell it.
        note: Why nothing is told, or what is told only in part; empty for most.
    """

    attribute: str
    effect: float | None
    z: float | None
    note: str = ""

    @property
    def found(self) -> bool:
        """Whether chance is ruled out."""
        return self.z is not None and self.z >= CERTAIN


@dataclass(frozen=True, eq=False)
class AttributeEffects:
    """One attribute's differences between all pairs of ``m`` domains.

    Attributes:
        name: Of the attribute.
        effect: In nats, ``(m, m)``, without what chance adds; at least 0. NaN where samples cannot tell it.
        z: Standard deviations above what chance gives, ``(m, m)``; infinite where chance has no part in it.
        note: Place in ``notes`` of why nothing is told, or what is told only in part, ``(m, m)``.
        notes: The first one is empty.
        by_group: The effect within each group of targets, in nats, for each chosen pair, ``(pairs, groups)``,
            NaN where a group is too small; for label proportions each group's term of the sum.
    """

    name: str
    effect: Array
    z: Array
    note: NDArray[np.intp]
    notes: tuple[str, ...]
    by_group: Array

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether chance is ruled out, ``(m, m)``."""
        return self.z >= CERTAIN

    def summaries(self) -> list[str]:
        """A sentence for what is told in part, one for what is not told, each with the number of pairs."""
        above = np.triu_indices(len(self.effect), 1)
        told = ~np.isnan(self.effect[above])
        sentences = []
        for what, chosen in (("told", told), ("not told", ~told)):
            counts = Counter(self.note[above][chosen & (self.note[above] > 0)].tolist())
            if counts:
                (common, _), others = counts.most_common(1)[0], len(counts) > 1
                sentences.append(
                    f"{self.name}: {what} for {counts.total()} of {len(told)} pairs of domains, "
                    f"{self.notes[common]}{'; for others see their notes' if others else ''}."
                )
        return sentences


def attribute_names(loss: HeadLoss) -> tuple[str, str, str, str]:
    """Names of the four attributes under a loss."""
    if isinstance(loss, SquaredError):
        return "target distribution", "feature mean", "feature covariance", "curvature"
    return "label proportions", "feature mean", "feature covariance", "confidence"


def ranking(
    effects: Sequence[AttributeEffects], first: NDArray[np.intp], second: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Order of the attributes for each pair, ``(pairs, attributes)``.

    The largest first; then those that chance may explain; last those that cannot be told.

    Returns:
        Places of the attributes, ``(pairs, attributes)``.
    """
    effect, z, found = (
        np.stack([values[first, second] for values in kinds], axis=1)
        for kinds in zip(*((each.effect, each.z, each.found) for each in effects), strict=True)
    )
    told = ~np.isnan(effect)
    size = np.where(told, np.where(found, effect, z), -np.inf)
    return np.lexsort((-size, ~found, ~told), axis=1)


@dataclass(frozen=True, eq=False)
class _GroupMoments:
    """What pairs of domains are compared by, for one group of targets in the domains that have enough of it.

    Attributes:
        domains: Indices of these domains, ``(p,)``.
        counts: Their numbers of samples, ``(p,)``.
        means: Of the whitened features, ``(p, k)``.
        covariances: Of the whitened features, without bias, ``(p, k, k)``.
        centred: Whitened features about their means, one block for each domain.
        confidence_variances: Of the confidence, ``(p,)``.
        unexplained_means: Of the confidence beyond what the features explain, ``(p,)``.
        unexplained_variances: Likewise, ``(p,)``.
    """

    domains: NDArray[np.intp]
    counts: Tensor
    means: Tensor
    covariances: Tensor
    centred: list[Tensor]
    confidence_variances: Tensor
    unexplained_means: Tensor
    unexplained_variances: Tensor

    @classmethod
    def of(
        cls,
        rows: Sequence[Tensor],
        white: Sequence[Tensor],
        confidence: Sequence[Tensor],
        rest: Sequence[Tensor],
    ) -> "_GroupMoments | None":
        """None where fewer than two domains have enough samples.

        Args:
            rows: The group's samples in each domain.
            white: Whitened features of each domain.
            confidence: Of each domain's samples.
            rest: The same beyond what the features explain.

        Returns:
            Moments of all domains that have enough; None where there are fewer than two.
        """
        domains = [index for index, chosen in enumerate(rows) if len(chosen) >= FEWEST_IN_GROUP]
        if len(domains) < 2:
            return None
        features = [white[index][rows[index]] for index in domains]
        means = [values.mean(0) for values in features]
        centred = [values - mean for values, mean in zip(features, means, strict=True)]
        unexplained = [rest[index][rows[index]] for index in domains]
        return cls(
            domains=np.array(domains),
            counts=torch.tensor([len(values) for values in features], dtype=torch.float64),
            means=torch.stack(means),
            covariances=torch.stack([values.T @ values / (len(values) - 1) for values in centred]),
            centred=centred,
            confidence_variances=torch.stack([confidence[index][rows[index]].var() for index in domains]),
            unexplained_means=torch.stack([values.mean() for values in unexplained]),
            unexplained_variances=torch.stack([values.var() for values in unexplained]),
        )

    def take(self, kept: Tensor) -> "_GroupMoments":
        """Of some of its domains alone."""
        return _GroupMoments(
            domains=self.domains[kept.numpy()],
            counts=self.counts[kept],
            means=self.means[kept],
            covariances=self.covariances[kept],
            centred=[self.centred[index] for index in kept.nonzero().flatten().tolist()],
            confidence_variances=self.confidence_variances[kept],
            unexplained_means=self.unexplained_means[kept],
            unexplained_variances=self.unexplained_variances[kept],
        )


class _GroupMean:
    """Mean of a statistic over groups, a group weighing more the more samples both domains have of it.

    Args:
        name: Of the attribute.
        domains: ``m``.
        pairs: Whose effects within groups are kept.
        groups: How many there are.
    """

    def __init__(self, name: str, domains: int, pairs: Pairs, groups: int) -> None:
        self.name = name
        self.effect, self.variance, self.total = np.zeros((3, domains, domains))
        self.chosen = tuple(np.array(pairs.chosen, dtype=np.intp).reshape(-1, 2).T)
        self.by_group = np.full((len(pairs.chosen), groups), np.nan)

    def add(self, group: int, moments: _GroupMoments, values: Tensor, spreads: Tensor) -> None:
        """Take in a group: what its statistic is for each pair, and its standard deviation by chance."""
        weights = (1 / _sums(1 / moments.counts)).numpy()
        place = np.ix_(moments.domains, moments.domains)
        self.effect[place] += weights * values.numpy()
        self.variance[place] += (weights * spreads.numpy()) ** 2
        self.total[place] += weights
        whole = np.full(self.effect.shape, np.nan)
        whole[place] = values.clamp(min=0).numpy()
        self.by_group[:, group] = whole[self.chosen]

    def effects(self, note: NDArray[np.intp], notes: tuple[str, ...]) -> AttributeEffects:
        """What comes out for each pair that has a group, with these notes."""
        total = np.where(self.total > 0, self.total, np.nan)
        return _effects(
            self.name, self.effect / total, np.sqrt(self.variance) / total, note, notes, self.by_group
        )


class AttributeComparison:
    """Compares all pairs of domains.

    Args:
        domains: All domains of the report.
        loss: Of the head.
        generator: Draws the two halves of samples that explain each other's logits.
        resolution: Relative distance of neighbouring numbers in the type that the features came in: a
            feature that varies by less is constant.
        pairs: Those to compare in full, group by group; by default all.

    Attributes:
        effects: The four attributes.
        group_count: Number of groups of targets.
        whitened: Features of each domain along their leading directions, in units of their spread within
            domains and groups, ``(n_e, k)``.
        shrunk: Difference of feature covariances with shrinkage, in nats, of the chosen pairs for which it is
            not told otherwise, ``(pairs,)``; NaN for others.
    """

    def __init__(
        self,
        domains: Sequence[DomainSamples],
        loss: HeadLoss,
        generator: torch.Generator,
        resolution: float = 0.0,
        pairs: Pairs | None = None,
    ) -> None:
        self.pairs = Pairs.all_of(len(domains)) if pairs is None else pairs
        self.names = attribute_names(loss)
        self.group_count = 1 + max(int(domain.groups.max()) for domain in domains)
        self.sizes = list(map(len, domains))
        groups = [domain.groups for domain in domains]
        features = standardised(torch.cat([domain.derivatives.features for domain in domains]), resolution)
        whitened, self.dimensions = _whiten(features.split(self.sizes), groups)
        self.whitened = whitened
        self.directions = whitened[0].shape[1]
        coefficients = self.dimensions + 1
        self.explainable = len(features) // 2 >= SAMPLES_FOR_COEFFICIENT * coefficients
        logits = torch.cat([domain.logits for domain in domains])
        explained = _explained_logits(features, logits, generator) if self.explainable else logits
        self.counts = torch.stack([torch.bincount(each, minlength=self.group_count) for each in groups])
        confidence = [_confidence(domain.logits, domain.targets, loss) for domain in domains]
        rest = [
            own - _confidence(by_features, domain.targets, loss)
            for domain, own, by_features in zip(domains, confidence, explained.split(self.sizes), strict=True)
        ]
        rows = [[(each == group).nonzero().flatten() for each in groups] for group in range(self.group_count)]
        means = [_GroupMean(name, len(domains), self.pairs, self.group_count) for name in self.names[1:]]
        for group, members in enumerate(rows):
            moments = _GroupMoments.of(members, whitened, confidence, rest)
            if moments is not None:
                self._add(means, group, moments)
        self.effects = (self._labels(), *self._told(means))
        self.shrunk = self._shrunk(features, groups)

    def differences(self, first: int, second: int) -> list[Difference]:
        """The four differences between two domains, ranked."""
        pair = np.array([first]), np.array([second])
        return [
            Difference(
                each.name,
                None if np.isnan(each.effect[first, second]) else float(each.effect[first, second]),
                None if np.isnan(each.z[first, second]) else float(each.z[first, second]),
                each.notes[each.note[first, second]],
            )
            for each in (self.effects[place] for place in ranking(self.effects, *pair)[0])
        ]

    def _add(self, means: Sequence[_GroupMean], group: int, moments: _GroupMoments) -> None:
        mean, covariance, confidence = means
        mean.add(group, moments, *_mean_statistics(moments))
        if self.explainable:
            confidence.add(group, moments, *_confidence_statistics(moments))
        enough = moments.counts > SAMPLES_FOR_COVARIANCE * self.directions
        if self.directions == self.dimensions and int(enough.sum()) > 1:
            able = moments.take(enough)
            covariance.add(group, able, *_covariance_statistics(able))

    def _told(self, means: Sequence[_GroupMean]) -> list[AttributeEffects]:
        """The three attributes that groups tell, with notes on what they do not tell."""
        count = len(self.sizes)
        plenty = self.counts.numpy()
        most = np.stack([np.minimum(row, plenty).max(1) for row in plenty])
        alone = most < FEWEST_IN_GROUP
        no_group = f"no class has {FEWEST_IN_GROUP} samples in both domains"
        found = []
        for each, about in zip(means, (self._about_mean, None, self._about_confidence), strict=True):
            notes, note = ["", no_group], np.where(alone, 1, 0)
            if about is not None:
                if text := about():
                    notes.append(text)
                    note[~alone] = 2
            else:
                untold = ~alone & (each.total == 0)
                for number in np.unique(most[untold]):
                    notes.append(self._about_covariance(int(number)))
                    note[untold & (most == number)] = len(notes) - 1
            note[np.diag_indices(count)] = 0
            found.append(each.effects(note, tuple(notes)))
        return found

    def _about_mean(self) -> str:
        if self.directions == self.dimensions:
            return ""
        return f"in the {self.directions} leading of {self.dimensions} directions alone: at least so much"

    def _about_covariance(self, most: int) -> str:
        return (
            f"too few samples for {self.dimensions} directions of features: {sum(self.sizes)} in all and "
            f"at most {most} of a class in both domains, where {SAMPLES_FOR_DIRECTION * self.dimensions} and "
            f"{SAMPLES_FOR_COVARIANCE * self.dimensions + 1} are needed"
        )

    def _about_confidence(self) -> str:
        if self.explainable:
            return ""
        needed = math.ceil(2 * SAMPLES_FOR_COEFFICIENT * (self.dimensions + 1))
        return (
            f"too few samples for {self.dimensions} directions of features: {sum(self.sizes)} in all, where "
            f"{needed} are needed"
        )

    def _labels(self) -> AttributeEffects:
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        shares = self.counts.double() / sizes.unsqueeze(1)
        totals, freedom = [], []
        for own in shares:
            mean = (own + shares) / 2
            totals.append(((own - shares).square() / mean.clamp(min=NEGLIGIBLE)).sum(1))
            freedom.append((mean > 0).sum(1) - 1)
        chance = _sums(1 / sizes)
        free = torch.stack(freedom).double()
        effect, spread = (torch.stack(totals) - free * chance).numpy(), ((2 * free).sqrt() * chance).numpy()
        alone = np.array(self.sizes) < 2
        untold = alone | alone[:, None]
        first, second = np.array(self.pairs.chosen, dtype=np.intp).reshape(-1, 2).T
        one, other = shares[first], shares[second]
        by_group = ((one - other).square() / ((one + other) / 2).clamp(min=NEGLIGIBLE)).numpy()
        return _effects(
            self.names[0],
            np.where(untold, np.nan, effect),
            spread,
            untold.astype(np.intp),
            ("", "a domain has a single sample"),
            by_group,
        )

    def _shrunk(self, features: Tensor, groups: Sequence[Tensor]) -> Array:
        """``½ ‖S_e − S_f‖_F²``, covariances shrunk as Ledoit and Wolf do, features whitened likewise."""
        covariance = self.effects[2].effect
        found = np.full(len(self.pairs.chosen), np.nan)
        wanted = [
            place
            for place, pair in enumerate(self.pairs.chosen)
            if np.isnan(covariance[pair]) and min(self.sizes[index] for index in pair) > 1
        ]
        if not wanted or not self.dimensions:
            return found
        centred = [
            _about_means(own, ids) for own, ids in zip(features.split(self.sizes), groups, strict=True)
        ]
        pooled = torch.cat(centred)
        share = ledoit_wolf_shrinkage(pooled.numpy(), assume_centered=True)
        within = pooled.T @ pooled / len(pooled)
        values, vectors = torch.linalg.eigh(within)
        shrunk = (1 - share) * values.clamp(min=0) + share * values.mean()
        if not bool((shrunk > 0).all()):
            return found
        blocks = {
            index: centred[index] @ (vectors / shrunk.sqrt())
            for index in sorted({index for place in wanted for index in self.pairs.chosen[place]})
        }
        shares = {
            index: float(ledoit_wolf_shrinkage(block.numpy(), assume_centered=True))
            for index, block in blocks.items()
        }
        for place in wanted:
            first, second = self.pairs.chosen[place]
            sides = [(blocks[index], shares[index]) for index in (first, second)]
            own = [_shrunk_product(side, side) for side in sides]
            found[place] = max(0.0, sum(own) - 2 * _shrunk_product(*sides)) / 2
        return found


def _shrunk_product(first: tuple[Tensor, float], second: tuple[Tensor, float]) -> float:
    """``⟨(1 − s) S + s μ I, (1 − t) T + t ν I⟩`` of two covariances, neither of them formed.

    Args:
        first: Rows about their mean, ``S = Rᵀ R / n`` and ``μ = tr S / d``, and ``s``.
        second: Likewise.

    Returns:
        The inner product.
    """
    (rows, s), (others, t) = first, second
    width = rows.shape[1]
    product = float((rows @ others.T).square().sum()) / (len(rows) * len(others))
    traces = float(rows.square().sum()) / len(rows), float(others.square().sum()) / len(others)
    # ⟨S, I⟩ = tr S: three of the four terms are the product of both traces over d.
    return (1 - s) * (1 - t) * product + (s + t - s * t) * traces[0] * traces[1] / width


def _effects(
    name: str, effect: Array, spread: Array, note: NDArray[np.intp], notes: tuple[str, ...], by_group: Array
) -> AttributeEffects:
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(spread > 0, effect / spread, np.where(effect > NEGLIGIBLE, np.inf, 0.0))
    z = np.where(effect <= NEGLIGIBLE, np.minimum(z, 0.0), z)
    z[np.isnan(effect)] = np.nan
    return AttributeEffects(name, np.maximum(effect, 0.0), z, note, notes, by_group)


def _sums(values: Tensor) -> Tensor:
    """``v_e + v_f`` of all pairs."""
    return values.unsqueeze(0) + values.unsqueeze(1)


def _mean_statistics(moments: _GroupMoments) -> tuple[Tensor, Tensor]:
    """``‖m_e − m_f‖²`` of whitened features, less chance; and its standard deviation by chance."""
    noise = moments.covariances / moments.counts.view(-1, 1, 1)
    traces = noise.diagonal(dim1=1, dim2=2).sum(1)
    squared = torch.stack([(moments.means - mean).square().sum(1) for mean in moments.means])
    flat = noise.flatten(1)
    products = flat @ flat.T
    norms = (_sums(products.diagonal()) + 2 * products).clamp(min=0).sqrt()
    return squared - _sums(traces), math.sqrt(2) * norms


def _covariance_statistics(moments: _GroupMoments) -> tuple[Tensor, Tensor]:
    """``½ ‖S_e − S_f‖_F²`` of whitened features, less chance; and its standard deviation by chance."""
    covariances, counts = moments.covariances, moments.counts
    fourth = torch.stack([values.square().sum(1).square().mean() for values in moments.centred])
    fourth = fourth * (counts / (counts - 1)).square()
    overlaps = [
        _mean_squared_overlap(values, covariance)
        for values, covariance in zip(moments.centred, covariances, strict=True)
    ]
    squared = torch.stack([(covariances - own).square().sum((1, 2)) for own in covariances])
    chance = (fourth - covariances.square().sum((1, 2))) / (counts - 1)
    spread = math.sqrt(2) * torch.tensor(overlaps, dtype=torch.float64).sqrt() / counts
    return (squared - _sums(chance)) / 2, _sums(spread) / 2


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


def _confidence_statistics(moments: _GroupMoments) -> tuple[Tensor, Tensor]:
    """``((c_e − c_f) / s)²``, less chance; and its standard deviation by chance.

    ``c``: mean confidence beyond what the features explain; ``s``: spread of the whole confidence.

    Returns:
        ``(p, p)`` each.
    """
    spread = _sums(moments.confidence_variances) / 2
    noise = _sums(moments.unexplained_variances / moments.counts)
    means = moments.unexplained_means
    squared = (means.unsqueeze(0) - means.unsqueeze(1)).square()
    varies = spread > NEGLIGIBLE**2
    divisor = torch.where(varies, spread, 1.0)
    return (
        torch.where(varies, (squared - noise) / divisor, 0.0),
        torch.where(varies, math.sqrt(2) * noise / divisor, 0.0),
    )


def _confidence(logits: Tensor, targets: Tensor, loss: HeadLoss) -> Tensor:
    """``tr A`` of each sample, for cross-entropy ``Σ_k p_k (1 − p_k)``, ``(n,)``."""
    return loss.derivatives(logits, loss.prepare_targets(logits, targets))[1].diagonal().sum(1)


def standardised(features: Tensor, resolution: float) -> Tensor:
    """Features about their mean in units of their spread, those that are constant left out.

    Args:
        features: ``(n, d)``, float64.
        resolution: Relative distance of neighbouring numbers in the type that they came in.

    Returns:
        ``(n, k)``, one column for each feature that varies.
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

    Returns:
        Like the logits.
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
