r"""Output-space curvature of a head's loss: one ``C × C`` matrix for each sample, never stored in full.

For a linear head ``a = W z + b`` the Hessian of a sample's loss with respect to ``(W, b)`` is
``A ⊗ z̃ z̃ᵀ`` with ``A = ∂²ℓ/∂a²`` and ``z̃ = (z, 1)``. ``A`` has one of three shapes, one class each:
diagonal, softmax (``diag(p) − p pᵀ``) and dense.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Curvature(ABC):
    """The matrices ``A_i`` of ``n`` samples, kept as the one tensor ``values`` that determines them.

    Attributes:
        values: Tensor whose first two axes are samples and outputs, ``(n, C, ...)``.
    """

    values: Tensor

    @abstractmethod
    def apply(self, vectors: Tensor) -> Tensor:
        """Products ``A_i u``.

        Args:
            vectors: ``(n, k, C)``, ``k`` vectors for each sample.

        Returns:
            ``(n, k, C)``.
        """

    def pull_back(self, vectors: Tensor, slopes: Tensor) -> Tensor:
        """Derivative of ``Σ s · A_i u`` with respect to ``values``.

        Args:
            vectors: ``u``, ``(n, k, C)``.
            slopes: ``s``, ``(n, k, C)``.

        Returns:
            Like ``values``.
        """
        found: tuple[Tensor] = torch.func.vjp(lambda values: type(self)(values).apply(vectors), self.values)[
            1
        ](slopes)
        return found[0]

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Diagonals of the ``A_i``, ``(n, C)``."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The matrices themselves, ``(n, C, C)``."""

    @abstractmethod
    def entry(self, row: int, column: int) -> Tensor:
        """The elements ``A_i[row, column]``, ``(n,)``."""

    def upper_pairs(self) -> list[tuple[int, int]]:
        """Positions ``(row, column)``, ``row ≤ column``, where an element can be other than zero."""
        outputs = self.values.shape[1]
        return [(row, column) for row in range(outputs) for column in range(row, outputs)]

    def block_count(self) -> int:
        """How many [upper_pairs][] there are."""
        outputs = self.values.shape[1]
        return outputs * (outputs + 1) // 2

    def inner(self, other: "Curvature") -> Tensor:
        """Pairwise Frobenius inner products ``⟨A_i, B_j⟩``.

        Args:
            other: Curvature of ``m`` samples with the same number of outputs.

        Returns:
            ``(n, m)``.
        """
        return self.dense().flatten(1) @ other.dense().flatten(1).T

    def squares(self) -> Tensor:
        """``‖A_i‖_F²`` of each sample, ``(n,)``."""
        return self.dense().square().sum((1, 2))

    def to(self, dtype: torch.dtype) -> Self:
        """The same in another floating-point type."""
        return self if self.values.dtype == dtype else type(self)(self.values.to(dtype))

    def take(self, index: Tensor | slice) -> Self:
        """The samples at the given positions."""
        return type(self)(self.values[index])

    def split(self, sizes: Sequence[int]) -> list[Self]:
        """Consecutive groups of samples, of the given sizes."""
        return [type(self)(part) for part in self.values.split(list(sizes))]

    def join(self, others: Sequence["Curvature"]) -> "Curvature":
        """All samples of ``self`` followed by those of ``others``; dense where the shapes differ."""
        parts = [self, *others]
        if all(type(part) is type(self) for part in parts):
            return type(self)(torch.cat([part.values for part in parts]))
        return DenseCurvature(torch.cat([part.dense() for part in parts]))


