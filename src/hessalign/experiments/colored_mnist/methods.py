r"""The methods of Tables 7 and 8 and ours: each a penalty over the source domains.

Every method minimises ``mean loss + 0.0011 Σ‖w‖² + λ · penalty`` (see [restart][]); here are the penalties.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hessalign.alignment import HessianAlignment
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
    """

    label: str
    penalty: Callable[[RestartSpec, torch.Generator], Penalty] | None
    uses_probes: bool = False


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
    spec: RestartSpec, generator: torch.Generator, alignment: str, alpha: float = 1.0, beta: float = 1.0
) -> Penalty:
    """Head alignment as the Colored MNIST script does it: summed over domains, centre not detached."""
    penalty = HessianAlignment(
        alignment,  # type: ignore[arg-type]
        alpha,
        beta,
        probes=spec.probes,
        expected=spec.probes is not None and spec.hutchinson == "expected",
        detach_centre=False,
        reduction="sum",
        loss="binary_cross_entropy",
    )
    return lambda outputs: penalty.from_derivatives([output.derivatives() for output in outputs], generator)


def _plain(penalty: Penalty) -> Callable[[RestartSpec, torch.Generator], Penalty]:
    return lambda _spec, _generator: penalty


def _hessian_methods(alignment: str, label: str, uses_probes: bool) -> dict[str, Method]:
    """A Hessian alignment with both parts, and with one of them switched off."""
    make = partial(_alignment, alignment=alignment)
    return {
        alignment: Method(label, make, uses_probes),
        f"{alignment}-alpha0": Method(f"{label} (α = 0)", partial(make, alpha=0.0), uses_probes),
        f"{alignment}-beta0": Method(f"{label} (β = 0)", partial(make, beta=0.0), uses_probes),
    }


METHODS: dict[str, Method] = {
    "erm": Method("ERM", None),
    "irm": Method("IRM", _plain(irm)),
    "vrex": Method("V-REx", _plain(vrex)),
    "fishr": Method("Fishr", _plain(fishr)),
    **_hessian_methods("hgp", "HGP", uses_probes=False),
    **_hessian_methods("hutchinson", "Hutchinson", uses_probes=True),
    "gradient": Method("Gradient", partial(_alignment, alignment="gradient")),
    **_hessian_methods("diagonal", "Exact diagonal", uses_probes=False),
    **_hessian_methods("frobenius", "Exact Hessian", uses_probes=False),
}
