r"""What the estimators minimise, as a function of the head's weight alone: the features are fixed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from hessalign.estimator.data import Head, HeadData, product
from hessalign.estimator.penalties import Penalty
from hessalign.head import HeadLoss, SquaredError

# Rows for each column that second moments are taken from.
ROWS_PER_COLUMN = 3
# Most features times samples for which the system of equations is formed.
LARGEST_DIRECT = 3 * 10**7


@dataclass(frozen=True, eq=False)
class Objective:
    r"""``mean loss + penalty + (decay / 2) ‖W − W₀‖²`` of a head on the scaled features.

    The mean runs over all samples with their shares. The intercept is not penalised by ``decay``.

    Attributes:
        data: The samples.
        loss: The head's loss.
        decay: ``≥ 0``, on the scaled features.
        penalty: None for the plain fit.
        weights: Of the penalty's terms as they are, none of them 0.
        size: What the objective is to be compared with: 1 and the weights in the loss's unit.
        anchor: ``W₀`` as a head ``(C, p)``; None for 0.
    """

    data: HeadData
    loss: HeadLoss
    decay: float
    penalty: Penalty | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    size: float = 1.0
    anchor: Head | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(C, p)``."""
        return self.data.shape

    @property
    def is_penalised(self) -> bool:
        """Whether there is more than the mean loss and the decay."""
        return self.penalty is not None and bool(self.weights)

    @property
    def is_quadratic(self) -> bool:
        """Whether the objective is a quadratic form, the same for every output: one system of equations.

        With the identity the residual is linear in the head and the curvature is constant.
        """
        return (
            isinstance(self.loss, SquaredError)
            and self.loss.activation == "identity"
            and self.data.rows.numel() <= LARGEST_DIRECT
        )

    @property
    def key(self) -> tuple[Any, ...] | None:
        """Equal for two objectives that are one function; None where that cannot be told."""
        penalty = None if self.penalty is None else self.penalty.key(self.weights)
        if self.is_penalised and penalty is None:
            return None
        weighed = (penalty, sorted(self.weights.items())) if self.is_penalised else ()
        anchor = None if self.anchor is None else self.anchor.tobytes()
        data = self.data.digest if self.is_penalised else self.data.plain_digest
        return data, repr(self.loss), self.decay, repr(weighed), self.size, anchor

    def terms(self, theta: Head) -> tuple[float, float, float]:
        """Mean loss, penalty and ``(decay / 2) ‖W − W₀‖²`` at a head ``(C, p)``."""
        weight = self._tensor(theta)
        logits = self.data.logits(weight)
        penalty = float(self._penalty(logits)) if self.is_penalised else 0.0
        return self._mean_loss(logits).item(), penalty, self._size(weight).item()

    def distances(self, penalty: Penalty, names: list[str], theta: Head) -> dict[str, float]:
        """What terms of a penalty are at a head ``(C, p)``; 0 where only rounding keeps the domains apart."""
        return penalty.distances(self.data, self.loss, self.data.logits(self._tensor(theta)), names)

    def value_and_gradient(self, theta: Head) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient at a flattened head, ``(C p,)``, both in float64 whatever the data's type."""
        weight = self._tensor(theta)
        logits = self.data.logits(weight)
        value = self._mean_loss(logits) + self._size(weight)
        residual, _ = self.loss.derivatives(logits, self.data.targets)
        by_logit = residual * self.data.shares.unsqueeze(1)
        if self.is_penalised:
            with torch.enable_grad():
                penalty = self._penalty(logits.requires_grad_())
                (pull,) = torch.autograd.grad(penalty, logits)
            value, by_logit = value + penalty.detach(), by_logit + pull
        gradient = self.data.pull_back(by_logit)
        gradient[:, : self.data.width] += self.decay * self._pulled(weight)
        return value.item(), gradient.flatten().cpu().double().numpy()

    def hessian(self, theta: Head) -> LinearOperator:
        """The Hessian at a flattened head, by its products with vectors, ``(C p, C p)``.

        Of a penalty with kinks the terms without are taken: the gradient distance beside the spectral norm.

        Returns:
            The operator.
        """
        weights = dict(self.weights)
        if self.penalty is not None and not self.penalty.is_smooth:
            weights.pop("alpha", None)
        smooth = replace(self, weights=weights)
        with torch.enable_grad():
            logits = self.data.logits(self._tensor(theta)).requires_grad_()
            value = self._mean_loss(logits)
            if smooth.is_penalised:
                value = value + smooth._penalty(logits)
            (by_logit,) = torch.autograd.grad(value, logits, create_graph=True)

        def times(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            direction = self._tensor(vector)
            moved = self.data.logits(direction)
            (changed,) = torch.autograd.grad(by_logit, logits, moved, retain_graph=True)
            result = self.data.pull_back(changed)
            result[:, : self.data.width] += self.decay * direction[:, : self.data.width]
            return result.flatten().cpu().double().numpy()

        return LinearOperator((theta.size, theta.size), matvec=times, dtype=np.float64)

    def normal_matrix(self) -> NDArray[np.float64]:
        """Of a quadratic objective the Hessian by one output's weights, ``(p, p)``, the same for each output.

        With as many outputs as columns, targets 0 and the unit matrix as the head, it is the gradient.

        Returns:
            The matrix, symmetric.
        """
        width = self.shape[1]
        targets = self.data.rows.new_zeros(len(self.data.rows), width)
        units = replace(self, data=replace(self.data, targets=targets), anchor=None)
        matrix = units.value_and_gradient(np.eye(width).ravel())[1].reshape(width, width)
        return (matrix + matrix.T) / 2

    def gradient_scale(self) -> float:
        """The solver's yardstick for what a small gradient is.

        A sample's gradient at ``θ = 0``, root mean square over samples, largest over outputs (the scaled
        features have a root mean square of 1), times the objective's size.

        Returns:
            The yardstick, a number above 0.
        """
        residual, _ = self.loss.derivatives(
            self.data.rows.new_zeros(len(self.data.rows), self.shape[0]), self.data.targets
        )
        squares = (residual.square() * self.data.shares.unsqueeze(1)).sum(0)
        return self.size * squares.max().sqrt().item()

    def metric(self, theta: Head) -> NDArray[np.float64]:
        """What the plain objective's Hessian is about, the same for every output, ``(p, p)``.

        ``Z̃ᵀ diag(v k) Z̃ + decay I`` with the mean curvature ``k`` of each sample at a head ``(C, p)``.
        Where there are many more rows than columns, every k-th row tells it well enough.

        Returns:
            The matrix, positive semi-definite.
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

    def _tensor(self, theta: Head) -> Tensor:
        rows = self.data.rows
        return torch.as_tensor(theta, dtype=rows.dtype, device=rows.device).view(self.shape)

    def _mean_loss(self, logits: Tensor) -> Tensor:
        return self.loss.values(logits, self.data.targets) @ self.data.shares

    def _pulled(self, weight: Tensor) -> Tensor:
        own = weight[:, : self.data.width]
        return own if self.anchor is None else own - self._tensor(self.anchor)[:, : self.data.width]

    def _size(self, weight: Tensor) -> Tensor:
        return self.decay / 2 * self._pulled(weight).square().sum()

    def _penalty(self, logits: Tensor) -> Tensor:
        assert self.penalty is not None
        terms = self.penalty.terms(self.data, self.loss, logits, self.weights)
        parts = [self.weights[name] * term for name, term in terms.items()]
        return sum(parts[1:], parts[0])
