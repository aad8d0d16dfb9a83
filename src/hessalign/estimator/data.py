r"""Samples as the objective needs them.

All of it is computed on features divided by their root mean square, so that nothing depends on their unit.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessalign.head import HeadLoss

# Features and targets whose squares, and the squares of these, are finite numbers other than zero.
LARGEST = {"float64": 1e75, "float32": 1e9}
# Rows for each feature up to which rotated ones, of as many columns as rows, are worth what they cost.
FEW_ROWS = 0.9

Head = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Samples:
    """What is fitted, checked, as arrays.

    Attributes:
        features: ``(n, d)``.
        targets: As the loss takes them, ``(n,)`` or ``(n, C)``.
        domains: Domain of each sample, ``0 … m−1``, ``(n,)``.
        groups: Group of each sample, ``(n,)``, likewise; None if none were given.
        weight: Weight of each row, positive, ``(n,)``.
        ids: Sample that each row is a view of, ``0 … N−1``, ``(n,)``; None where each row is a sample.
    """

    features: NDArray[np.floating]
    targets: NDArray[np.generic]
    domains: NDArray[np.intp]
    groups: NDArray[np.intp] | None
    weight: NDArray[np.float64]
    ids: NDArray[np.intp] | None = None

    def rows(self, chosen: NDArray[np.bool_]) -> "Samples":
        """Some of the samples; their domains and groups are numbered anew, in the same order."""
        return Samples(
            self.features[chosen],
            self.targets[chosen],
            _numbered(self.domains[chosen]),
            None if self.groups is None else _numbered(self.groups[chosen]),
            self.weight[chosen],
            None if self.ids is None else _numbered(self.ids[chosen]),
        )

    def of_each(self) -> NDArray[np.intp]:
        """Row of each sample, ``(N,)``: of its views the first one, which is the sample as it is."""
        return np.arange(len(self.weight)) if self.ids is None else np.unique(self.ids, return_index=True)[1]

    def without_views(self) -> "Samples":
        """The first row of each sample, with the weight of all of them."""
        if self.ids is None:
            return self
        first = self.of_each()
        chosen = np.zeros(len(self.weight), dtype=bool)
        chosen[first] = True
        total: NDArray[np.float64] = np.bincount(self.ids, self.weight)[self.ids[chosen]].astype(np.float64)
        return replace(self.rows(chosen), weight=total, ids=None)


@dataclass(frozen=True, eq=False)
class HeadData:
    """Samples as the objective needs them, each domain's together.

    Attributes:
        rows: Features divided by ``scale``, then a constant 1 if there is an intercept, ``(n, p)``.
        targets: As the loss prepared them, ``(n, C)``.
        shares: Weight of each sample in the mean loss, ``(n,)``; they add up to 1.
        within: Weight of each sample in its domain's mean, ``(n,)``; they add up to 1 in each.
        roots: Square roots of the weights within domains, whose mean is 1 in each, ``(n, 1)``; None if all
            are equal.
        sizes: Samples of each domain.
        scale: Root mean square of all features.
        width: Columns of the rows, without the constant: ``d``, unless they are rotated.
        total: Sum of the weights.
        ids: Sample that each row is a view of, ``(n,)``; None where each row is a sample.
        basis: Of rotated rows what their columns are of the features, orthonormal, ``(d, r)``; else None.
        unrotated: Of rotated rows what they were, ``(n, p)``; else None.
    """

    rows: Tensor
    targets: Tensor
    shares: Tensor
    within: Tensor
    roots: Tensor | None
    sizes: list[int]
    scale: float
    width: int
    total: float
    ids: NDArray[np.intp] | None = None
    basis: Tensor | None = None
    unrotated: Tensor | None = None

    @classmethod
    def of(
        cls,
        samples: Samples,
        codes: NDArray[np.intp],
        weight: NDArray[np.float64],
        loss: HeadLoss,
        outputs: int,
        *,
        fit_intercept: bool,
        dtype: str,
        device: str,
    ) -> "HeadData":
        """Copy samples, sorted by their domains.

        Args:
            samples: To copy.
            codes: Domain, or group, of each sample; every one up to the largest has a sample.
            weight: The weights to use, positive, ``(n,)``.
            loss: Prepares the targets.
            outputs: ``C``.
            fit_intercept: Whether the head has one.
            dtype: ``"float64"`` or ``"float32"``.
            device: Where to compute.

        Returns:
            The samples, sorted.

        Raises:
            ValueError: If the features are too large or too small to be squared.
        """
        scale = _scale(samples.features, weight)
        is_sorted = bool((codes[:-1] <= codes[1:]).all())
        order = np.arange(len(codes)) if is_sorted else np.argsort(codes, kind="stable")
        features = samples.features if is_sorted else samples.features[order]
        weight, codes = weight[order], codes[order]
        count, width = features.shape
        rows = np.ones((count, width + fit_intercept), dtype=dtype)
        np.divide(features, scale, out=rows[:, :width], casting="same_kind")
        on_device = torch.from_numpy(rows).to(device)
        targets = loss.prepare_targets(
            on_device.new_zeros(count, outputs), torch.from_numpy(samples.targets[order]).to(device)
        )
        sizes, totals = np.bincount(codes), np.bincount(codes, weight)
        within = weight / totals[codes]
        roots = None
        if np.ptp(within * sizes[codes]) > 1e-12:
            roots = torch.from_numpy(np.sqrt(within * sizes[codes])).to(on_device).unsqueeze(1)
        total = float(weight.sum())
        return cls(
            on_device,
            targets,
            torch.from_numpy(weight / total).to(on_device),
            torch.from_numpy(within).to(on_device),
            roots,
            sizes.tolist(),
            scale,
            width,
            total,
            None if samples.ids is None else samples.ids[order],
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a head on the scaled features, ``(C, p)``."""
        return self.targets.shape[1], self.rows.shape[1]

    @cached_property
    def digest(self) -> bytes:
        """What a fit depends on, in short."""
        return _digest(self.plain_digest, self.sizes, self.within)

    @cached_property
    def plain_digest(self) -> bytes:
        """What a fit depends on that does not tell domains apart, in short."""
        about = (self.scale, self.width, str(self.rows.dtype))
        return _digest(about, self.rows_by_axis, self.targets, self.shares)

    @property
    def rows_by_axis(self) -> Tensor:
        """The rows with a column for each feature, rotated or not, ``(n, d)`` and the constant."""
        return self.rows if self.unrotated is None else self.unrotated

    @cached_property
    def counts(self) -> list[int]:
        """Samples of each domain, all views of one being one."""
        if self.ids is None:
            return self.sizes
        return [len(np.unique(part)) for part in np.split(self.ids, np.cumsum(self.sizes)[:-1])]

    @cached_property
    def weighted_rows(self) -> Tensor:
        """The rows times the square roots of their weights within domains."""
        return self.rows if self.roots is None else self.rows * self.roots

    @cached_property
    def weighted_rows_by_axis(self) -> Tensor:
        """The same with a column for each feature."""
        if self.unrotated is None:
            return self.weighted_rows
        return self.unrotated if self.roots is None else self.unrotated * self.roots

    @cached_property
    def squares_by_axis(self) -> Tensor:
        """Squares of the rows with a column for each feature."""
        return self.rows_by_axis.square()

    @cached_property
    def domain_of_row(self) -> Tensor:
        """Domain of each row, ``(n,)``."""
        sizes = torch.tensor(self.sizes)
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes).to(self.rows.device)

    @cached_property
    def domain_shares(self) -> Tensor:
        """Weight of each domain, ``(m,)``; they add up to 1."""
        return self.shares.new_zeros(len(self.sizes)).index_add(0, self.domain_of_row, self.shares)

    def by_domain(self, values: Tensor) -> Tensor:
        """Mean of samples' values ``(n,)`` in each domain, ``(m,)``."""
        return values.new_zeros(len(self.sizes)).index_add(0, self.domain_of_row, self.within * values)

    def reweighted(self, factors: NDArray[np.float64]) -> "HeadData":
        """The same rows as one domain, each weight times a factor ``(n,)`` of at least 0.

        The sum of the weights stays what it was.

        Returns:
            The same rows with other shares.
        """
        factor = torch.from_numpy(factors).to(self.shares)
        shares = self.shares * factor
        shares = shares / shares.sum()
        return replace(self, shares=shares, within=shares, roots=None, sizes=[len(shares)])

    def logits(self, weight: Tensor) -> Tensor:
        """``Z̃ θᵀ``, ``(n, C)``, of a head ``(C, p)``."""
        return product(self.rows, weight.T)

    def pull_back(self, by_logit: Tensor) -> Tensor:
        """Derivatives by the head, ``(C, p)``, from those by the logits, ``(n, C)``."""
        return product(self.rows.T, by_logit).T

    def head(self, theta: Head) -> Head:
        """``[W | b]``, ``(C, d+1)``, on the features as they were, of a head on the scaled ones."""
        intercept = theta[:, self.width :] if theta.shape[1] > self.width else np.zeros((len(theta), 1))
        return np.hstack([self._by_axis(theta) / self.scale, intercept])

    def theta(self, head: Head) -> Head:
        """The inverse of ``head``; of rotated rows the head without what they cannot tell."""
        own = head[:, :-1] * self.scale
        own = own if self.basis is None else own @ self.basis.cpu().double().numpy()
        return np.hstack([own, head[:, -1:]])[:, : self.shape[1]]

    def rotated(self) -> "HeadData":
        """The same samples in a basis of the space that their features span, exactly, where that is smaller.

        ``Z = R Qᵀ`` with orthonormal ``Q``: what depends on products of samples alone, such as logits,
        ``‖W‖²`` and distances of gradients, is the same for ``W Q`` on ``R``. A head that starts at 0 or in
        that space stays there.

        Returns:
            Samples with as many columns as rows; these where they are not few.
        """
        if self.basis is not None or len(self.rows) > FEW_ROWS * self.width:
            return self
        features, constant = self.rows.split([self.width, self.rows.shape[1] - self.width], dim=1)
        basis, triangle = torch.linalg.qr(features.T)
        rows = torch.cat([triangle.T, constant], dim=1)
        return replace(self, rows=rows, width=basis.shape[1], basis=basis, unrotated=self.rows)

    def steepest(self, gradient: NDArray[np.float64]) -> float:
        """Largest absolute element of a gradient by the head ``(C p,)``, with an element for each feature."""
        slopes = gradient.reshape(self.shape)
        largest = float(np.abs(gradient).max())
        if self.basis is None:
            return largest
        return max(_largest(self._by_axis(slopes)), _largest(slopes[:, self.width :]))

    def is_flat(self, gradient: NDArray[np.float64], tolerance: float) -> bool:
        """Whether the steepest element is within a tolerance; of rotated rows its length mostly tells."""
        if self.basis is None:
            return self.steepest(gradient) <= tolerance
        slopes = gradient.reshape(self.shape)
        length = float(np.linalg.norm(slopes[:, : self.width], axis=1).max())
        if length > tolerance * np.sqrt(len(self.basis)) or _largest(slopes[:, self.width :]) > tolerance:
            return False
        return length <= tolerance or self.steepest(gradient) <= tolerance

    def _by_axis(self, theta: Head) -> Head:
        """Of a head, or a gradient by it, an element for each feature, ``(C, d)``."""
        own = theta[:, : self.width]
        if self.basis is None:
            return own
        return product(torch.from_numpy(own).to(self.basis), self.basis.T).cpu().double().numpy()


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` without derivatives; NumPy's product is the faster one where one side is narrow."""
    if left.device.type != "cpu":
        return left @ right
    return torch.from_numpy(left.detach().numpy() @ right.detach().numpy())


def _digest(*parts: object) -> bytes:
    """Of tensors what they hold, of all else how it is written."""
    found = blake2b()
    for part in parts:
        if isinstance(part, Tensor):
            found.update(np.ascontiguousarray(part.cpu().numpy()).data)
        else:
            found.update(repr(part).encode())
    return found.digest()


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.abs(values).max(initial=0.0))


def _numbered(codes: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.asarray(np.unique(codes, return_inverse=True)[1])


def _scale(features: NDArray[np.floating], weight: NDArray[np.float64]) -> float:
    """Root mean square of all features over the samples with their weights; 1 if all are 0."""
    largest = float(np.abs(features).max())
    if largest == 0:
        return 1.0
    limit = LARGEST["float64"]
    if not 1 / limit < largest < limit:
        raise ValueError(
            f"X: features must lie between {1 / limit:g} and {limit:g} by absolute value, or be "
            f"0; the largest is {largest:g}; standardise them, for instance with "
            "sklearn.preprocessing.StandardScaler"
        )
    # Within the limits neither the squares nor their sums overflow.
    squares = np.einsum("ij,ij->i", features, features, dtype=np.float64)
    return float(np.sqrt(squares @ weight / (weight.sum() * features.shape[1])))
