r"""Penalties on a linear head whose features are fixed, as functions of the logits.

Each has one or two terms with a weight of its own; a term is a scalar that can be differentiated twice.
Domains (groups) weigh in a term as they do in the mean loss.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.alignment import HessianAlignment
from hessalign.alignment.penalty import Method
from hessalign.estimator.data import HeadData
from hessalign.head import DomainDerivatives, HeadDerivatives, HeadLoss
from hessalign.head.statistics import Centre

# Domains whose squared distance is below this share of their squared size agree, but for rounding.
AGREEMENT = 1e-14
# Methods whose distance of Hessians changes where the features are rotated.
BY_AXIS = ("diagonal", "hutchinson")

Terms = dict[str, Tensor]


class Penalty(ABC):
    """Terms that are added to the mean loss."""

    names: ClassVar[tuple[str, ...]]
    """Of the terms, in the order in which ``"auto"`` chooses their weights."""
    in_units_of_the_loss: ClassVar[bool] = True
    """Whether a weight of 1 stands for the plain fit's loss; else for the term as it is."""
    is_smooth: bool = True
    """Whether second derivatives can be had."""

    def key(self, wanted: Collection[str]) -> str | None:
        """Equal for two penalties whose wanted terms are the same; None where that cannot be told."""
        return None

    @abstractmethod
    def terms(self, data: HeadData, loss: HeadLoss, logits: Tensor, wanted: Collection[str]) -> Terms:
        """The wanted terms, scalars."""

    @abstractmethod
    def sizes(self, data: HeadData, loss: HeadLoss, logits: Tensor) -> Mapping[str, float]:
        """Squared size, roughly, of what each term compares: much smaller terms are rounding."""

    def distances(
        self, data: HeadData, loss: HeadLoss, logits: Tensor, wanted: Collection[str]
    ) -> dict[str, float]:
        """The wanted terms as numbers; 0 where only rounding keeps the domains apart."""
        if not wanted:
            return {}
        # One by one: the same number, to the last bit, whatever else is wanted.
        found = {name: self.terms(data, loss, logits, [name])[name] for name in wanted}
        sizes = self.sizes(data, loss, logits)
        precision = max(AGREEMENT, (100 * torch.finfo(logits.dtype).eps) ** 2)
        return {name: float(v) if float(v) > precision * sizes[name] else 0.0 for name, v in found.items()}


@dataclass(frozen=True)
class Alignment(Penalty):
    """Distances of [HessianAlignment][hessalign.HessianAlignment]: Hessians' ``alpha``, gradients' ``beta``.

    Derivatives flow through the centre (``detach_centre=False``): only then is there a function whose
    gradient an optimiser can bring to zero.

    Attributes:
        method: Of the alignment.
        probes: Of ``"hutchinson"``, in expectation.
        centre: Of ``"hgp"``.
    """

    method: Method
    probes: int
    centre: Centre

    names = ("beta", "alpha")

    @property
    def is_smooth(self) -> bool:  # type: ignore[override]
        """The spectral norm has kinks, and no second derivative at hand."""
        return self.method != "spectral"

    @override
    def key(self, wanted: Collection[str]) -> str | None:
        # All methods compare gradients in the same way; only the Hessians' distance is the method's own.
        return "gradients" if set(wanted) == {"beta"} else repr(self)

    def terms(self, data: HeadData, loss: HeadLoss, logits: Tensor, wanted: Collection[str]) -> Terms:
        """The wanted terms, scalars."""
        hutchinson = self.method == "hutchinson"
        penalty = HessianAlignment(
            self.method,
            float("alpha" in wanted),
            float("beta" in wanted),
            probes=self.probes if hutchinson else None,
            expected=hutchinson,
            centre=self.centre if self.method == "hgp" else None,
            detach_centre=False,
            loss=loss,
        )
        # Axes matter where elements of Hessians are compared: on the diagonal, or by probes of signs.
        by_axis = "alpha" in wanted and self.method in BY_AXIS
        rows = data.weighted_rows_by_axis if by_axis else data.weighted_rows
        found = penalty.distances(DomainDerivatives(derivatives(data, loss, logits, rows), data.sizes))
        names = {"gradient": "beta", "hessian": "alpha"}
        return {names[key]: value @ data.domain_shares.to(value.dtype) for key, value in found.items()}

    def sizes(self, data: HeadData, loss: HeadLoss, logits: Tensor) -> Mapping[str, float]:
        """Squared sizes; the mean square of the scaled features is 1."""
        residual, curvature = loss.derivatives(logits, data.targets)
        width = data.rows_by_axis.shape[1]
        squares = width * residual.square().sum(1).mean().item()
        diagonal = width * curvature.diagonal().mean(0).square().sum().item()
        return {"beta": squares, "alpha": diagonal * squares if self.method == "hgp" else diagonal}


class RiskVariance(Penalty):
    """V-REx: ``Σ_e w_e (R_e − R̄)²``, the variance of the domains' risks."""

    names = ("penalty_weight",)

    def terms(self, data: HeadData, loss: HeadLoss, logits: Tensor, wanted: Collection[str]) -> Terms:
        """The wanted terms, scalars."""
        risks = data.by_domain(loss.values(logits, data.targets))
        return {"penalty_weight": (risks - risks @ data.domain_shares).square() @ data.domain_shares}

    def sizes(self, data: HeadData, loss: HeadLoss, logits: Tensor) -> Mapping[str, float]:
        """Squared risks."""
        risks = data.by_domain(loss.values(logits, data.targets))
        return {"penalty_weight": float(risks.square() @ data.domain_shares)}


