"""Adam that takes the size of its steps from another gradient than the one it follows."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from hessalign.experiments.colored_mnist import PLAIN_HUTCHINSON, RestartSpec, make_penalty
from hessalign.experiments.colored_mnist.methods import DomainOutput
from hessalign.experiments.colored_mnist.network import ColoredMLP
from hessalign.experiments.colored_mnist.restart import Update, adam, objective


class SizedAdam:
    r"""``w ← w − η m̂ / (√v̂ + ε)``, ``m`` the mean of the followed gradients, ``v`` that of others' squares.

    Where both gradients are the same this is Adam (Kingma and Ba, "Adam: A Method for Stochastic
    Optimization", ICLR 2015), with its usual rates of decay and ``ε``. With two gradients of equal mean, one
    of them noisy, it tells whether noise acts by the way that is taken or by the size of the steps.

    Args:
        parameters: What to train. Their ``grad`` is followed.
        learning_rate: ``η``.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float) -> None:
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.decay, self.square_decay, self.epsilon = 0.9, 0.999, 1e-8
        self.steps = 0
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.mean_squares = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, sizing: Sequence[Tensor]) -> None:
        """One step along the parameters' ``grad``.

        Args:
            sizing: The gradients that give the size, one for each parameter.

        Raises:
            ValueError: If a parameter has no gradient to follow.
        """
        self.steps += 1
        correction, square_correction = 1 - self.decay**self.steps, 1 - self.square_decay**self.steps
        for parameter, mean, square, size in zip(
            self.parameters, self.means, self.mean_squares, sizing, strict=True
        ):
            if parameter.grad is None:
                raise ValueError("parameters: one of them has no gradient to follow; call backward() first")
            mean.lerp_(parameter.grad, 1 - self.decay)
            square.mul_(self.square_decay).addcmul_(size, size, value=1 - self.square_decay)
            root = (square / square_correction).sqrt_().add_(self.epsilon)
            parameter.addcdiv_(mean, root, value=-self.learning_rate / correction)


def make_update(spec: RestartSpec, network: ColoredMLP, generator: torch.Generator) -> Update:
    """Adam, or for the mixed variants of Hutchinson steps that the other variant's gradient sizes.

    Args:
        spec: Names the variant and gives the learning rate.
        network: What to train.
        generator: Source of the probes.

    Returns:
        What does a step.
    """
    if spec.hutchinson in PLAIN_HUTCHINSON:
        return adam(spec, network, generator)
    optimizer = SizedAdam(network.parameters(), spec.learning_rate)
    other = "sampled" if spec.hutchinson == "expected-sampled-steps" else "expected"
    sizing_penalty = make_penalty(spec.model_copy(update={"hutchinson": other}), generator)

    def update(step: int, loss: Tensor, outputs: Sequence[DomainOutput]) -> None:
        network.zero_grad()
        sizing, _ = objective(spec, step, outputs, network, sizing_penalty)
        sizes = torch.autograd.grad(sizing, optimizer.parameters, retain_graph=True)
        loss.backward()
        optimizer.step(sizes)

    return update
