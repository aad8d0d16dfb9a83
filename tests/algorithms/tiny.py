"""A tiny network in float64 and a batch for it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hessalign.algorithms import Algorithm, DomainBatch, get_algorithm

INPUTS, WIDTH, CLASSES, DOMAINS, SAMPLES = 4, 5, 3, 3, 6


def make_algorithm(name: str, domains: int = DOMAINS, **hparams) -> Algorithm:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.Tanh())
    algorithm = get_algorithm(name)
    settings = algorithm.hparams_class.with_defaults("large", hparams)
    return algorithm(backbone, WIDTH, CLASSES, domains, settings).double()


def make_batch(domains: int = DOMAINS, seed: int = 1) -> DomainBatch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(domains).repeat_interleave(SAMPLES)
    inputs = torch.randn(len(ids), INPUTS, generator=generator, dtype=torch.float64) + 0.3 * ids.unsqueeze(1)
    return DomainBatch(inputs, torch.randint(0, CLASSES, (len(ids),), generator=generator), ids, domains)


def parts(batch: DomainBatch) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets of each domain."""
    return [
        (batch.inputs[batch.domains == e], batch.targets[batch.domains == e])
        for e in range(batch.domain_count)
    ]


def risks(algorithm: Algorithm, batch: DomainBatch) -> list[Tensor]:
    return [F.cross_entropy(algorithm.head(algorithm.backbone(x)), y) for x, y in parts(batch)]


def assert_objective(algorithm: Algorithm, found: Tensor, expected: Tensor) -> None:
    """Equal value, and equal derivatives of backbone and head."""
    parameters = [*algorithm.backbone.parameters(), *algorithm.head.parameters()]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    ours = torch.autograd.grad(found, parameters, retain_graph=True)
    theirs = torch.autograd.grad(expected, parameters, retain_graph=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
