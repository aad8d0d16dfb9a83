"""The device that a command is told to use; apart from the options, for this loads PyTorch."""

import os
from collections.abc import Sequence

import torch


def usable_device(name: str) -> torch.device:
    """The device with a name.

    Args:
        name: As PyTorch has it, ``"cuda:1"``; ``"gpu"`` for one of any kind, ``"auto"`` for what there is.

    Returns:
        The device, of which something was just asked.

    Raises:
        ValueError: If nothing can run there.
    """
    best = _best() if name in ("auto", "gpu") else name
    if (name, best) == ("gpu", "cpu"):
        raise ValueError("device: 'gpu' cannot be used here (there is none)")
    try:
        device = torch.device(best)
        torch.zeros(1, device=device).item()  # a device without memory, meta, has no value
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {name!r} cannot be used here ({reason})") from error
    return device


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def visible_gpus(device: str) -> Sequence[str]:
    """The GPUs to deal to runs, as CUDA_VISIBLE_DEVICES names them; none where runs are to use no GPU.

    Args:
        device: As a command was told: ``"auto"``, ``"gpu"`` and ``"cuda"`` for all, ``"cuda:1"`` for one.

    Returns:
        Their names, in the order in which they are dealt.

    Raises:
        ValueError: If there is no such GPU.
    """
    kind, _, index = device.partition(":")
    if kind not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    if not index:
        return visible
    if not index.isdecimal() or int(index) >= len(visible):
        raise ValueError(f"device: {device!r} is not here; allowed are cuda:0 to cuda:{len(visible) - 1}")
    return visible[int(index) : int(index) + 1]
