r"""Losses of a linear head, with the derivatives of each sample's loss with respect to its logits.

A sample's loss ``ℓ(a, y)`` depends on the logits ``a = W z + b`` only. Each loss here gives its residual
``r = ∂ℓ/∂a`` and curvature ``A = ∂²ℓ/∂a²``; [HeadDerivatives][hessalign.HeadDerivatives] turns them into
derivatives with respect to the head's weight and bias: the Hessian of a sample's loss is ``A ⊗ z̃ z̃ᵀ`` with
``z̃ = (z, 1)``. A sample's loss is summed over outputs. A curvature, one ``C × C`` matrix for each sample, is
never stored in full; it has one of three shapes, one class each: diagonal, softmax (``diag(p) − p pᵀ``) and
dense.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from hessalign.checks import require_number, require_whole
from hessalign.inputs import as_tensor


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

    def rows(self, outputs: range) -> Tensor:
        """The rows ``A_i[output, :]`` of some outputs, ``(outputs, n, C)``."""
        columns = range(self.values.shape[1])
        return torch.stack(
            [torch.stack([self.entry(output, column) for column in columns], dim=1) for output in outputs]
        )

    def upper_pairs(self) -> list[tuple[int, int]]:
        """Positions ``(row, column)``, ``row ≤ column``, where an element can be other than zero."""
        outputs = self.values.shape[1]
        return [(row, column) for row in range(outputs) for column in range(row, outputs)]

    def block_count(self) -> int:
        """How many ``upper_pairs`` there are."""
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
        return [type(self)(values) for values in self.values.split(list(sizes))]

    def join(self, others: Sequence["Curvature"]) -> "Curvature":
        """All samples of ``self`` followed by those of ``others``; dense where the shapes differ."""
        groups = [self, *others]
        if all(type(group) is type(self) for group in groups):
            return type(self)(torch.cat([group.values for group in groups]))
        return DenseCurvature(torch.cat([group.dense() for group in groups]))


class DiagonalCurvature(Curvature):
    """``A_i = diag(k_i)``; ``values`` is ``k``, ``(n, C)``. Sigmoid and element-wise regression heads."""

    def apply(self, vectors: Tensor) -> Tensor:
        """``k_i ⊙ u``; see ``Curvature.apply``."""
        return self.values.unsqueeze(1) * vectors

    def pull_back(self, vectors: Tensor, slopes: Tensor) -> Tensor:
        """``Σ s ⊙ u``; see ``Curvature.pull_back``."""
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
        """``p ⊙ u − p (p · u)``; see ``Curvature.apply``."""
        weighted = self.values.unsqueeze(1) * vectors
        return weighted - self.values.unsqueeze(1) * weighted.sum(-1, keepdim=True)

    def pull_back(self, vectors: Tensor, slopes: Tensor) -> Tensor:
        """``Σ s ⊙ u − s (p · u) − u (p · s)``; see ``Curvature.pull_back``."""
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

    def rows(self, outputs: range) -> Tensor:
        """``p_output (δ_output − p)``, ``(outputs, n, C)``."""
        some = slice(outputs.start, outputs.stop)
        units = torch.eye(self.values.shape[1], dtype=self.values.dtype, device=self.values.device)
        return self.values.T[some].unsqueeze(2) * (units[some].unsqueeze(1) - self.values)

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
        """``A_i u``; see ``Curvature.apply``."""
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

    def rows(self, outputs: range) -> Tensor:
        """``A_i[output, :]``, ``(outputs, n, C)``."""
        return self.values[:, outputs.start : outputs.stop].transpose(0, 1)


Activation = Callable[[Tensor], Tensor]


class HeadLoss(ABC):
    """A twice-differentiable loss of the logits. Subclass it where you know the closed form.

    Without one, [AutogradLoss][hessalign.AutogradLoss] needs only the loss itself.

    Examples:
        >>> import torch
        >>> from hessalign.head import AutogradLoss, HeadDerivatives, HeadLoss
        >>> from hessalign.head.losses import DiagonalCurvature
        >>> class Poisson(HeadLoss):
        ...     def prepare_targets(self, logits, targets):
        ...         return targets.reshape(logits.shape)
        ...
        ...     def values(self, logits, targets):
        ...         return (logits.exp() - targets * logits).sum(dim=1)
        ...
        ...     def derivatives(self, logits, targets):
        ...         return logits.exp() - targets, DiagonalCurvature(logits.exp())
        >>> features = torch.eye(3, dtype=torch.float64)
        >>> logits, counts = features[:, :1], torch.tensor([[2.0], [0.0], [1.0]], dtype=torch.float64)
        >>> own = HeadDerivatives.from_logits(features, logits, counts, Poisson())
        >>> loss = AutogradLoss(lambda logits, target: (logits.exp() - target * logits).sum())
        >>> other = HeadDerivatives.from_logits(features, logits, counts, loss)
        >>> torch.allclose(own.gradient(), other.gradient()), torch.allclose(own.hessian(), other.hessian())
        (True, True)
    """

    @abstractmethod
    def prepare_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Check the targets and bring them to what [derivatives][hessalign.head.HeadLoss.derivatives] takes.

        Args:
            logits: ``(n, C)``, finite.
            targets: What the user gave.

        Raises:
            ValueError: Naming what is wrong with the targets and what is allowed.
        """

    def encode_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What ``prepare_targets`` returns, for targets known to be right.

        Training steps call it on a device that nobody waits for. A loss whose ``prepare_targets`` reads
        values overrides it without that; by default it is ``prepare_targets``.

        Args:
            logits: ``(n, C)``.
            targets: What the user gave.

        Returns:
            What ``prepare_targets`` returns.
        """
        return self.prepare_targets(logits, targets)

    def target_weights(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """Weight and mass of each sample in a domain's mean loss ``Σ_i w_i ℓ_i / Σ_i m_i``.

        Args:
            logits: ``(n, C)``.
            targets: What the user gave.

        Returns:
            ``(n,)`` and ``(n,)``; None (default) where all samples count alike.
        """
        return None

    @abstractmethod
    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss ``ℓ(a, y)`` of each sample, ``(n,)``.

        Args:
            logits: ``(n, C)``.
            targets: What [prepare_targets][hessalign.head.HeadLoss.prepare_targets] returned.
        """

    @abstractmethod
    def derivatives(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Curvature]:
        """Residual ``∂ℓ/∂a``, ``(n, C)``, and curvature ``∂²ℓ/∂a²`` of each sample.

        Args:
            logits: ``(n, C)``.
            targets: What [prepare_targets][hessalign.head.HeadLoss.prepare_targets] returned.
        """


