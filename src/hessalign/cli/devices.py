"""The device that a command is told to use."""

import torch


def usable_device(name: str) -> torch.device:
    """The device with a name.

    Raises:
        ValueError: If nothing can run there.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"{name!r} cannot be used here ({str(error).splitlines()[0]})") from error
    return device
