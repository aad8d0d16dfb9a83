"""Sharpness-aware minimisation: the gradient is taken where the loss is worst nearby."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics


@dataclass(frozen=True)
class Sharpness:
    r"""``θ ← θ − η·Adam(∇L(θ + ε))`` with ``ε = ρ g / ‖g‖``.

    SAM climbs along ``g = ∇L(θ)`` (Foret, Kleiner, Mobahi and Neyshabur, ICLR 2021). DISAM climbs along
    ``g = ∇(L − λ Var_e R_e)(θ)``, ``R_e`` the domains' mean cross-entropies, so that domains that are learned
    already count for as much as others (Zhang, Xu, Yao, Zhou et al., ICLR 2024).

    ``L`` is the algorithm's objective. Both its evaluations start from the same buffers and the same random
    numbers: they see the same dropout and the same draws. Buffers (running statistics, moving averages)
    keep what the first one, at ``θ``, makes of them, so nothing is counted twice.

    Attributes:
        rho: ``ρ``.
        variance_weight: ``λ``; None (default) for SAM.
    """

    rho: float
    variance_weight: float | None = None

    def minimise(
        self, algorithm: "Algorithm", batch: "DomainBatch", optimizer: Optimizer
    ) -> "tuple[Tensor, Metrics]":
        """One step.

        Args:
            algorithm: With an objective.
            batch: Samples of all source domains.
            optimizer: Of all that it trains.

        Returns:
            Loss and metrics at ``θ``.
        """
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        before = _Moment(algorithm)
        loss, metrics = algorithm.objective(batch)
        climbed = loss
        after = _Moment(algorithm)
        if self.variance_weight is not None:
            before.restore()
            climbed = loss - self.variance_weight * _risks(algorithm, batch).var(correction=0)
        algorithm.zero_grad()
        algorithm.backward(climbed)
        with _climbed(parameters, self.rho):
            before.restore()
            worst, _ = algorithm.objective(batch)
            algorithm.zero_grad()
            algorithm.backward(worst)
        after.restore()
        optimizer.step()
        return loss, metrics


def _risks(algorithm: "Algorithm", batch: "DomainBatch") -> Tensor:
    """Mean cross-entropy of each domain, ``(E,)``."""
    losses = torch.nn.functional.cross_entropy(algorithm(batch.inputs), batch.targets, reduction="none")
    return losses.view(batch.domain_count, -1).mean(1)


@contextmanager
def _climbed(parameters: list[torch.nn.Parameter], rho: float) -> Iterator[None]:
    """Parameters at ``θ + ρ g / ‖g‖``; afterwards at ``θ``, to the bit."""
    moved = [each for each in parameters if each.grad is not None]
    kept = [each.detach().clone() for each in moved]
    with torch.no_grad():
        norm = torch.stack([each.grad.double().norm() for each in moved if each.grad is not None]).norm()
        scale = torch.where(norm > 0, rho / norm, 0.0)  # where all is flat there is nowhere to climb
        for each in moved:
            assert each.grad is not None
            each.add_((scale * each.grad).to(each))
    yield
    with torch.no_grad():
        for each, value in zip(moved, kept, strict=True):
            each.copy_(value)


class _Moment:
    """Buffers and random numbers as they are now."""

    def __init__(self, algorithm: "Algorithm") -> None:
        self._buffers = [
            (module, name, value if value is None else value.clone())
            for module in algorithm.modules()
            for name, value in module._buffers.items()
        ]
        device = algorithm.head.weight.device
        self._device = device if device.type == "cuda" else None
        self._random = torch.get_rng_state()
        self._on_device = torch.cuda.get_rng_state(self._device) if self._device else None

    def restore(self) -> None:
        for module, name, value in self._buffers:
            module._buffers[name] = value if value is None else value.clone()
        torch.set_rng_state(self._random)
        if self._on_device is not None and self._device is not None:
            torch.cuda.set_rng_state(self._on_device, self._device)
