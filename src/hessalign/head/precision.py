"""Arithmetic that is not rounded to half precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision off for a while; a device that knows none has none to switch off.

    Args:
        device: Of the tensors that are computed with.
    """
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