@dataclass(frozen=True)
class CrossEntropy(HeadLoss):
    """Softmax cross-entropy: ``r = p − y``, ``A = diag(p) − p pᵀ`` (Prop. 4, supplement, Eqs. 30, 33–35).

    The options are those of ``torch.nn.functional.cross_entropy``, its mean over a domain's samples included.
    With class ids the mean divides by the sum of the samples' class weights, with class probabilities by the
    number of samples, as torch's does.

    Attributes:
        label_smoothing: ``ε``, default 0: targets become ``(1 − ε) y + ε / C``.
        class_weight: Positive weight of each class, ``(C,)``; None (default) for equal ones.
        ignore_index: Class id whose samples count for nothing; None (default) where every sample counts.

    Raises:
        ValueError: If an option is out of range.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> loss = ha.CrossEntropy(label_smoothing=0.1)
        >>> logits, targets = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0])
        >>> own = loss.values(logits, loss.prepare_targets(logits, targets)).mean()
        >>> torch.isclose(own, torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1))
        tensor(True)
    """

    label_smoothing: float = 0.0
    class_weight: Sequence[float] | Tensor | None = None
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        smoothing = require_number("label_smoothing", self.label_smoothing, least=0, most=1)
        object.__setattr__(self, "label_smoothing", smoothing)
        object.__setattr__(self, "class_weight", _positive_weights("class_weight", self.class_weight))
        if self.ignore_index is not None:
            require_whole("ignore_index", self.ignore_index, otherwise="None or ")

    def prepare_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Class ids ``(n,)`` become rows of probabilities; class probabilities ``(n, C)`` are kept.

        Label smoothing and class weights change the rows, which sum to 1 all the same: the scale goes into
        [target_weights][hessalign.head.CrossEntropy.target_weights]. Rows of ignored samples are zero.

        Returns:
            ``(n, C)``, in the type of the logits.

        Raises:
            ValueError: If there is one logit, a class or a probability is out of range, or there is not one
                class weight for each class.
        """
        classes = logits.shape[1]
        if classes < 2:
            raise ValueError(
                "logits: cross_entropy needs at least 2 columns, got 1; "
                'for a single logit use loss="binary_cross_entropy"'
            )
        if targets.ndim == 1:
            self._check_classes(targets, classes)
        else:
            self._check_probabilities(logits, targets)
        if isinstance(self.class_weight, tuple) and len(self.class_weight) != classes:
            raise ValueError(
                f"class_weight: one weight is needed for each of the {classes} classes, "
                f"got {len(self.class_weight)}"
            )
        return self.encode_targets(logits, targets)

    def encode_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What [prepare_targets][hessalign.head.CrossEntropy.prepare_targets] returns; no value is read."""
        rows = self._smoothed_rows(logits, targets)
        if self.class_weight is None:
            return rows
        weighted = rows * rows.new_tensor(self.class_weight)
        total = weighted.sum(1, keepdim=True)
        return weighted / torch.where(total > 0, total, torch.ones_like(total))

    def target_weights(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """What smoothing, class weights and ignored samples make of each sample's share in the mean."""
        if self.class_weight is None and self.ignore_index is None:
            return None
        rows = self._smoothed_rows(logits, targets)
        if self.class_weight is None:
            counts = rows.sum(1)
            return counts, counts
        weights = rows.new_tensor(self.class_weight)
        if targets.ndim == 1:
            mass = (_rows_of_classes(targets, logits) * weights).sum(1)
            if self.ignore_index is not None:
                mass = mass * (targets != self.ignore_index)
        else:
            mass = torch.ones_like(rows[:, 0])
        return rows @ weights, mass

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """``−Σ_k y_k log p_k``."""
        return F.cross_entropy(logits, targets, reduction="none")

    def derivatives(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Curvature]:
        """``p − y`` and ``diag(p) − p pᵀ``."""
        probabilities = logits.softmax(1)
        return probabilities - targets, SoftmaxCurvature(probabilities)

    def _smoothed_rows(self, logits: Tensor, targets: Tensor) -> Tensor:
        """``(1 − ε) y + ε / C``, zero for ignored samples, ``(n, C)``."""
        rows = _rows_of_classes(targets, logits) if targets.ndim == 1 else targets.to(logits.dtype)
        if self.label_smoothing > 0:
            rows = (1 - self.label_smoothing) * rows + self.label_smoothing / logits.shape[1]
        if self.ignore_index is not None and targets.ndim == 1:
            rows = rows * (targets != self.ignore_index).unsqueeze(1)
        return rows

    def _check_classes(self, targets: Tensor, classes: int) -> None:
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
            raise ValueError(f"targets: class ids must be integers, got dtype {targets.dtype}")
        counted = targets if self.ignore_index is None else targets[targets != self.ignore_index]
        if counted.numel() == 0:
            raise ValueError(f"targets: no sample counts, all have the ignored class id {self.ignore_index}")
        low, high = (int(bound) for bound in torch.stack(counted.aminmax()).tolist())
        if low < 0 or high >= classes:
            hint = "" if low >= 0 else "; samples to be left out: CrossEntropy(ignore_index=...)"
            raise ValueError(
                f"targets: class ids must lie between 0 and {classes - 1} for {classes} logits, "
                f"got values from {low} to {high}{hint}"
            )

    def _check_probabilities(self, logits: Tensor, targets: Tensor) -> None:
        _require_shape(targets, logits, "cross_entropy", "(n,) class ids or (n, C) probabilities")
        if self.ignore_index is not None:
            raise ValueError(
                "ignore_index: goes with class ids, got targets of class probabilities; "
                "give samples that do not count a sample_weight of 0"
            )
        row_sums = targets.to(logits.dtype).sum(1)
        if bool((targets < 0).any()) or not torch.allclose(row_sums, torch.ones_like(row_sums), atol=1e-3):
            raise ValueError(
                "targets: (n, C) targets of cross_entropy must be probabilities, "
                "non-negative with rows that sum to 1"
            )


@dataclass(frozen=True)
class BinaryCrossEntropy(HeadLoss):
    """Sigmoid cross-entropy of one logit or of several independent labels, summed over labels.

    ``r = p − y``, ``A = diag(p (1 − p))``: the two-class case of Prop. 4 (supplement, Eqs. 30, 33–35). With
    ``pos_weight`` ``w``: ``−w y log p − (1 − y) log(1 − p)``, ``r = v p − w y`` and ``A = diag(v p (1 − p))``
    with ``v = 1 + (w − 1) y``.

    Attributes:
        pos_weight: Positive weight of the label 1, one number or one for each output, ``(C,)``, as in
            ``torch.nn.BCEWithLogitsLoss``; None (default) for 1.

    Raises:
        ValueError: If a weight is not positive.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> features, logits = torch.randn(4, 3), torch.randn(4, 1)
        >>> loss = ha.BinaryCrossEntropy(pos_weight=2.0)
        >>> d = ha.HeadDerivatives.from_logits(features, logits, torch.tensor([0, 1, 1, 0]), loss)
        >>> d.gradient().shape
        torch.Size([1, 4])
    """

    pos_weight: float | Sequence[float] | Tensor | None = None

    def __post_init__(self) -> None:
        given = self.pos_weight
        weights = [given] if isinstance(given, int | float) else given
        object.__setattr__(self, "pos_weight", _positive_weights("pos_weight", weights))

    def prepare_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Targets between 0 and 1, shaped like the logits; ``(n,)`` is allowed for one logit."""
        labels = self.encode_targets(logits, targets)
        low, high = torch.stack(labels.detach().aminmax()).tolist()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                "targets: binary_cross_entropy needs targets between 0 and 1, "
                f"got values from {low:g} to {high:g}"
            )
        return labels

    def encode_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What ``prepare_targets`` returns; reads no value."""
        return _like_logits(targets, logits, "binary_cross_entropy")

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """``−Σ_k (w_k y_k log p_k + (1 − y_k) log(1 − p_k))``."""
        weight = None if self.pos_weight is None else logits.new_tensor(self.pos_weight)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=weight)
        return losses.sum(1)

    def derivatives(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Curvature]:
        """``s p − w y`` and ``diag(s p (1 − p))`` with ``s = 1 + (w − 1) y``, which is 1 without weights."""
        probabilities = logits.sigmoid()
        curvature = probabilities * (-logits).sigmoid()
        if self.pos_weight is None:
            return probabilities - targets, DiagonalCurvature(curvature)
        weight = logits.new_tensor(self.pos_weight)
        scale = 1 + (weight - 1) * targets
        return scale * probabilities - weight * targets, DiagonalCurvature(scale * curvature)


