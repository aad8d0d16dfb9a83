"""The device that a command is told to use."""

import os
from collections.abc import Sequence

import torch


def usable_device(name: str) -> torch.device:
    """The device with a name.

    Raises:
        ValueError: If nothing can run there.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device without memory, meta, has no value
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"{name!r} cannot be used here ({str(error).splitlines()[0]})") from error
    return device


def visible_gpus(accelerator: str) -> Sequence[str]:
    """The GPUs to deal to workers, as CUDA_VISIBLE_DEVICES names them; none where runs are to use no GPU."""
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
