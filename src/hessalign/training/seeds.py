"""Random draws that leave those of others as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draws on a device, by default the processor, begin at a seed; the global generators are put back after.

    On the processor the seed is set without ``torch.manual_seed``, which writes down for each kind of device
    that is not in use from where it was called: milliseconds at each evaluation of each split.
    """
    if device is None or device.type == "cpu":
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_rng_state(state)
    else:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
