r"""What the estimators minimise, as a function of the head's weight alone: the features are fixed.

All of it is computed on features divided by their root mean square, so that nothing depends on their unit.
This is the one place that calls the library's penalties and derivatives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from hessalign.alignment import HessianAlignment
from hessalign.head import DomainDerivatives, HeadDerivatives, HeadLoss

# Domains whose squared distance is below this share of their squared size agree, but for rounding.
AGREEMENT = 1e-14
# Features and targets whose squares, and the squares of these, are finite numbers other than zero.
LARGEST = {"float64": 1e75, "float32": 1e9}
# Rows for each column that second moments are taken from.
ROWS_PER_COLUMN = 3

MakePenalty = Callable[[float, float], HessianAlignment]


@dataclass(frozen=True, eq=False)
class Samples:
    """What is fitted, checked, as arrays.

    Attributes:
        features: ``(n, d)``.
        targets: As the loss takes them, ``(n,)`` or ``(n, C)``.
        codes: Domain of each sample, ``0 … m−1``, ``(n,)``.
        weight: Weight of each sample, positive, ``(n,)``.
    """

    features: NDArray[np.floating]
    targets: NDArray[np.generic]
    codes: NDArray[np.intp]
    weight: NDArray[np.float64]

    def rows(self, chosen: NDArray[np.bool_]) -> "Samples":
        """Some of the samples; their domains are numbered anew, in the same order."""
        _, codes = np.unique(self.codes[chosen], return_inverse=True)
        return Samples(self.features[chosen], self.targets[chosen], codes, self.weight[chosen])


@dataclass(frozen=True, eq=False)
class HeadData:
    """Samples as the objective needs them, each domain's together.

    Attributes:
        rows: Features divided by ``scale``, then a constant 1 if there is an intercept, ``(n, p)``.
        targets: As the loss prepared them, ``(n, C)``.
        shares: Weight of each sample in the mean loss, ``(n,)``; they add up to 1.
        roots: Square roots of the weights within domains, whose mean is 1 in each, ``(n, 1)``; None if all
            are equal.
        sizes: Samples of each domain.
        scale: Root mean square of all features.
        width: ``d``, without the constant.
        total: Sum of the weights.
    """

    rows: Tensor
    targets: Tensor
    shares: Tensor
    roots: Tensor | None
    sizes: list[int]
    scale: float
    width: int
    total: float

    @classmethod
    def of(
        cls,
        samples: Samples,
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
            samples: Every domain up to the largest code has a sample.
            weight: The weights to use, positive, ``(n,)``.
            loss: Prepares the targets.
            outputs: ``C``.
            fit_intercept: Whether the head has one.
            dtype: ``"float64"`` or ``"float32"``.
            device: Where to compute.

        Raises:
            ValueError: If the features are too large or too small to be squared.
        """
        scale = _scale(samples.features, weight)
        order = np.argsort(samples.codes, kind="stable")
        features, weight = samples.features[order], weight[order]
        count, width = features.shape
        rows = np.ones((count, width + fit_intercept), dtype=dtype)
        np.divide(features, scale, out=rows[:, :width], casting="same_kind")
        on_device = torch.from_numpy(rows).to(device)
        targets = loss.prepare_targets(
            on_device.new_zeros(count, outputs), torch.from_numpy(samples.targets[order]).to(device)
        )
        sizes = np.bincount(samples.codes)
        within = weight * (sizes / np.bincount(samples.codes[order], weight))[samples.codes[order]]
        roots = None
        if np.ptp(within) > 1e-12:
            roots = torch.from_numpy(np.sqrt(within)).to(on_device).unsqueeze(1)
        total = float(weight.sum())
        shares = torch.from_numpy(weight / total).to(on_device)
        return cls(on_device, targets, shares, roots, sizes.tolist(), scale, width, total)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a head on the scaled features, ``(C, p)``."""
        return self.targets.shape[1], self.rows.shape[1]

    @cached_property
    def weighted_rows(self) -> Tensor:
        """The rows times the square roots of their weights within domains."""
        return self.rows if self.roots is None else self.rows * self.roots

    def logits(self, weight: Tensor) -> Tensor:
        """``Z̃ θᵀ``, ``(n, C)``, of a head ``(C, p)``."""
        return product(self.rows, weight.T)

    def pull_back(self, by_logit: Tensor) -> Tensor:
        """Derivatives by the head, ``(C, p)``, from those by the logits, ``(n, C)``."""
        return product(self.rows.T, by_logit).T

    def head(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """``[W | b]``, ``(C, d+1)``, on the features as they were, of a head on the scaled ones."""
        intercept = theta[:, self.width :] if theta.shape[1] > self.width else np.zeros((len(theta), 1))
        return np.hstack([theta[:, : self.width] / self.scale, intercept])

    def theta(self, head: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of [head][hessalign.estimator.objective.HeadData.head]."""
        return np.hstack([head[:, :-1] * self.scale, head[:, -1:]])[:, : self.shape[1]]


