"""Algorithms of every kind on tiny images, which all of them take."""

import numpy as np
import torch
from torch import Tensor, nn

from hessalign.algorithms import Algorithm, DomainBatch, get_algorithm
from hessalign.benchmark.protocol import seed_hash

CLASSES, DOMAINS, SAMPLES, WIDTH = 3, 3, 16, 8
WIDE = {"adrmx": 64}
"""Its classifiers have a quarter of the width, and two ReLUs alone may both be 0 everywhere."""


def draw_images(domain: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One-channel images of 4 × 4 pixels: a bright row for each class, a brightness for each domain."""
    targets = torch.randint(0, CLASSES, (samples,), generator=generator)
    pixels = 0.3 * torch.randn(samples, 1, 4, 4, generator=generator) + 0.2 * domain
    pixels[torch.arange(samples), 0, targets] += 2
    return pixels, targets


def draw_batch(generator: torch.Generator, domains: int = DOMAINS) -> DomainBatch:
    drawn = [draw_images(domain, SAMPLES, generator) for domain in range(domains)]
    inputs, targets = zip(*drawn, strict=True)
    ids = torch.arange(domains).repeat_interleave(SAMPLES)
    return DomainBatch(torch.cat(inputs), torch.cat(targets), ids, domains)


def make_on_images(name: str, hparams: dict, domains: int = DOMAINS) -> Algorithm:
    """With a backbone of one layer; weights from torch's global generator."""
    algorithm_class = get_algorithm(name)
    channels = 1 + algorithm_class.extra_input_channels
    width = WIDE.get(name, WIDTH)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, width), nn.ReLU())
    chosen = algorithm_class.hparams_class.with_defaults("large", hparams)
    algorithm = algorithm_class(backbone, width, CLASSES, domains, chosen)
    algorithm(torch.zeros(2, 1, 4, 4))  # gives layers that learn their input's size from it their parameters
    return algorithm


WAITS: dict[str, dict] = {
    "eqrm": {"burn_in_steps": 2},
    "ib_irm": {"irm_anneal_steps": 2, "ib_anneal_steps": 3},
    "rdm": {"anneal_steps": 2},
    "trm": {"erm_steps": 2},
    "erm_plus_plus": {"linear_steps": 2, "average_from": 3},
}
"""Of rules that wait for hundreds of steps before they do all they do: waits that a test can sit out."""


def drawn_hparams(name: str, hparams_seed: int) -> dict:
    """A draw of a search, as a sweep makes it; the loader's batch size aside. 0: the defaults."""
    if hparams_seed == 0:
        return {}
    hparams = get_algorithm(name).hparams_class
    names = hparams.reference_names()
    return {
        field: space.search.draw(np.random.RandomState(seed_hash(seed_hash(hparams_seed, 0), names[field])))
        for field, space in hparams.spaces("large").items()
    }
