r"""The methods of Tables 7 and 8 and ours: each a penalty over the source domains.

Every method minimises ``mean loss + 0.0011 Σ‖w‖² + λ · penalty`` (see [restart][]); here are the penalties.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hessalign.alignment import HessianAlignment, HessianFlatness
from hessalign.alignment.flatness import Part
from hessalign.experiments.colored_mnist.config import RestartSpec
from hessalign.head import HeadDerivatives


@dataclass(frozen=True, eq=False)
class DomainOutput:
    """What a network makes of one source domain.

    Attributes:
        features: Input of the head, ``(n, d)``.
        logits: ``(n,)``.
        labels: 0 or 1, ``(n,)``.
        loss: Mean binary cross-entropy, scalar.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    loss: Tensor

    def accuracy(self) -> float:
        """In percent."""
        return 100 * float(self._right().mean())

    def class_accuracies(self) -> tuple[float, float]:
        """In percent, of the images with label 0 and with label 1; NaN for a label that none has."""
        ones, right = self.labels > 0.5, self._right()
        return 100 * float(right[~ones].mean()), 100 * float(right[ones].mean())

    def _right(self) -> Tensor:
        return ((self.logits > 0) == (self.labels > 0.5)).double()

    def derivatives(self) -> HeadDerivatives:
        """Closed-form derivatives of the loss with respect to the head."""
        return HeadDerivatives.from_logits(self.features, self.logits, self.labels, "binary_cross_entropy")


Penalty = Callable[[Sequence[DomainOutput]], Tensor]


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        label: Name as the paper prints it.
        penalty: Makes the penalty for a restart; None for ERM.
        uses_probes: Whether the number of Hutchinson probes matters.
        uses_alpha: Whether there is a Hessian distance, whose weight matters.
        uses_gamma: Whether there is a flatness penalty, whose weight matters.
    """

    label: str
    penalty: Callable[[RestartSpec, torch.Generator], Penalty] | None
    uses_probes: bool = False
    uses_alpha: bool = False
    uses_gamma: bool = False


def irm(outputs: Sequence[DomainOutput]) -> Tensor:
    """Mean over domains of ``(∂/∂s loss at s·logits, s = 1)²``, the derivative being the mean of ``r_i a_i``.

    Arjovsky et al., "Invariant Risk Minimization", 2019.
    """
    slopes = [((output.logits.sigmoid() - output.labels) * output.logits).mean() for output in outputs]
    return torch.stack(slopes).square().mean()


def vrex(outputs: Sequence[DomainOutput]) -> Tensor:
    """``Σ_e (R_e − R̄)²`` times 2: for two domains, the squared difference of their losses.

    Krueger et al., "Out-of-Distribution Generalization via Risk Extrapolation", ICML 2021.
    """
    losses = torch.stack([output.loss for output in outputs])
    return 2 * (losses - losses.mean()).square().sum()


def fishr(outputs: Sequence[DomainOutput]) -> Tensor:
    """``Σ_e ‖v_e − v̄‖²``, ``v_e`` the variance over samples of each element of the head's gradient.

    Rame et al., "Fishr: Invariant Gradient Variances for Out-of-Distribution Generalization", ICML 2022.
    """
    variances = torch.stack([output.derivatives().gradient_variance() for output in outputs])
    return (variances - variances.mean(0)).square().sum()


def _alignment(
    spec: RestartSpec,
    generator: torch.Generator,
    alignment: str,
    hessian: bool = True,
    beta: float = 1.0,
    flat: Part | None = None,
) -> Penalty:
    """Head alignment as the Colored MNIST script does it: summed over domains, centre not detached.

    Args:
        spec: Gives the weight of the Hessian distance, that of the flatness, and the probes.
        generator: Source of the probes.
        alignment: Method of [HessianAlignment][hessalign.HessianAlignment].
        hessian: Whether there is a Hessian distance.
        beta: Weight of the gradient distance.
        flat: Part of the Hessians that is made small besides.
    """
    penalty = HessianAlignment(
        alignment,  # type: ignore[arg-type]
        spec.alpha if hessian else 0.0,
        beta,
        probes=spec.probes,
        expected=spec.probes is not None and spec.hutchinson == "expected",
        detach_centre=False,
        reduction="sum",
        loss="binary_cross_entropy",
    )
    if flat is None:
        return lambda outputs: penalty.from_derivatives(_derivatives(outputs), generator)
    if spec.gamma is None:
        raise ValueError(f"gamma: {spec.method!r} needs the weight of its flatness penalty, got None")
    flatness = HessianFlatness(spec.gamma, flat, reduction="sum", loss="binary_cross_entropy")

    def both(outputs: Sequence[DomainOutput]) -> Tensor:
        domains = _derivatives(outputs)
        return penalty.from_derivatives(domains, generator) + flatness.from_derivatives(domains)

    return both


def _derivatives(outputs: Sequence[DomainOutput]) -> list[HeadDerivatives]:
    return [output.derivatives() for output in outputs]


def _plain(penalty: Penalty) -> Callable[[RestartSpec, torch.Generator], Penalty]:
    return lambda _spec, _generator: penalty


def _hessian_methods(alignment: str, label: str, uses_probes: bool = False) -> dict[str, Method]:
    """A Hessian alignment with both parts, and with one of them switched off."""
    make = partial(_alignment, alignment=alignment)
    return {
        alignment: Method(label, make, uses_probes, uses_alpha=True),
        f"{alignment}-alpha0": Method(f"{label} (α = 0)", partial(make, hessian=False), uses_probes),
        f"{alignment}-beta0": Method(
            f"{label} (β = 0)", partial(make, beta=0.0), uses_probes, uses_alpha=True
        ),
    }


def _flat_methods(alignment: str, label: str, uses_alpha: bool = True) -> dict[str, Method]:
    """An alignment with both parts, beside a flat head: the whole Hessian, and its off-diagonal part."""
    make = partial(_alignment, alignment=alignment)
    settings = {"uses_alpha": uses_alpha, "uses_gamma": True}
    return {
        f"{alignment}-flat": Method(f"{label} + flat head", partial(make, flat="whole"), **settings),
        f"{alignment}-flat-off": Method(
            f"{label} + flat head, off-diagonal", partial(make, flat="off_diagonal"), **settings
        ),
    }


METHODS: dict[str, Method] = {
    "erm": Method("ERM", None),
    "irm": Method("IRM", _plain(irm)),
    "vrex": Method("V-REx", _plain(vrex)),
    "fishr": Method("Fishr", _plain(fishr)),
    **_hessian_methods("hgp", "HGP"),
    **_hessian_methods("hutchinson", "Hutchinson", uses_probes=True),
    "gradient": Method("Gradient", partial(_alignment, alignment="gradient")),
    **_hessian_methods("diagonal", "Exact diagonal"),
    **_hessian_methods("frobenius", "Exact Hessian"),
    **_hessian_methods("spectral", "Exact Hessian, spectral norm"),
    **_flat_methods("gradient", "Gradient", uses_alpha=False),
    **_flat_methods("diagonal", "Exact diagonal"),
    **_flat_methods("frobenius", "Exact Hessian"),
}
