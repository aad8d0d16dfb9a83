"""DomainBed's seeds and its split of a domain, bit for bit (Gulrajani and Lopez-Paz, ICLR 2021)."""

import hashlib

import numpy as np


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
    for name, value in (("samples", samples), ("trial_seed", trial_seed), ("domain", domain)):
        if value < 0:
            raise ValueError(f"{name}: must be a whole number of at least 0, got {value}")
    if not 0 <= holdout_fraction < 1:
        raise ValueError(f"holdout_fraction: must be at least 0 and below 1, got {holdout_fraction}")
    order = list(range(samples))
    np.random.RandomState(seed_hash(int(trial_seed), int(domain))).shuffle(order)
    held_out = held_out_count(samples, holdout_fraction)
    return order[held_out:], order[:held_out]


def held_out_count(samples: int, holdout_fraction: float) -> int:
    """How many of a domain's samples are held out, as [split_indices][] does it."""
    return int(samples * holdout_fraction)
