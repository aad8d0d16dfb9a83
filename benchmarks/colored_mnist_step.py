"""One full-batch step of Colored MNIST at the published size: 50,000 images, 390 hidden units."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.timing import Comparison, median_seconds
from hessalign.experiments.colored_mnist import METHODS, RestartSpec, make_colored_mnist, make_penalty
from hessalign.experiments.colored_mnist.network import ColoredMLP
from hessalign.experiments.colored_mnist.restart import forward_domain, objective
from hessalign.memory import keep_freed_memory

STEPS_IN_A_BLOCK = 4
METHODS_TIMED = ("erm", "gradient", "hgp", "diagonal", "hutchinson", "frobenius")


def run() -> list[Comparison]:
    """Time a step of each method and of a perceptron as one would write it in PyTorch."""
    keep_freed_memory()
    data = make_colored_mnist("balanced", torch.Generator().manual_seed(0))

    def step_of(method: str) -> Callable[[], None]:
        spec = RestartSpec(method=method, seed=0, probes=150 if METHODS[method].uses_probes else None)
        network = ColoredMLP(spec.hidden, torch.Generator().manual_seed(0))
        optimizer = torch.optim.Adam(network.parameters(), lr=spec.learning_rate)
        penalty_of = make_penalty(spec, torch.Generator().manual_seed(0))

        def step() -> None:
            outputs = [forward_domain(network, images) for images in data.sources]
            loss, _ = objective(spec, spec.anneal_step, outputs, network, penalty_of)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    steps = {method: step_of(method) for method in METHODS_TIMED}
    # Alternatives are timed in blocks, not call by call: each step's memory then serves the next one.
    seconds = median_seconds(
        {name: _repeated(step) for name, step in {**steps, "plain": _plain_step(data)}.items()}, rounds=5
    )
    seconds = {name: value / STEPS_IN_A_BLOCK for name, value in seconds.items()}

    def cost(method: str, label: str, target: float | None = None) -> Comparison:
        return Comparison(
            f"step with {label}", "ERM step of the same code", seconds[method], seconds["erm"], "cost", target
        )

    return [
        Comparison(
            "Colored MNIST step, ERM", "the plain perceptron", seconds["erm"], seconds["plain"], "cost", 0.8
        ),
        cost("gradient", "gradient alignment"),
        cost("hgp", "HGP", 1.15),
        cost("diagonal", "exact diagonal", 1.15),
        cost("hutchinson", "expected Hutchinson", 1.6),
        cost("frobenius", "whole Hessian"),
    ]


def _repeated(step: Callable[[], None]) -> Callable[[], None]:
    def block() -> None:
        for _ in range(STEPS_IN_A_BLOCK):
            step()

    return block


def _plain_step(data) -> Callable[[], None]:
    inputs = torch.cat([images.two_channels() for images in data.sources])
    labels = torch.cat([images.labels for images in data.sources])
    network = nn.Sequential(nn.Linear(392, 390), nn.ReLU(), nn.Linear(390, 390), nn.ReLU(), nn.Linear(390, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=4.9e-4)

    def step() -> None:
        loss = F.binary_cross_entropy_with_logits(network(inputs).squeeze(1), labels)
        loss = loss + 0.0011 * sum(weights.square().sum() for weights in network.parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