@dataclass(frozen=True)
class SquaredError(HeadLoss):
    """``½ Σ_k (σ(a_k) − y_k)²`` with an element-wise activation ``σ``.

    ``r = (ŷ − y) σ′(a)``, ``A = diag(σ′(a)² + (ŷ − y) σ″(a))`` with ``ŷ = σ(a)``
    (Prop. 5, supplement, Eqs. 36–40, for each output of a multi-output head).

    Attributes:
        activation: ``"identity"`` (default), ``"sigmoid"``, ``"tanh"``, ``"softplus"``, or any element-wise,
            twice-differentiable function of a tensor, whose derivatives torch.func then takes.

    Raises:
        ValueError: If the activation is neither one of the names nor callable.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> loss = ha.SquaredError("identity")
        >>> loss.values(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
        tensor([2.])
    """

    activation: str | Activation = "identity"

    def __post_init__(self) -> None:
        if not callable(self.activation) and self.activation not in _CLOSED_FORMS:
            raise ValueError(
                f"activation: {self.activation!r} is not known; allowed are "
                f"{', '.join(map(repr, _CLOSED_FORMS))} or a callable"
            )

    def prepare_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Finite targets, shaped like the logits; ``(n,)`` is allowed for one output."""
        values = self.encode_targets(logits, targets)
        if not bool(values.isfinite().all()):
            raise ValueError("targets: squared error needs finite targets, got NaN or infinity")
        return values

    def encode_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What [prepare_targets][hessalign.head.SquaredError.prepare_targets] returns; no value is read."""
        return _like_logits(targets, logits, "squared error")

    def predict(self, logits: Tensor) -> Tensor:
        """``ŷ = σ(a)``, shaped like the logits."""
        if callable(self.activation):
            return self.activation(logits)
        return _CLOSED_FORMS[self.activation](logits)[0]

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """``½ Σ_k (ŷ_k − y_k)²``."""
        return (self.predict(logits) - targets).square().sum(1) / 2

    def derivatives(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Curvature]:
        """``(ŷ − y) σ′`` and ``diag(σ′² + (ŷ − y) σ″)``."""
        if callable(self.activation):
            prediction, slope, bend = _by_autograd(self.activation, logits)
        else:
            prediction, slope, bend = _CLOSED_FORMS[self.activation](logits)
        error = prediction - targets
        return error * slope, DiagonalCurvature(slope.square() + error * bend)


