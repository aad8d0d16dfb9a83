"""The weight of a penalty over the steps of a training run."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from hessalign.checks import require_flag, require_number, require_whole


@dataclass(frozen=True)
class WeightSchedule:
    r"""Weight ``w(t)`` that is ``before`` at first, then grows to ``after`` and stays there.

    ``w(t) = before + (after − before) · min(1, (t − start + 1) / max(1, ramp))`` for ``t ≥ start``. Steps
    count from 0. IRM, V-REx, Fishr and the paper's Colored MNIST runs wait like that, without a ramp: a
    penalty on a network that has learned nothing yet keeps it from learning.

    Where the weight jumps, Adam's running averages belong to another loss. Published code makes a new
    optimiser there; [prepare][hessalign.loop.WeightSchedule.prepare] empties the one you have.

    Attributes:
        after: Weight in the end, at least 0.
        before: Weight at first, at least 0; default 0.
        start: First step with more than ``before``; default 0, at once.
        ramp: Steps over which the weight grows; 0 or 1 (default 0) reach it at once.
        divide: Whether [combine][hessalign.loop.WeightSchedule.combine] divides the whole objective by a
            weight above 1, as the paper's Colored MNIST code does; default False.
        reset_optimizer: Whether [prepare][hessalign.loop.WeightSchedule.prepare] empties the optimiser at
            ``start``; default False.

    Raises:
        ValueError: If a weight is negative or not finite, or a number of steps is negative or not whole.

    Examples:
        >>> from hessalign.loop import WeightSchedule
        >>> schedule = WeightSchedule(after=10.0, start=2, ramp=2)
        >>> [schedule(step) for step in range(5)]
        [0.0, 0.0, 5.0, 10.0, 10.0]
    """

    after: float | Tensor
    before: float = 0.0
    start: int | Tensor = 0
    ramp: int = 0
    divide: bool = False
    reset_optimizer: bool = False

    def __post_init__(self) -> None:
        # Tensors hold the weights of several runs at once; reading them here would wait for the device.
        if not isinstance(self.after, Tensor):
            require_number("after", self.after, least=0)
        if not isinstance(self.start, Tensor):
            require_whole("start", self.start, least=0)
        require_number("before", self.before, least=0)
        require_whole("ramp", self.ramp, least=0)
        require_flag("divide", self.divide)
        require_flag("reset_optimizer", self.reset_optimizer)

    def __call__(self, step: int | Tensor) -> float | Tensor:
        """``w(step)``: a number from numbers; a tensor, read by nobody, where one of them is a tensor.

        Args:
            step: The step that is about to be done, counted from 0.

        Returns:
            The weight.
        """
        if any(isinstance(value, Tensor) for value in (step, self.after, self.start)):
            return self._of_tensors(step)
        grown = step - self.start + 1
        if grown <= 0:
            return float(self.before)
        if grown >= self.ramp:
            return float(self.after)
        return self.before + (self.after - self.before) * grown / self.ramp

    def combine(self, loss: Tensor, penalty: Tensor, step: int) -> Tensor:
        """The objective of a step: ``loss + w·penalty``, with ``divide`` over ``max(1, w)``.

        Args:
            loss: Scalar.
            penalty: Scalar, without a weight of its own.
            step: The step that is about to be done, counted from 0.

        Returns:
            A scalar to differentiate.
        """
        weight = self(step)
        if not self.divide:
            return loss + weight * penalty
        scale = weight.clamp(min=1) if isinstance(weight, Tensor) else max(1.0, weight)
        return loss / scale + (weight / scale) * penalty

    def resets(self, step: int) -> bool | Tensor:
        """Whether the optimiser begins anew with a step: at ``start``, but not at the very first step.

        Args:
            step: The step that is about to be done, counted from 0.

        Returns:
            True or False; a tensor of either where ``start`` or the step is one.
        """
        return (self.start == step) & (self.reset_optimizer and step > 0)

    def prepare(self, optimizer: Optimizer, step: int) -> None:
        """Empty the optimiser's state where the schedule says so; call it before each step.

        Args:
            optimizer: Any optimiser whose state is made anew when it is empty, as all of torch's do.
            step: The step that is about to be done, counted from 0.
        """
        if self.resets(step):
            optimizer.state.clear()

    def _of_tensors(self, step: int | Tensor) -> Tensor:
        tensors = [value for value in (self.after, self.start, step) if isinstance(value, Tensor)]
        grown = torch.as_tensor(step - self.start + 1, device=tensors[0].device)
        after = torch.as_tensor(self.after, device=tensors[0].device)
        before = torch.full_like(after, self.before)
        growing = before + (after - before) * grown / max(1, self.ramp)
        return torch.where(grown <= 0, before, torch.where(grown >= self.ramp, after, growing))
