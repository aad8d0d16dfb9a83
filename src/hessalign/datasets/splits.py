"""DomainBed's seeds and its split of a domain, bit for bit (Gulrajani and Lopez-Paz, ICLR 2021)."""

import hashlib

import numpy as np

from hessalign.checks import require_number, require_whole


def seed_hash(*args: object) -> int:
    """A seed from anything that prints the same everywhere.

    The MD5 of the printed tuple, modulo 2³¹. Numbers must be Python's own: NumPy's print differently.

    >>> seed_hash(0, 1)
    1514274641
    """
    digest = hashlib.md5(str(args).encode("utf-8"), usedforsecurity=False).hexdigest()
    return int(digest, 16) % 2**31


def split_indices(
    samples: int, trial_seed: int, domain: int, holdout_fraction: float = 0.2
) -> tuple[list[int], list[int]]:
    """Split a domain's samples in two, at random and the same for every algorithm and hyper-parameter.

    Args:
        samples: Number of samples of the domain.
        trial_seed: Seed of the trial, at least 0.
        domain: Index of the domain, at least 0.
        holdout_fraction: Part of the samples that is held out, rounded down; at least 0 and below 1.

    Returns:
        Indices of the larger part (``in``: a source domain trains on it) and of the held-out part (``out``: a
        source domain validates on it).

    Raises:
        ValueError: If an argument is out of range.
    """
    samples = require_whole("samples", samples, least=0)
    trial_seed = require_whole("trial_seed", trial_seed, least=0)
    domain = require_whole("domain", domain, least=0)
    holdout_fraction = require_number("holdout_fraction", holdout_fraction, least=0, below=1)
    order = list(range(samples))
    np.random.RandomState(seed_hash(trial_seed, domain)).shuffle(order)
    held_out = held_out_count(samples, holdout_fraction)
    return order[held_out:], order[:held_out]


def held_out_count(samples: int, holdout_fraction: float) -> int:
    """How many of a domain's samples are held out, as [split_indices][] does it."""
    return int(samples * holdout_fraction)