class Slope(Penalty):
    """IRMv1: ``Σ_e w_e g_e²`` with ``g_e = mean_i r_i·a_i``, the derivative of ``R_e(s a)`` by ``s`` at 1."""

    names = ("penalty_weight",)

    def terms(self, data: HeadData, loss: HeadLoss, logits: Tensor, wanted: Collection[str]) -> Terms:
        """The wanted terms, scalars."""
        residual, _ = loss.derivatives(logits, data.targets)
        slopes = data.by_domain((residual * logits).sum(1))
        return {"penalty_weight": slopes.square() @ data.domain_shares}

    def sizes(self, data: HeadData, loss: HeadLoss, logits: Tensor) -> Mapping[str, float]:
        """Squared slopes of single samples."""
        residual, _ = loss.derivatives(logits, data.targets)
        return {"penalty_weight": float((residual * logits).sum(1).square() @ data.shares)}


class GradientVariance(Penalty):
    """Fishr: ``Σ_e w_e ‖v_e − v̄‖²``, ``v_e`` the variance over samples of the head's gradient, by element."""

    names = ("penalty_weight",)

    def terms(self, data: HeadData, loss: HeadLoss, logits: Tensor, wanted: Collection[str]) -> Terms:
        """The wanted terms, scalars."""
        variances = self._variances(data, loss, logits)
        shares = data.domain_shares
        mean = (variances * shares[:, None, None]).sum(0)
        return {"penalty_weight": (variances - mean).square().sum((1, 2)) @ shares}

    def sizes(self, data: HeadData, loss: HeadLoss, logits: Tensor) -> Mapping[str, float]:
        """Squared variances."""
        variances = self._variances(data, loss, logits)
        return {"penalty_weight": float(variances.square().sum((1, 2)) @ data.domain_shares)}

    def _variances(self, data: HeadData, loss: HeadLoss, logits: Tensor) -> Tensor:
        residual, _ = loss.derivatives(logits, data.targets)
        weighted = residual * data.within.unsqueeze(1)
        first = [
            r.T @ z
            for r, z in zip(weighted.split(data.sizes), data.rows_by_axis.split(data.sizes), strict=True)
        ]
        second = [
            r.T @ z
            for r, z in zip(
                (weighted * residual).split(data.sizes), data.squares_by_axis.split(data.sizes), strict=True
            )
        ]
        return torch.stack(second) - torch.stack(first).square()


@dataclass(frozen=True)
class WorstGroup(Penalty):
    r"""Group DRO: what is missing from the mean loss to the largest of the groups' losses, smoothed.

    ``τ log Σ_g exp((R_g + c_g) / τ) − L``: at least ``max_g (R_g + c_g) − L``, and at most ``τ log m`` more.

    Attributes:
        temperature: ``τ``.
        adjustment: ``c_g = adjustment / √n_g``.
    """

    temperature: float = 1.0
    adjustment: float = 0.0

    names = ("robustness",)
    in_units_of_the_loss = False

    def risks(self, data: HeadData, loss: HeadLoss, logits: Tensor) -> Tensor:
        """``R_g + c_g``, ``(m,)``."""
        risks = data.by_domain(loss.values(logits, data.targets))
        return risks + self.adjustment / risks.new_tensor(data.counts).sqrt()

    def terms(self, data: HeadData, loss: HeadLoss, logits: Tensor, wanted: Collection[str]) -> Terms:
        """The wanted terms, scalars."""
        largest = torch.logsumexp(self.risks(data, loss, logits) / self.temperature, 0) * self.temperature
        return {"robustness": largest - loss.values(logits, data.targets) @ data.shares}

    def sizes(self, data: HeadData, loss: HeadLoss, logits: Tensor) -> Mapping[str, float]:
        """None is too small."""
        return {"robustness": 0.0}

    def gap(self, data: HeadData, loss: HeadLoss, logits: Tensor) -> tuple[float, Tensor]:
        """How far the smoothed optimum is from the true one at most, and the groups' weights ``q``, ``(m,)``.

        Where the smoothed objective is flat, the head minimises ``Σ_g q_g R_g`` with the decay: a lower
        bound.

        Returns:
            The gap, at least 0, and the weights.
        """
        risks = self.risks(data, loss, logits)
        weights = torch.softmax(risks / self.temperature, 0)
        return float(risks.max() - weights @ risks), weights


def derivatives(data: HeadData, loss: HeadLoss, logits: Tensor, rows: Tensor) -> HeadDerivatives:
    """Head derivatives of all samples; weights within domains go half into each of a product's factors.

    HeadDerivatives.from_logits would check all features at every step; here they do not change.

    Returns:
        Derivatives by a head without bias, whose rows hold the constant.
    """
    residual, curvature = loss.derivatives(logits, data.targets)
    if data.roots is not None:
        residual = residual * data.roots
    return HeadDerivatives(rows, residual, curvature, bias=False)
