r"""Which shift domains show: in share of classes, in features within classes, in the relation of both.

Three numbers in nats per sample, each with ``z``, its standard deviations above what chance gives.

**Share of classes.** ``G = 2 Σ_ey n_ey log(n_ey n / (n_e n_y))`` is ``2n`` times the information between
domain and class; by chance it is ``χ²`` of ``(m−1)(C−1)`` degrees of freedom.

**Features within classes.** ``T = Σ_ey n_ey ‖S^(−1/2) (μ_ey − μ_y)‖²`` with the covariance ``S`` within
domain and class, in its leading ``k`` principal directions, at most one for ten samples and 30; by chance it
is ``χ²`` of ``k Σ_y (m_y−1)`` degrees of freedom.

Of both the size is ``max(0, (statistic − degrees) / 2n)`` and ``z = (statistic − degrees) / √(2 degrees)``.

**Relation of both.** Two logistic regressions on these directions, whitened, are fitted on four fifths of
each domain and class and scored on the last fifth, in turn. Both have an intercept for each domain, so that a
shift in the share of classes, or a move of all features, does not count; one has slopes for each domain as
well. The size is what these take off the log-loss, ``z`` the same in standard errors.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

CERTAIN = 4.0
"""From this many standard deviations on, a shift counts as found."""
SAMPLES_FOR_DIRECTION = 10
MOST_DIRECTIONS = 30
FOLDS = 5
NEGLIGIBLE = 1e-9
"""Of the largest variance; directions with less are constant."""

Kind = Literal["share of classes", "features within classes", "relation of both"]
Array = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Shift:
    """One kind of shift between domains.

    Attributes:
        kind: ``"share of classes"``, ``"features within classes"`` or ``"relation of both"``.
        nats: How large, per sample, without what chance adds; at least 0. NaN where samples cannot tell it.
        z: Standard deviations above chance; NaN likewise.
    """

    kind: Kind
    nats: float
    z: float

    @property
    def found(self) -> bool:
        """Whether chance is ruled out."""
        return self.z >= CERTAIN


def shifts(features: Array, labels: Codes, domains: Codes) -> tuple[Shift, Shift, Shift]:
    """The three shifts that domains show.

    Args:
        features: ``(n, d)``, finite.
        labels: Class of each sample, ``0 … C−1``, ``(n,)``.
        domains: Domain of each sample, ``0 … m−1``, ``(n,)``.

    Returns:
        Share of classes, features within classes, relation of both.
    """
    counts = _table(domains, labels)
    white, cells = _whitened(features, labels, domains, counts)
    return _share(counts), _within(white, labels, domains, counts), _relation(white, labels, domains, cells)


def shares_to_style(features: Array, labels: Codes, domains: Codes) -> float:
    """How far shares of classes move the domains' means, beside what else moves them.

    Only along the directions that tell classes apart: those that the class means ``a_y`` span, taken within
    domains. A domain's mean is ``Σ_y p_e(y) a_y``, by its shares of classes, and its style ``δ_e``. The ratio
    is ``Σ_e ‖Σ_y (p_e(y) − p̄(y)) a_y‖² / Σ_e ‖δ_e − δ̄‖²``. Centring takes out both; above 1 it takes out
    more of what tells classes apart than of style.

    Returns:
        The ratio; infinite where only the shares move the means, 0 where they do not.
    """
    counts = _table(domains, labels)
    white, _ = _whitened(features, labels, domains, counts)
    sums = np.zeros((*counts.shape, white.shape[1]))
    np.add.at(sums, (domains, labels), white)
    present = (counts > 0)[:, :, None]
    cells = np.where(present, sums / np.maximum(counts, 1)[:, :, None], 0)
    within = np.where(present, cells - cells.sum(1, keepdims=True) / present.sum(1, keepdims=True), 0)
    classes = within.sum(0) / np.maximum(present.sum(0), 1)
    shares = counts / counts.sum(1, keepdims=True)
    style = sums.sum(1) / counts.sum(1)[:, None] - shares @ classes
    _, sizes, directions = np.linalg.svd(classes - classes.mean(0), full_matrices=False)
    directions = directions[sizes > NEGLIGIBLE * max(float(sizes[0]), np.finfo(float).tiny)]
    by_shares = np.square((shares - shares.mean(0)) @ classes @ directions.T).sum()
    by_style = np.square((style - style.mean(0)) @ directions.T).sum()
    if by_style > 0:
        return float(by_shares / by_style)
    return float("inf") if by_shares > 0 else 0.0


def _table(domains: Codes, labels: Codes) -> Array:
    """Samples by domain and class, ``(m, C)``."""
    counts = np.zeros((int(domains.max()) + 1, int(labels.max()) + 1))
    np.add.at(counts, (domains, labels), 1)
    return counts


def _by_chance(kind: Kind, statistic: float, degrees: int, samples: float) -> Shift:
    if degrees < 1:
        return Shift(kind, float("nan"), float("nan"))
    above = statistic - degrees
    return Shift(kind, float(max(0.0, above / (2 * samples))), float(above / np.sqrt(2 * degrees)))


def _share(counts: Array) -> Shift:
    total = counts.sum()
    expected = np.outer(counts.sum(1), counts.sum(0)) / total
    filled = counts > 0
    statistic = 2 * float((counts[filled] * np.log(counts[filled] / expected[filled])).sum())
    degrees = (int((counts.sum(1) > 0).sum()) - 1) * (int((counts.sum(0) > 0).sum()) - 1)
    return _by_chance("share of classes", statistic, degrees, total)


def _whitened(features: Array, labels: Codes, domains: Codes, counts: Array) -> tuple[Array, Codes]:
    """Leading directions within domain and class, of variance 1 there, ``(n, k)``; each sample's cell."""
    cells: Codes = np.unique(domains * counts.shape[1] + labels, return_inverse=True)[1]
    sizes = np.bincount(cells)
    sums = np.zeros((len(sizes), features.shape[1]))
    np.add.at(sums, cells, features)
    centred = features - (sums / sizes[:, None])[cells]
    freedom = len(features) - len(sizes)
    most = min(features.shape[1], MOST_DIRECTIONS, freedom // SAMPLES_FOR_DIRECTION)
    if most < 1:
        return np.zeros((len(features), 0)), cells
    if features.shape[1] <= len(features):
        variances, directions = np.linalg.eigh(centred.T @ centred / freedom)
        variances, directions = variances[::-1][:most], directions[:, ::-1][:, :most]
    else:
        _, sizes_of, rows = np.linalg.svd(centred, full_matrices=False)
        variances, directions = np.square(sizes_of[:most]) / freedom, rows[:most].T
    kept = variances > NEGLIGIBLE * max(float(variances[0]), np.finfo(float).tiny)
    middle = features - features.mean(0)
    return np.asarray(middle @ directions[:, kept] / np.sqrt(variances[kept])), cells


def _within(white: Array, labels: Codes, domains: Codes, counts: Array) -> Shift:
    kind: Kind = "features within classes"
    width = white.shape[1]
    statistic, degrees = 0.0, 0
    for label in range(counts.shape[1]):
        rows = labels == label
        present = counts[:, label] > 0
        if present.sum() < 2:
            continue
        sums = np.zeros((counts.shape[0], width))
        np.add.at(sums, domains[rows], white[rows])
        moves = sums[present] / counts[present, label, None] - white[rows].mean(0)
        statistic += float(counts[present, label] @ np.square(moves).sum(1))
        degrees += width * (int(present.sum()) - 1)
    return _by_chance(kind, statistic, degrees, counts.sum())


def _relation(white: Array, labels: Codes, domains: Codes, cells: Codes) -> Shift:
    kind: Kind = "relation of both"
    sizes = np.bincount(cells)
    usable = sizes[cells] >= FOLDS
    if not white.shape[1] or len(np.unique(labels[usable])) < 2 or len(np.unique(domains[usable])) < 2:
        return Shift(kind, float("nan"), float("nan"))
    white, labels, domains, cells = white[usable], labels[usable], domains[usable], cells[usable]
    own = np.eye(int(domains.max()) + 1)[domains]
    pooled = np.hstack([white, own])
    slopes = np.hstack([pooled, (own[:, :, None] * white[:, None, :]).reshape(len(white), -1)])
    losses = [np.zeros(len(labels)), np.zeros(len(labels))]
    for fitted, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(white, cells):
        for design, found in zip((pooled, slopes), losses, strict=True):
            head = LogisticRegression(max_iter=1000).fit(design[fitted], labels[fitted])
            own_column = np.searchsorted(head.classes_, labels[held_out])
            found[held_out] = -head.predict_log_proba(design[held_out])[np.arange(len(held_out)), own_column]
    gain = losses[0] - losses[1]
    error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
    z = float(gain.mean() / error) if error > 0 else 0.0
    return Shift(kind, float(max(0.0, gain.mean())), z)
