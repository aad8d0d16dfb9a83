"""Every algorithm learns: domains that differ a little, classes that differ a lot, a target never seen."""

import copy

import pytest
import torch
from torch import Tensor, nn

from hessalign.algorithms import DomainBatch, algorithm_names, get_algorithm

CLASSES, DOMAINS, SAMPLES, STEPS = 3, 3, 16, 150
FASTER = {
    "irm": {"anneal_steps": 50},
    "vrex": {"anneal_steps": 50},
    "fishr": {"anneal_steps": 50},
    "dann": {"generator_lr": 0.01, "discriminator_lr": 0.01},
    "cdann": {"generator_lr": 0.01, "discriminator_lr": 0.01},
    "arm": {"batch_size": SAMPLES},
}


def images(domain: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One-channel images of 4 × 4 pixels: a bright row for each class, a brightness for each domain."""
    targets = torch.randint(0, CLASSES, (samples,), generator=generator)
    pixels = 0.3 * torch.randn(samples, 1, 4, 4, generator=generator) + 0.2 * domain
    pixels[torch.arange(samples), 0, targets] += 2
    return pixels, targets


def draw_batch(generator: torch.Generator) -> DomainBatch:
    inputs, targets = zip(*(images(domain, SAMPLES, generator) for domain in range(DOMAINS)), strict=True)
    ids = torch.arange(DOMAINS).repeat_interleave(SAMPLES)
    return DomainBatch(torch.cat(inputs), torch.cat(targets), ids, DOMAINS)


@pytest.mark.parametrize("name", algorithm_names())
def test_learns_and_carries_over_to_an_unseen_domain(name: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    algorithm_class = get_algorithm(name)
    channels = 1 + algorithm_class.extra_input_channels
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, 8), nn.ReLU())
    hparams = algorithm_class.hparams_class.with_defaults("large", {"lr": 0.01, **FASTER.get(name, {})})
    algorithm = algorithm_class(backbone, 8, CLASSES, DOMAINS, hparams)
    algorithm(draw_batch(generator).inputs)
    optimizers = algorithm.make_optimizers()
    for _ in range(STEPS):
        metrics = algorithm.update(draw_batch(generator), optimizers)
        assert all(value.isfinite() and not value.requires_grad for value in metrics.values())
    assert algorithm.steps_done == STEPS
    algorithm.eval()
    inputs, targets = images(DOMAINS, 512, generator)
    accuracy = (algorithm(inputs).argmax(1) == targets).float().mean()
    assert accuracy >= 0.95


@pytest.mark.parametrize("name", algorithm_names())
def test_state_is_whole(name: str) -> None:
    """A fresh algorithm with the state of a trained one goes on exactly like it."""
    algorithm_class = get_algorithm(name)
    channels = 1 + algorithm_class.extra_input_channels

    def fresh():
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, 8), nn.ReLU())
        hparams = algorithm_class.hparams_class.with_defaults("large", FASTER.get(name, {}))
        algorithm = algorithm_class(backbone, 8, CLASSES, DOMAINS, hparams)
        algorithm(draw_batch(torch.Generator().manual_seed(0)).inputs)
        return algorithm, algorithm.make_optimizers()

    generator = torch.Generator().manual_seed(0)
    first, first_optimizers = fresh()
    for _ in range(3):
        first.update(draw_batch(generator), first_optimizers)
    second, second_optimizers = fresh()
    second.load_state_dict(first.state_dict())
    for key, optimizer in second_optimizers.items():
        optimizer.load_state_dict(copy.deepcopy(first_optimizers[key].state_dict()))
    batch = draw_batch(generator)
    for algorithm, optimizers in ((first, first_optimizers), (second, second_optimizers)):
        torch.manual_seed(1)
        algorithm.update(batch, optimizers)
    for (key, mine), theirs in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), key