@dataclass(frozen=True, eq=False)
class Objective:
    r"""``mean loss + alignment penalty + (decay / 2) ‖W‖²`` of a head on the scaled features.

    The mean runs over all samples with their shares. The penalty compares domains with equal weights, and
    derivatives flow through its centre (``detach_centre=False``): only then is there a function whose
    gradient an optimiser can bring to zero. The intercept is not penalised by ``decay``.

    Attributes:
        data: The samples.
        loss: The head's loss.
        decay: ``≥ 0``, on the scaled features.
        penalty: None for the plain fit.
        size: What the objective is to be compared with: ``1 + α + β``.
    """

    data: HeadData
    loss: HeadLoss
    decay: float
    penalty: HessianAlignment | None = None
    size: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """``(C, p)``."""
        return self.data.shape

    def terms(self, theta: NDArray[np.float64]) -> tuple[float, float, float]:
        """Mean loss, alignment penalty and ``(decay / 2) ‖W‖²`` at a head ``(C, p)``."""
        weight = self._tensor(theta)
        logits = self.data.logits(weight)
        alignment = 0.0 if self.penalty is None else float(self._alignment(self.penalty, logits))
        return self._mean_loss(logits).item(), alignment, self._size(weight).item()

    def distance(self, penalty: HessianAlignment, theta: NDArray[np.float64]) -> float:
        """What another penalty is at a head ``(C, p)``; 0 where only rounding keeps the domains apart."""
        logits = self.data.logits(self._tensor(theta))
        found = float(self._alignment(penalty, logits))
        # Their squared size, roughly: the mean square of the scaled features is 1.
        residual, curvature = self.loss.derivatives(logits, self.data.targets)
        squares = self.shape[1] * residual.square().sum(1).mean().item()
        if penalty.alpha > 0:
            diagonal = self.shape[1] * curvature.diagonal().mean(0).square().sum().item()
            squares = diagonal * squares if penalty.method == "hgp" else diagonal
        precision = max(AGREEMENT, (100 * torch.finfo(logits.dtype).eps) ** 2)
        return found if found > precision * squares else 0.0

    def value_and_gradient(self, theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient at a flattened head, ``(C p,)``, both in float64 whatever the data's type."""
        weight = self._tensor(theta)
        logits = self.data.logits(weight)
        value = self._mean_loss(logits) + self._size(weight)
        residual, _ = self.loss.derivatives(logits, self.data.targets)
        by_logit = residual * self.data.shares.unsqueeze(1)
        if self.penalty is not None:
            with torch.enable_grad():
                alignment = self._alignment(self.penalty, logits.requires_grad_())
                (pull,) = torch.autograd.grad(alignment, logits)
            value, by_logit = value + alignment.detach(), by_logit + pull
        gradient = self.data.pull_back(by_logit)
        gradient[:, : self.data.width] += self.decay * weight[:, : self.data.width]
        return value.item(), gradient.flatten().cpu().double().numpy()

    def hessian(self, theta: NDArray[np.float64]) -> LinearOperator:
        """The Hessian at a flattened head, by its products with vectors, ``(C p, C p)``.

        The spectral norm has no second derivative at hand: that method's Hessian is without the norm's share.
        """
        penalty = self.penalty
        if penalty is not None and penalty.method == "spectral":
            penalty = HessianAlignment(
                "gradient", 0.0, penalty.beta, reduction=penalty.reduction, loss=penalty.loss
            )
        with torch.enable_grad():
            logits = self.data.logits(self._tensor(theta)).requires_grad_()
            value = self._mean_loss(logits)
            if penalty is not None:
                value = value + self._alignment(penalty, logits)
            (by_logit,) = torch.autograd.grad(value, logits, create_graph=True)

        def times(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            direction = self._tensor(vector)
            moved = self.data.logits(direction)
            (changed,) = torch.autograd.grad(by_logit, logits, moved, retain_graph=True)
            result = self.data.pull_back(changed)
            result[:, : self.data.width] += self.decay * direction[:, : self.data.width]
            return result.flatten().cpu().double().numpy()

        return LinearOperator((theta.size, theta.size), matvec=times, dtype=np.float64)

    def gradient_scale(self) -> float:
        """The solver's yardstick for what a small gradient is.

        A sample's gradient at ``θ = 0``, root mean square over samples, largest over outputs (the scaled
        features have a root mean square of 1), times the objective's size.
        """
        residual, _ = self.loss.derivatives(
            self.data.rows.new_zeros(len(self.data.rows), self.shape[0]), self.data.targets
        )
        squares = (residual.square() * self.data.shares.unsqueeze(1)).sum(0)
        return self.size * squares.max().sqrt().item()

    def metric(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the plain objective's Hessian is about, the same for every output, ``(p, p)``.

        ``Z̃ᵀ diag(v k) Z̃ + decay I`` with the mean curvature ``k`` of each sample at a head ``(C, p)``. Where
        there are many more rows than columns, every k-th row tells it well enough.
        """
        data = self.data
        step = max(1, len(data.rows) // (ROWS_PER_COLUMN * self.shape[1]))
        rows, shares = data.rows[::step], data.shares[::step]
        _, curvature = self.loss.derivatives(product(rows, self._tensor(theta).T), data.targets[::step])
        weights = curvature.diagonal().abs().mean(1) * shares / shares.sum()
        columns = (rows * weights.sqrt().unsqueeze(1)).T
        moments = product(columns, columns.T).double().cpu().numpy()
        moments[np.diag_indices(self.shape[1])] += self.decay
        return np.asarray(moments)

    def _tensor(self, theta: NDArray[np.float64]) -> Tensor:
        rows = self.data.rows
        return torch.as_tensor(theta, dtype=rows.dtype, device=rows.device).view(self.shape)

    def _mean_loss(self, logits: Tensor) -> Tensor:
        return self.loss.values(logits, self.data.targets) @ self.data.shares

    def _size(self, weight: Tensor) -> Tensor:
        return self.decay / 2 * weight[:, : self.data.width].square().sum()

    def _alignment(self, penalty: HessianAlignment, logits: Tensor) -> Tensor:
        return penalty.from_derivatives(DomainDerivatives(self._derivatives(logits), self.data.sizes))

    def _derivatives(self, logits: Tensor) -> HeadDerivatives:
        """Of all samples. Weights within domains go into the rows: half into each of a product's factors.

        HeadDerivatives.from_logits would check all features at every step; here they do not change.
        """
        roots = self.data.roots
        residual, curvature = self.loss.derivatives(logits, self.data.targets)
        if roots is not None:
            residual = residual * roots
        return HeadDerivatives(self.data.weighted_rows, residual, curvature, bias=False)


@dataclass(frozen=True)
class Units:
    """What a penalty's weight of 1 stands for: the plain fit's loss, spread over the plain fit's distance.

    Attributes:
        loss: Mean loss of the plain fit.
        hessian: Its Hessian distance, mean over domains; 0 where there is none.
        gradient: Its gradient distance.
    """

    loss: float
    hessian: float
    gradient: float

    @classmethod
    def at(
        cls, plain: Objective, theta: NDArray[np.float64], make: MakePenalty, alpha: bool, beta: bool
    ) -> "Units":
        """Measure the distances that are needed, at the head of the plain fit."""
        return cls(
            plain.terms(theta)[0],
            plain.distance(make(1.0, 0.0), theta) if alpha else 0.0,
            plain.distance(make(0.0, 1.0), theta) if beta else 0.0,
        )

    def weigh(self, alpha: float, beta: float) -> tuple[float, float]:
        """Weights of the distances themselves; 0 for a distance that is 0 already."""
        return (
            alpha * self.loss / self.hessian if self.hessian > 0 else 0.0,
            beta * self.loss / self.gradient if self.gradient > 0 else 0.0,
        )


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` without derivatives; NumPy's product is the faster one where one side is narrow."""
    if left.device.type != "cpu":
        return left @ right
    return torch.from_numpy(left.detach().numpy() @ right.detach().numpy())


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
