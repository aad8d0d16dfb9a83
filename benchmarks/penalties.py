"""Penalties on a batch of PACS size: 3 domains of 32 samples, 7 classes, 2,048 features.

The baselines differentiate twice (HGP) or sample Hutchinson's probes (diagonal) the way the published
DomainBed code does: domain by domain, centre detached, averaged over domains. All times are forward plus
backward to features and head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hessalign as ha
from benchmarks.timing import Comparison, median_seconds

DOMAINS, SAMPLES, CLASSES, WIDTH = 3, 32, 7, 2048
PROBES = 300


def head_gradient(loss: Tensor, head: nn.Linear) -> Tensor:
    parts = torch.autograd.grad(loss, list(head.parameters()), create_graph=True)
    return torch.cat([part.flatten() for part in parts])


def head_product(gradient: Tensor, vector: Tensor, head: nn.Linear) -> Tensor:
    parts = torch.autograd.grad(gradient @ vector, list(head.parameters()), create_graph=True)
    return torch.cat([part.flatten() for part in parts])


def by_double_backward(
    statistic: Callable[[Tensor, Tensor, nn.Linear], Tensor],
    features: Tensor,
    targets: Tensor,
    head: nn.Linear,
) -> Tensor:
    """The penalty with a statistic of the Hessian that is found by differentiating twice."""
    losses = torch.stack(
        [
            F.cross_entropy(head(domain_features), domain_targets)
            for domain_features, domain_targets in zip(
                features.split(SAMPLES), targets.split(SAMPLES), strict=True
            )
        ]
    )
    mean_gradient = head_gradient(losses.mean(), head)
    centre = statistic(losses.mean(), mean_gradient, head).detach()
    penalty = features.new_zeros(())
    for loss in losses:
        gradient = head_gradient(loss, head)
        penalty = penalty + (statistic(loss, gradient, head) - centre).square().sum()
        penalty = penalty + (gradient - mean_gradient.detach()).square().sum()
    return penalty / DOMAINS


def through_the_norm(_loss: Tensor, gradient: Tensor, head: nn.Linear) -> Tensor:
    """``H G`` as the gradient of half the squared gradient norm."""
    parts = torch.autograd.grad(gradient.square().sum() / 2, list(head.parameters()), create_graph=True)
    return torch.cat([part.flatten() for part in parts])


def by_probes(_loss: Tensor, gradient: Tensor, head: nn.Linear) -> Tensor:
    """Hutchinson's estimate of the diagonal, one double backward for each probe."""
    estimate = torch.zeros_like(gradient)
    for _ in range(PROBES):
        probe = torch.randint(0, 2, gradient.shape).to(gradient) * 2 - 1
        estimate = estimate + probe * head_product(gradient, probe, head)
    return estimate / PROBES


def run() -> list[Comparison]:
    """Time all penalties."""
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, CLASSES)
    features = torch.randn(DOMAINS * SAMPLES, WIDTH, requires_grad=True)
    targets = torch.randint(0, CLASSES, (DOMAINS * SAMPLES,))
    domains = torch.arange(DOMAINS).repeat_interleave(SAMPLES)

    def ours(method: str, **settings) -> Callable[[], None]:
        penalty = ha.HessianAlignment(method, 1.0, 1.0, **settings)
        return lambda: penalty(features, head(features), targets, domains).backward()

    def theirs(statistic: Callable[[Tensor, Tensor, nn.Linear], Tensor]) -> Callable[[], None]:
        return lambda: by_double_backward(statistic, features, targets, head).backward()

    quick = median_seconds(
        {
            "diagonal": ours("diagonal"),
            "frobenius": ours("frobenius"),
            "expected": ours("hutchinson", probes=PROBES, expected=True),
        },
        rounds=200,
        warm_up=20,
    )
    hgp = median_seconds({"ours": ours("hgp"), "theirs": theirs(through_the_norm)}, rounds=200, warm_up=20)
    slow = median_seconds(
        {"ours": ours("hutchinson", probes=PROBES), "theirs": theirs(by_probes)}, rounds=5, warm_up=1
    )
    double = "double backward through the gradient norm"
    sampled = f"{PROBES}-probe double backward"
    return [
        Comparison("exact diagonal", sampled, quick["diagonal"], slow["theirs"], "faster", 300),
        Comparison("expected Hutchinson", sampled, quick["expected"], slow["theirs"], "faster"),
        Comparison("sampled Hutchinson", sampled, slow["ours"], slow["theirs"], "faster"),
        Comparison("whole Hessian", sampled, quick["frobenius"], slow["theirs"], "faster"),
        Comparison("whole Hessian", "exact diagonal", quick["frobenius"], quick["diagonal"], "cost", 1.0),
        Comparison("HGP", double, hgp["ours"], hgp["theirs"], "faster", 2.5),
    ]
