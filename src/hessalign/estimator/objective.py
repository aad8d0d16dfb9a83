r"""What the estimators minimise, as a function of the head's weight alone: the features are fixed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator  # type: ignore[import-untyped]
from torch import Tensor

from hessalign.alignment import HessianAlignment
from hessalign.head import DomainDerivatives, HeadDerivatives, HeadLoss


@dataclass(frozen=True, eq=False)
class HeadData:
    """Features and targets, each domain's samples together.

    Attributes:
        features: ``(n, d)``.
        targets: ``(n, C)``, as the loss prepared them.
        sizes: Samples of each domain.
    """

    features: Tensor
    targets: Tensor
    sizes: list[int]

    @classmethod
    def from_arrays(
        cls,
        features: NDArray[np.floating],
        targets: NDArray[np.generic],
        codes: NDArray[np.intp],
        outputs: int,
        loss: HeadLoss,
        device: str,
    ) -> "HeadData":
        """Copy the samples, sorted by their domains' codes ``0 … m−1``.

        Args:
            features: ``(n, d)``, float32 or float64.
            targets: As the loss takes them.
            codes: Domain of each sample, ``(n,)``; every domain up to the largest code has a sample.
            outputs: ``C``.
            loss: Prepares the targets.
            device: Where to compute.
        """
        order = np.argsort(codes, kind="stable")
        on_device = torch.from_numpy(features[order]).to(device)
        logits = on_device.new_zeros(len(order), outputs)
        prepared = loss.prepare_targets(logits, torch.from_numpy(targets[order]).to(device))
        return cls(on_device, prepared, np.bincount(codes).tolist())

    def domains(self) -> list["HeadData"]:
        """Each domain's samples."""
        parts = zip(self.features.split(self.sizes), self.targets.split(self.sizes), self.sizes, strict=True)
        return [HeadData(features, targets, [size]) for features, targets, size in parts]

    @classmethod
    def join(cls, domains: Sequence["HeadData"]) -> "HeadData":
        """Several domains as one data set."""
        return cls(
            torch.cat([domain.features for domain in domains]),
            torch.cat([domain.targets for domain in domains]),
            [size for domain in domains for size in domain.sizes],
        )


@dataclass(frozen=True, eq=False)
class Objective:
    r"""``mean loss + alignment penalty + (decay / 2) ‖W‖²`` of the head ``θ = [W | b]``, ``(C, d+1)``.

    The mean runs over all samples. The penalty compares domains with equal weights, and derivatives flow
    through its centre (``detach_centre=False``): only then is there a function whose gradient an optimiser
    can bring to zero. The intercept ``b`` is not penalised by ``decay``.

    Attributes:
        data: The samples.
        penalty: Its ``loss`` is the head's loss.
        decay: ``≥ 0``.
        fit_intercept: False keeps the intercept where it starts; the penalty then has no derivatives for it.
    """

    data: HeadData
    penalty: HessianAlignment
    decay: float
    fit_intercept: bool

    @property
    def shape(self) -> tuple[int, int]:
        """``(C, d+1)``."""
        return self.data.targets.shape[1], self.data.features.shape[1] + 1

    def terms(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, alignment penalty and ``(decay / 2) ‖W‖²`` at a head ``(C, d+1)``; scalars."""
        logits = self._logits(weight)
        mean_loss = self.penalty.loss.values(logits, self.data.targets).mean()
        size = self.decay / 2 * weight[:, :-1].square().sum()
        if not self.aligns:
            return mean_loss, torch.zeros_like(mean_loss), size
        domains = DomainDerivatives(self._derivatives(logits), self.data.sizes)
        alignment = self.penalty.from_derivatives(domains)
        return mean_loss, alignment, size

    def value_and_gradient(self, theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient at a flattened head, ``(C(d+1),)``, both in float64 whatever the data's type."""
        weight, value = self._value(theta)
        (gradient,) = torch.autograd.grad(value, weight)
        return value.item(), self._free(gradient).flatten().cpu().double().numpy()

    def hessian(self, theta: NDArray[np.float64]) -> LinearOperator:
        """The Hessian at a flattened head, by its products with vectors, ``(C(d+1), C(d+1))``.

        The spectral norm's eigenvectors count as fixed, so that method's Hessian is an approximation.
        """
        weight, value = self._value(theta)
        (gradient,) = torch.autograd.grad(value, weight, create_graph=True)

        def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            direction = self._free(torch.from_numpy(vector).to(weight).view(self.shape))
            (result,) = torch.autograd.grad(gradient, weight, direction, retain_graph=True)
            return self._free(result).flatten().cpu().double().numpy()

        return LinearOperator((theta.size, theta.size), matvec=product, dtype=np.float64)

    def gradient_scale(self) -> float:
        """The solver's yardstick for what a small gradient is, taken at ``θ = 0``.

        The larger of a sample's gradient (root mean square over samples, largest element), which does not
        vanish where the samples' gradients cancel, and of the objective's gradient (largest element), which
        grows with the penalty's weights as its rounding errors do.
        """
        _, gradient = self.value_and_gradient(np.zeros(self.shape).ravel())
        samples = self._derivatives(self._logits(self.data.features.new_zeros(self.shape)))
        mean_squares = samples.gradient_variance() + samples.gradient().square()
        return max(mean_squares.max().sqrt().item(), float(np.abs(gradient).max()))

    @property
    def aligns(self) -> bool:
        """Whether the penalty is anything but 0."""
        return len(self.data.sizes) > 1 and bool(self.penalty.alpha > 0 or self.penalty.beta > 0)

    def _value(self, theta: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """The head ``(C, d+1)`` as a tensor, and the objective as a function of it."""
        features = self.data.features
        weight = torch.tensor(theta, dtype=features.dtype, device=features.device).view(self.shape)
        with torch.enable_grad():
            return weight, torch.stack(self.terms(weight.requires_grad_())).sum()

    def _free(self, direction: Tensor) -> Tensor:
        """A derivative or a direction ``(C, d+1)``, 0 for an intercept that stays where it is."""
        return direction if self.fit_intercept else F.pad(direction[:, :-1], (0, 1))

    def _logits(self, weight: Tensor) -> Tensor:
        # A slice of the weight as it is would cost the backward pass twice the time (memory layout).
        return F.linear(self.data.features, weight[:, :-1].contiguous(), weight[:, -1])

    def _derivatives(self, logits: Tensor) -> HeadDerivatives:
        # HeadDerivatives.from_logits would check all features at every step; here they do not change.
        residual, curvature = self.penalty.loss.derivatives(logits, self.data.targets)
        return HeadDerivatives(self.data.features, residual, curvature, bias=self.fit_intercept)
