"""A training step of ResNet-18 at 224 pixels: 3 domains of 8 images, 7 classes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torchvision.models import resnet18

import hessalign as ha
from benchmarks.timing import Comparison, median_seconds

DOMAINS, IMAGES, CLASSES = 3, 8, 7
PENALTIES = {
    "HGP": ha.HessianAlignment("hgp"),
    "exact diagonal": ha.HessianAlignment("diagonal"),
    "expected Hutchinson": ha.HessianAlignment("hutchinson", probes=300, expected=True),
    "whole Hessian": ha.HessianAlignment("frobenius"),
}


def run() -> list[Comparison]:
    """Time a step with each penalty and without one."""
    torch.manual_seed(0)
    network = resnet18(weights=None)
    head = torch.nn.Linear(network.fc.in_features, CLASSES)
    network.fc = torch.nn.Identity()
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=5e-5)
    images = torch.randn(DOMAINS * IMAGES, 3, 224, 224)
    targets = torch.randint(0, CLASSES, (DOMAINS * IMAGES,))
    domains = torch.arange(DOMAINS).repeat_interleave(IMAGES)

    def step_with(penalty: ha.HessianAlignment | None) -> Callable[[], None]:
        def step() -> None:
            features = network(images)
            logits = head(features)
            loss = F.cross_entropy(logits, targets)
            if penalty is not None:
                loss = loss + penalty(features, logits, targets, domains)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    steps = {"ERM": step_with(None), **{name: step_with(penalty) for name, penalty in PENALTIES.items()}}
    seconds = median_seconds(steps, rounds=9)
    return [
        Comparison(f"ResNet-18 step with {name}", "ERM step", seconds[name], seconds["ERM"], "cost", 1.03)
        for name in PENALTIES
    ]
