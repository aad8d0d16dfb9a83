"""Checkpoints that survive being killed at any moment, and are read without executing anything in them.

A checkpoint is a folder ``step-000300`` with

* ``model.safetensors``: parameters and buffers,
* ``optimizers.pt``: the optimisers' states, read back with ``weights_only=True``,
* ``random.safetensors``: states of the random generators,
* ``state.json``: the step and what the run was.

It is written under another name first and renamed when all of it is on disk; the file ``latest`` then
names it. Older ones are removed last.
"""

import json
import shutil
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from hessalign.files import flush, write_atomically

LATEST = "latest"


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizers: Mapping[str, Optimizer], about: Mapping[str, Any]
) -> Path:
    """Write a checkpoint and make it the latest one.

    Args:
        folder: Of the run's checkpoints; created where missing.
        step: Number of updates done.
        model: Its ``state_dict`` is kept.
        optimizers: By name.
        about: What the run was, as JSON.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: If it cannot be written; the latest checkpoint then stays what it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, draft = folder / f"step-{step:06d}", folder / f".step-{step:06d}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        # Made in memory first: on a full disk torch's own writer does not say what is wrong.
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        (draft / "model.safetensors").write_bytes(save(weights))
        states = BytesIO()
        torch.save({name: optimizer.state_dict() for name, optimizer in optimizers.items()}, states)
        (draft / "optimizers.pt").write_bytes(states.getbuffer())
        (draft / "random.safetensors").write_bytes(save(_random_states()))
        (draft / "state.json").write_text(json.dumps({**about, "step": step}, indent=1), encoding="utf-8")
        for path in draft.iterdir():
            flush(path)
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        write_atomically(folder / LATEST, final.name)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError):
            raise OSError(f"{final}: the checkpoint cannot be written ({error.strerror})") from error
        raise
    for other in folder.glob("step-*"):
        if other != final:
            shutil.rmtree(other, ignore_errors=True)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """The latest whole checkpoint, or None where there is none."""
    pointer = folder / LATEST
    return folder / pointer.read_text(encoding="utf-8") if pointer.exists() else None


def checkpoint_about(checkpoint: Path) -> dict[str, Any]:
    """What is known of the run: its step and what was given to [save_checkpoint][].

    Raises:
        ValueError: If the folder holds no checkpoint.
    """
    try:
        about: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"checkpoint: {checkpoint} holds no readable checkpoint ({error})") from error
    return about


def load_model(checkpoint: Path, model: nn.Module) -> None:
    """Load parameters and buffers.

    Raises:
        ValueError: If they belong to another architecture or cannot be read.
    """
    path = checkpoint / "model.safetensors"
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"checkpoint: {path} cannot be read ({error})") from error
    except RuntimeError as error:
        raise ValueError(
            f"checkpoint: {path} belongs to another architecture ({_one_line(error)})"
        ) from error


def resume(checkpoint: Path, model: nn.Module, optimizers: Mapping[str, Optimizer]) -> int:
    """Bring model, optimisers and random generators to where the checkpoint left them.

    Returns:
        Number of updates done.

    Raises:
        ValueError: If the checkpoint belongs to another architecture or cannot be read.
    """
    about = checkpoint_about(checkpoint)
    load_model(checkpoint, model)
    try:
        states = torch.load(checkpoint / "optimizers.pt", weights_only=True)
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(states[name])
        _set_random_states(load_file(checkpoint / "random.safetensors"))
    except Exception as error:  # the libraries do not share one for a damaged or foreign file
        raise ValueError(
            f"checkpoint: {checkpoint} does not go with this run or is damaged ({_one_line(error)})"
        ) from error
    return int(about["step"])


def _random_states() -> dict[str, Tensor]:
    """Of the processor and of the process's own GPU, which in another process may be another one."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
