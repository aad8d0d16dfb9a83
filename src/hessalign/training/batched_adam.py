"""Adam for many runs at once, each with a learning rate, a weight decay and a count of steps of its own."""

from collections.abc import Mapping

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class BatchedAdam:
    """The rule of ``torch.optim.Adam`` with L2 weight decay (Kingma and Ba, ICLR 2015), run by run.

    ``g ← g + λ θ``, ``m ← β₁ m + (1 − β₁) g``, ``v ← β₂ v + (1 − β₂) g²``,
    ``θ ← θ − lr · m̂ / (√v̂ + ε)`` with ``m̂ = m / (1 − β₁ᵗ)``, ``v̂ = v / (1 − β₂ᵗ)``.

    Args:
        parameters: By name, ``(R, ...)``; changed in place.
        lr: Learning rates, ``(R,)``.
        weight_decay: ``λ``, ``(R,)``.
    """

    def __init__(self, parameters: Mapping[str, Tensor], lr: Tensor, weight_decay: Tensor) -> None:
        self.parameters = parameters
        self.lr = lr
        self.weight_decay = weight_decay
        self.steps = torch.zeros_like(lr)
        self.first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in parameters.items()}

    @torch.no_grad()
    def forget(self, runs: Tensor, lr: Tensor | None = None) -> None:
        """Let some runs begin anew.

        Args:
            runs: Which, ``(R,)``, bool; on the host, for it is read there.
            lr: Their learning rates from now on, ``(R,)``; None (default) for those they have.
        """
        if bool(runs.any()):
            for value in (self.steps, *self.first.values(), *self.second.values()):
                value[runs.to(value.device)] = 0
            if lr is not None:
                self.lr = torch.where(runs.to(self.lr.device), lr.to(self.lr), self.lr)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """One update of all runs.

        Args:
            gradients: By name, shaped like the parameters.
        """
        self.steps += 1
        size = self.lr / (1 - BETA1**self.steps)
        root = (1 - BETA2**self.steps).sqrt()
        for name, parameter in self.parameters.items():
            decayed = gradients[name] + _along(self.weight_decay, parameter) * parameter
            first, second = self.first[name], self.second[name]
            first.lerp_(decayed, 1 - BETA1)
            second.mul_(BETA2).addcmul_(decayed, decayed, value=1 - BETA2)
            scale = second.sqrt() / _along(root, parameter) + EPSILON
            parameter.sub_(_along(size, parameter) * first / scale)

    def state_of(self, name: str, run: int) -> dict[str, Tensor]:
        """The state of a run's parameter, as ``torch.optim.Adam`` keeps it."""
        return {
            "step": self.steps[run].float().cpu(),
            "exp_avg": self.first[name][run].clone(),
            "exp_avg_sq": self.second[name][run].clone(),
        }


def _along(values: Tensor, like: Tensor) -> Tensor:
    """Values of the runs, ``(R,)``, of the type of ``(R, ...)`` and shaped to go with it."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