class DiagonalCurvature(Curvature):
    """``A_i = diag(k_i)``; ``values`` is ``k``, ``(n, C)``. Sigmoid and element-wise regression heads."""

    def apply(self, vectors: Tensor) -> Tensor:
        """``k_i ⊙ u``; see [Curvature.apply][]."""
        return self.values.unsqueeze(1) * vectors

    def pull_back(self, vectors: Tensor, slopes: Tensor) -> Tensor:
        """``Σ s ⊙ u``; see [Curvature.pull_back][]."""
        return (slopes * vectors).sum(1)

    def diagonal(self) -> Tensor:
        """``k``, ``(n, C)``."""
        return self.values

    def dense(self) -> Tensor:
        """``diag(k_i)``, ``(n, C, C)``."""
        return torch.diag_embed(self.values)

    def entry(self, row: int, column: int) -> Tensor:
        """``k_i[row]`` on the diagonal, zero elsewhere, ``(n,)``."""
        return self.values[:, row] * float(row == column)

    def upper_pairs(self) -> list[tuple[int, int]]:
        """The diagonal only."""
        return [(output, output) for output in range(self.values.shape[1])]

    def block_count(self) -> int:
        """The number of outputs."""
        return self.values.shape[1]

    def squares(self) -> Tensor:
        """``‖k_i‖²``, ``(n,)``."""
        return self.values.square().sum(1)

    def inner(self, other: Curvature) -> Tensor:
        """``k_i · k_j`` if both are diagonal, ``(n, m)``."""
        if isinstance(other, DiagonalCurvature):
            return self.values @ other.values.T
        return super().inner(other)


class SoftmaxCurvature(Curvature):
    """``A_i = diag(p_i) − p_i p_iᵀ`` (Prop. 4, Eq. 35); ``values`` is ``p``, ``(n, C)``."""

    def apply(self, vectors: Tensor) -> Tensor:
        """``p ⊙ u − p (p · u)``; see [Curvature.apply][]."""
        weighted = self.values.unsqueeze(1) * vectors
        return weighted - self.values.unsqueeze(1) * weighted.sum(-1, keepdim=True)

    def pull_back(self, vectors: Tensor, slopes: Tensor) -> Tensor:
        """``Σ s ⊙ u − s (p · u) − u (p · s)``; see [Curvature.pull_back][]."""
        probabilities = self.values.unsqueeze(2)
        along = vectors * (slopes @ probabilities) + slopes * (vectors @ probabilities)
        return (slopes * vectors - along).sum(1)

    def diagonal(self) -> Tensor:
        """``p (1 − p)``, ``(n, C)``."""
        return self.values * (1 - self.values)

    def dense(self) -> Tensor:
        """``diag(p_i) − p_i p_iᵀ``, ``(n, C, C)``."""
        return torch.diag_embed(self.values) - self.values.unsqueeze(2) * self.values.unsqueeze(1)

    def entry(self, row: int, column: int) -> Tensor:
        """``p_row (δ_row,column − p_column)``, ``(n,)``."""
        return self.values[:, row] * (float(row == column) - self.values[:, column])

    def inner(self, other: Curvature) -> Tensor:
        """``p_i·p_j − p_i·p_j² − p_i²·p_j + (p_i·p_j)²`` if both are softmax, ``(n, m)``."""
        if not isinstance(other, SoftmaxCurvature):
            return super().inner(other)
        p, q = self.values, other.values
        overlap = p @ q.T
        mixed = p @ q.square().T
        mirrored = mixed.T if q is p else p.square() @ q.T
        return overlap * (1 + overlap) - mixed - mirrored

    def squares(self) -> Tensor:
        """``p·p − 2 p·p² + (p·p)²``, ``(n,)``."""
        squared = self.values.square()
        overlap = squared.sum(1)
        return overlap * (1 + overlap) - 2 * (self.values * squared).sum(1)


class DenseCurvature(Curvature):
    """Any symmetric ``A_i``; ``values`` is ``(n, C, C)``. The torch.func fallback."""

    def apply(self, vectors: Tensor) -> Tensor:
        """``A_i u``; see [Curvature.apply][]."""
        return vectors @ self.values.mT

    def diagonal(self) -> Tensor:
        """Diagonals, ``(n, C)``."""
        return self.values.diagonal(dim1=1, dim2=2)

    def dense(self) -> Tensor:
        """``A_i``, ``(n, C, C)``."""
        return self.values

    def entry(self, row: int, column: int) -> Tensor:
        """``A_i[row, column]``, ``(n,)``."""
        return self.values[:, row, column]