@dataclass(frozen=True)
class AutogradLoss(HeadLoss):
    """Any twice-differentiable loss, by torch.func in the logits: exact, but slower than a closed form.

    Attributes:
        function: Takes one sample's logits ``(C,)`` and its target ``targets[i]``; returns a scalar.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> loss = ha.AutogradLoss(lambda logits, target: torch.nn.functional.huber_loss(logits, target))
        >>> features, logits, targets = torch.randn(4, 3), torch.zeros(4, 1), torch.full((4, 1), 0.5)
        >>> ha.HeadDerivatives.from_logits(features, logits, targets, loss).gradient()[0, -1]
        tensor(-0.5000)
    """

    function: Callable[[Tensor, Tensor], Tensor]

    def prepare_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """One target for each sample, of whatever shape and type the function takes."""
        return targets

    def values(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The function, sample by sample in one batched call."""
        losses: Tensor = self._batched(self.function, logits, targets)
        return losses

    def derivatives(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Curvature]:
        """Gradient and Hessian of the function, sample by sample in one batched call."""
        gradient = torch.func.grad(self.function)
        matrices = self._batched(torch.func.jacrev(gradient), logits, targets)
        return self._batched(gradient, logits, targets), DenseCurvature(matrices)

    def _batched(self, function: Callable[[Tensor, Tensor], Tensor], *samples: Tensor) -> Tensor:
        try:
            return torch.vmap(function)(*samples)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                "loss: the function must give a scalar for logits (C,) and one target, by operations that "
                "torch.vmap can batch and that read no tensor's value (torch.arange(C) == target, where "
                f"one_hot(target) reads it); it ended with: {reason}"
            ) from error


def _identity(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return logits, torch.ones_like(logits), torch.zeros_like(logits)


def _sigmoid(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = logits.sigmoid()
    slope = value * (-logits).sigmoid()
    return value, slope, slope * (1 - 2 * value)


def _tanh(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = logits.tanh()
    slope = 1 - value.square()
    return value, slope, -2 * value * slope


def _softplus(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    slope = logits.sigmoid()
    return F.softplus(logits), slope, slope * (-logits).sigmoid()


_CLOSED_FORMS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    "identity": _identity,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "softplus": _softplus,
}


def _by_autograd(activation: Activation, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An element-wise function with its first two derivatives: summing keeps the elements apart."""
    value = activation(logits)
    if value.shape != logits.shape:
        raise ValueError(
            f"activation: must work element-wise, but it maps shape {tuple(logits.shape)} "
            f"to {tuple(value.shape)}"
        )
    first: Activation = torch.func.grad(lambda a: activation(a).sum())
    second: Activation = torch.func.grad(lambda a: first(a).sum())
    return value, first(logits), second(logits)


def _rows_of_classes(targets: Tensor, logits: Tensor) -> Tensor:
    """One-hot rows ``(n, C)``; a class id out of range gives a row of zeros."""
    return (targets.unsqueeze(1) == torch.arange(logits.shape[1], device=targets.device)).to(logits.dtype)


def _like_logits(targets: Tensor, logits: Tensor, loss: str) -> Tensor:
    if targets.ndim == 1 and logits.shape[1] == 1:
        targets = targets.unsqueeze(1)
    _require_shape(targets, logits, loss, "the shape of the logits")
    return targets.to(logits.dtype)


def _require_shape(targets: Tensor, logits: Tensor, loss: str, allowed: str) -> None:
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets: {loss} takes {allowed}; got targets of shape {tuple(targets.shape)} "
            f"for logits of shape {tuple(logits.shape)}"
        )


def _positive_weights(name: str, weights: Sequence[float] | Tensor | None) -> tuple[float, ...] | None:
    if weights is None:
        return None
    values = as_tensor(name, weights)
    numbers = values.detach().double().flatten().tolist()
    if values.ndim != 1 or not numbers or not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"{name}: must hold positive finite numbers, one for each class, got {weights!r}")
    return tuple(numbers)


NAMED_LOSSES: dict[str, HeadLoss] = {
    "cross_entropy": CrossEntropy(),
    "binary_cross_entropy": BinaryCrossEntropy(),
}


def resolve_loss(loss: str | HeadLoss) -> HeadLoss:
    """The loss a name stands for; a [HeadLoss][hessalign.HeadLoss] is returned as it is.

    Returns:
        The loss.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(loss, HeadLoss):
        return loss
    if not isinstance(loss, str) or loss not in NAMED_LOSSES:
        raise ValueError(
            f"loss: {loss!r} is not known; allowed are {', '.join(map(repr, NAMED_LOSSES))} "
            "or a HeadLoss such as SquaredError(activation=...) or AutogradLoss(function)"
        )
    return NAMED_LOSSES[loss]
