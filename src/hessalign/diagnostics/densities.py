r"""Diversity shift and correlation shift of two domains, by densities of their features.

With the densities ``p`` and ``q`` of features ``z`` in two domains and their class probabilities given ``z``,

$$D_{\text{div}} = \tfrac12 \int_S |p(z) - q(z)|\,dz, \qquad
D_{\text{cor}} = \tfrac12 \int_T \sqrt{p(z)\,q(z)} \sum_y |p(y \mid z) - q(y \mid z)|\,dz,$$

where ``S`` is what only one of the domains has and ``T`` is what they share. Both lie between 0 and 1.

Source: Ye et al., "OoD-Bench: Quantifying and Understanding Two Dimensions of Out-of-Distribution
Generalization", CVPR 2022. Differently from its code, the directions of ``z`` are found on other samples than
the densities, no sample counts in its own density, what is shared is told by the ratio of the densities and
not by their size, classes keep their shares, and what chance gives is told.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

SHARED = 0.01
"""A place is shared where the smaller density is at least this share of the larger one."""
MOST_DIRECTIONS = 4
"""Each further one would need four times as many samples."""
SAMPLES_IN_DOMAIN, SAMPLES_FOR_CLASS = 100, 20
"""What a domain needs in all, and for each class of the pair."""
MOST_SAMPLES = 1000
"""Of a domain, drawn at random: the cost grows with their square."""
PERMUTATIONS = 20

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Size:
    """How large a shift is, and how much of it is chance.

    Attributes:
        value: 0 to 1; NaN where the samples cannot tell.
        chance: Its mean where the same samples are dealt to the two domains at random.
        z: Standard deviations of that by which the value lies above it.
    """

    value: float = math.nan
    chance: float = math.nan
    z: float = math.nan


@dataclass(frozen=True)
class DensityShift:
    """The two shifts of a pair of domains.

    Attributes:
        diversity: What only one of the domains has.
        correlation: How differently they have their classes in what they share.
        directions: Along how many directions of the features; 0 where nothing is told.
        note: What is not told, and why; empty where everything is.
    """

    diversity: Size
    correlation: Size
    directions: int
    note: str = ""


def density_shift(
    first: tuple[Array, Codes], second: tuple[Array, Codes], random: np.random.Generator
) -> DensityShift:
    """The shifts between two domains.

    One half of the samples, and then the other, gives up to four directions: half of them are those in which
    the means of a class differ most between the domains, the others tell the classes apart. The other half
    gives the densities, by Gaussian kernels of Silverman's width.

    Args:
        first: Features in units of their spread within domains and classes, ``(n, d)``; classes, ``(n,)``.
        second: The same of the other domain.
        random: Draws the halves, and what chance gives.

    Returns:
        Both shifts.
    """
    classes = np.union1d(first[1], second[1])
    fewest = min(len(first[1]), len(second[1]))
    needed = max(SAMPLES_IN_DOMAIN, SAMPLES_FOR_CLASS * len(classes))
    if needed > MOST_SAMPLES:
        return _untold(f"{len(classes)} classes are too many for densities; {_most_classes()} can be told")
    if fewest < needed:
        return _untold(
            f"{fewest} samples are too few for densities of {len(classes)} classes; {needed} of each domain "
            "are needed"
        )
    if not first[0].shape[1]:
        return _untold("the features do not vary")
    taken = [_at_most(*domain, random) for domain in (first, second)]
    features = np.concatenate([values for values, _ in taken])
    labels = np.searchsorted(classes, np.concatenate([each for _, each in taken]))
    domains = np.repeat([0, 1], [len(each) for _, each in taken])
    width = min(MOST_DIRECTIONS, int(math.log(np.bincount(domains).min() / 2, 4)))
    found = []
    for fitted, held_out in _halves(labels, domains, random):
        directions = _directions(features[fitted], labels[fitted], domains[fitted], width)
        found.append(_sizes(features[held_out] @ directions, labels[held_out], domains[held_out], random))
    sizes = np.mean(found, axis=0)
    chance, spread = sizes[1:].mean(axis=0), sizes[1:].std(axis=0, ddof=1)
    above = (sizes[0] - chance) / np.where(spread > 0, spread, 1.0)
    diversity, correlation = (Size(*map(float, each)) for each in zip(sizes[0], chance, above, strict=True))
    return DensityShift(diversity, correlation, directions.shape[1])


def _untold(note: str) -> DensityShift:
    return DensityShift(Size(), Size(), 0, note)


def _most_classes() -> int:
    return MOST_SAMPLES // SAMPLES_FOR_CLASS


def _at_most(features: Array, labels: Codes, random: np.random.Generator) -> tuple[Array, Codes]:
    if len(labels) <= MOST_SAMPLES:
        return features, labels
    chosen = np.sort(random.choice(len(labels), MOST_SAMPLES, replace=False))
    return features[chosen], labels[chosen]


def _halves(labels: Codes, domains: Codes, random: np.random.Generator) -> Iterator[tuple[Codes, Codes]]:
    """Both halves of each class in each domain, each once the first."""
    drawn = random.permutation(len(labels))
    order = drawn[np.lexsort((labels[drawn], domains[drawn]))]
    halves = order[::2], order[1::2]
    yield halves
    yield halves[::-1]


def _directions(features: Array, labels: Codes, domains: Codes, width: int) -> Array:
    """Orthonormal directions, ``(d, k)``: those in which the domains' means differ, then the classes'."""
    classes = int(labels.max()) + 1
    cells = domains * classes + labels
    counts = np.bincount(cells, minlength=2 * classes).reshape(2, classes, 1)
    by_cell = np.zeros((2 * classes, features.shape[1]))
    np.add.at(by_cell, cells, features)
    sums = by_cell.reshape(2, classes, -1)
    means = sums / np.maximum(counts, 1)
    shared = (counts > 0).all(axis=0)
    moves = np.sqrt(counts.prod(axis=0) / counts.sum(axis=0).clip(1)) * (means[0] - means[1])
    if not shared.any():
        moves = np.subtract(*(sums.sum(axis=1) / counts.sum(axis=1)))[None]
    by_domain = _leading(moves, -(-width // 2))
    pooled = sums.sum(axis=0) / counts.sum(axis=0).clip(1)
    apart = np.sqrt(counts.sum(axis=0)) * (pooled - features.mean(axis=0))
    apart -= apart @ by_domain @ by_domain.T
    by_class = _leading(apart, width - by_domain.shape[1])
    return np.hstack([by_domain, by_class])


def _leading(rows: Array, count: int) -> Array:
    """Leading right singular vectors that are not 0, as columns."""
    _, sizes, vectors = np.linalg.svd(rows, full_matrices=False)
    rank = int((sizes > 1e-9 * max(float(sizes[0]), np.finfo(float).tiny)).sum())
    return np.asarray(vectors[: min(count, rank)].T)


def _sizes(points: Array, labels: Codes, domains: Codes, random: np.random.Generator) -> Array:
    """Diversity and correlation, ``(1 + PERMUTATIONS, 2)``: as it is, then with domains dealt at random."""
    count, width = points.shape
    classes = int(labels.max()) + 1
    dealt = np.stack([domains, *(random.permutation(domains) for _ in range(PERMUTATIONS))])
    sizes = np.bincount(domains)
    bandwidth = (4 / ((width + 2) * sizes.min())) ** (1 / (width + 4))
    kernel = np.exp(-0.5 * cdist(points, points, "sqeuclidean") / bandwidth**2)
    np.fill_diagonal(kernel, 0)
    members = np.zeros((count, len(dealt), 2, classes))
    members[np.arange(count)[:, None], np.arange(len(dealt)), dealt.T, labels[:, None]] = 1
    sums = (kernel @ members.reshape(count, -1)).reshape(members.shape)
    # A kernel's factor drops out of everything below.
    joint = sums / (sizes[:, None] - members.sum(axis=3, keepdims=True))
    densities = joint.sum(axis=3)
    low, high, total = densities.min(axis=2), densities.max(axis=2), densities.sum(axis=2)
    divisor = np.where(total > 0, total, 1.0)
    given = joint / np.where(densities > 0, densities, 1.0)[..., None]
    shared = low >= SHARED * high
    diversity = np.where(shared, 0.0, (high - low) / divisor)
    differing = np.abs(given[:, :, 0] - given[:, :, 1]).sum(axis=2)
    correlation = np.where(shared, np.sqrt(low * high) / divisor * differing, 0.0)
    weights = 0.5 / sizes[dealt.T]
    return np.stack([(weights * each).sum(axis=0) for each in (diversity, correlation)], axis=1)
