"""Penalties on a batch of PACS size, where nothing else is said: 3 domains of 32, 7 classes, 2,048 features.

The baselines differentiate twice (HGP) or sample Hutchinson's probes (diagonal) the way the published
DomainBed code does: domain by domain, centre detached, averaged over domains. All times are forward plus
backward to features and head.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
    samples: int = SAMPLES,
) -> Tensor:
    """The penalty with a statistic of the Hessian that is found by differentiating twice."""
    losses = torch.stack(
        [
            F.cross_entropy(head(domain_features), domain_targets)
            for domain_features, domain_targets in zip(
                features.split(samples), targets.split(samples), strict=True
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
    return penalty / len(losses)


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


@dataclass(frozen=True)
class Batch:
    """A random batch of ``domains`` domains with ``samples`` samples each, and a head."""

    domains: int
    samples: int
    classes: int
    width: int

    def steps(self) -> dict[str, Callable[[], None]]:
        """Forward and backward of the head with its loss alone, and with each penalty alone."""
        torch.manual_seed(0)
        head = nn.Linear(self.width, self.classes)
        size = self.domains * self.samples
        features = torch.randn(size, self.width, requires_grad=True)
        targets = torch.randint(0, self.classes, (size,))
        ids = torch.arange(self.domains).repeat_interleave(self.samples)

        def ours(penalty: nn.Module) -> Callable[[], None]:
            return lambda: penalty(features, head(features), targets, ids).backward()

        def aligned(method: str, **settings) -> Callable[[], None]:
            return ours(ha.HessianAlignment(method, float(method != "gradient"), 1.0, **settings))

        def theirs(statistic: Callable[[Tensor, Tensor, nn.Linear], Tensor]) -> Callable[[], None]:
            return lambda: by_double_backward(statistic, features, targets, head, self.samples).backward()

        product = {"centre": "mean_product"}
        steps = {
            "erm": lambda: F.cross_entropy(head(features), targets).backward(),
            "gradient": aligned("gradient"),
            "HGP": aligned("hgp"),
            "exact diagonal": aligned("diagonal"),
            "whole Hessian": aligned("frobenius"),
            "expected Hutchinson": aligned("hutchinson", probes=PROBES, expected=True),
            "off-diagonal flatness": ours(ha.HessianFlatness(1.0, "off_diagonal")),
            "sampled Hutchinson": aligned("hutchinson", probes=PROBES),
            "HGP by double backward": theirs(through_the_norm),
            "probes by double backward": theirs(by_probes),
            "HGP around the products": aligned("hgp", **product),
            "unbiased gradient": aligned("gradient", unbiased=True),
            "unbiased exact diagonal": aligned("diagonal", unbiased=True),
            "unbiased whole Hessian": aligned("frobenius", unbiased=True),
        }
        if self.samples >= 4:
            steps["unbiased HGP around the products"] = aligned("hgp", unbiased=True, **product)
        return steps

    def seconds(self, *names: str, rounds: int) -> dict[str, float]:
        """Median times of some of the steps, side by side."""
        steps = self.steps()
        return median_seconds(
            {name: steps[name] for name in names}, rounds=rounds, warm_up=max(1, rounds // 10)
        )


PENALTIES = (
    "gradient",
    "HGP",
    "exact diagonal",
    "whole Hessian",
    "expected Hutchinson",
    "off-diagonal flatness",
)
PLUG_INS = ("gradient", "exact diagonal", "whole Hessian", "HGP around the products")


def run() -> list[Comparison]:
    """Time all penalties."""
    double, sampled = "double backward through the gradient norm", f"{PROBES}-probe double backward"
    erm = "the head's own ERM step"
    pacs = Batch(DOMAINS, SAMPLES, CLASSES, WIDTH)
    unbiased = [f"unbiased {name}" for name in PLUG_INS]
    quick = pacs.seconds("erm", *PENALTIES, "HGP by double backward", *PLUG_INS[3:], *unbiased, rounds=100)
    slow = pacs.seconds("sampled Hutchinson", "probes by double backward", rounds=3)[
        "probes by double backward"
    ]
    slow_ours = pacs.seconds("sampled Hutchinson", rounds=3)["sampled Hutchinson"]
    rows = [
        Comparison("exact diagonal", sampled, quick["exact diagonal"], slow, "faster", 600),
        Comparison("expected Hutchinson", sampled, quick["expected Hutchinson"], slow, "faster"),
        Comparison("sampled Hutchinson", sampled, slow_ours, slow, "faster"),
        Comparison("whole Hessian", sampled, quick["whole Hessian"], slow, "faster"),
        Comparison(
            "whole Hessian", "exact diagonal", quick["whole Hessian"], quick["exact diagonal"], "cost", 1.0
        ),
        Comparison("HGP", double, quick["HGP"], quick["HGP by double backward"], "faster", 6),
    ]
    for batch, target, rounds in ((Batch(3, 32, 65, 2048), 4, 20), (Batch(5, 32, 345, 2048), 9, 5)):
        found = batch.seconds("HGP", "HGP by double backward", rounds=rounds)
        what = f"HGP, {batch.classes} classes, {batch.domains} domains"
        rows.append(Comparison(what, double, found["HGP"], found["HGP by double backward"], "faster", target))
    rows += [
        Comparison(f"{name}, 7 classes", erm, quick[name], quick["erm"], "cost", 6) for name in PENALTIES
    ]
    rows += [
        Comparison(f"unbiased {name}", "plug-in", quick[f"unbiased {name}"], quick[name], "cost", 1.1)
        for name in PLUG_INS
    ]
    many = Batch(323, 2, 182, 1280).seconds("erm", *PENALTIES, rounds=3)
    rows += [
        Comparison(f"{name}, 323 domains of 2, 182 classes", erm, many[name], many["erm"], "cost", 10)
        for name in PENALTIES
    ]
    few, spread = (Batch(count, 600 // count, 182, 1280).seconds(*PENALTIES, rounds=3) for count in (3, 300))
    rows += [
        Comparison(f"{name}, 300 domains", "3 domains, the same batch", spread[name], few[name], "cost", 1.5)
        for name in PENALTIES
    ]
    wide = Batch(3, 32, 10_000, 768).seconds("HGP", "whole Hessian", rounds=3)
    rows.append(
        Comparison("whole Hessian, 10,000 classes", "HGP", wide["whole Hessian"], wide["HGP"], "cost", 1.0)
    )
    return rows
