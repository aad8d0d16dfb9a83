"""Checkpoints that survive being killed at any moment, and are read without executing anything in them.

A checkpoint is a folder ``step-000300`` with

* ``model.safetensors``: parameters and buffers,
* ``optimizers.pt``: the optimisers' states, read back with ``weights_only=True``,
* ``random.safetensors``: states of the random generators,
* ``state.json``: the step and what the run was,
* ``seal.json``: digests of all these, and of the run's records so far (absent before there were seals).

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
from hessalign.runs.layout import LATEST, latest_checkpoint
from hessalign.runs.seals import SEAL, read_seal, seal, sha256

__all__ = ["check_whole", "checkpoint_about", "latest_checkpoint", "load_model", "resume", "save_checkpoint"]

WEIGHTS, OPTIMIZERS, RANDOM, STATE = "model.safetensors", "optimizers.pt", "random.safetensors", "state.json"


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizers: Mapping[str, Optimizer], about: Mapping[str, Any]
) -> Path:
    """Write a checkpoint and make it the latest one.

    Args:
        folder: Of the run's checkpoints, in that of the run; created where missing.
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
    # Made in memory first: on a full disk the libraries' own writers do not say what is wrong.
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    states = BytesIO()
    torch.save({name: optimizer.state_dict() for name, optimizer in optimizers.items()}, states)
    contents: dict[str, bytes | memoryview] = {
        WEIGHTS: save(weights),
        OPTIMIZERS: states.getbuffer(),
        RANDOM: save(_random_states()),
        STATE: json.dumps({**about, "step": step}, indent=1).encode(),
    }
    digests = {name: sha256(content) for name, content in contents.items()}
    contents[SEAL] = seal(folder.parent, digests).model_dump_json(indent=1).encode()
    try:
        for name, content in contents.items():
            (draft / name).write_bytes(content)
            flush(draft / name)
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


def check_whole(checkpoint: Path) -> None:
    """Refuse a checkpoint whose files are not those that were written; one without a seal is taken as it is.

    Raises:
        ValueError: Naming the file.
        OSError: If one cannot be read.
    """
    sealed = read_seal(checkpoint / SEAL)
    for name, digest in ({} if sealed is None else sealed.files).items():
        path = checkpoint / name
        if not path.is_file():
            raise ValueError(f"checkpoint: {path} is missing")
        if sha256(path.read_bytes()) != digest:
            raise ValueError(f"checkpoint: {path} is damaged (its SHA-256 is not the one in {SEAL})")


def checkpoint_about(checkpoint: Path) -> dict[str, Any]:
    """What is known of the run: its step and what was given to [save_checkpoint][].

    Raises:
        ValueError: If the folder holds no checkpoint.
    """
    try:
        about = json.loads((checkpoint / STATE).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"checkpoint: {checkpoint} holds no readable checkpoint ({STATE}: {_one_line(error)})"
        ) from error
    step = about.get("step") if isinstance(about, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 1:
        raise ValueError(
            f"checkpoint: {checkpoint / STATE} must tell a step, a whole number above 0, got {step!r:.80}"
        )
    return dict(about)


def load_model(checkpoint: Path, model: nn.Module) -> None:
    """Load parameters and buffers.

    Raises:
        ValueError: If they belong to another architecture or cannot be read.
    """
    path = checkpoint / WEIGHTS
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"checkpoint: {path} cannot be read ({_one_line(error)})") from error
    except RuntimeError as error:
        raise ValueError(
            f"checkpoint: {path} belongs to another architecture ({_one_line(error)})"
        ) from error


def resume(checkpoint: Path, model: nn.Module, optimizers: Mapping[str, Optimizer]) -> int:
    """Bring model, optimisers and random generators to where the checkpoint left them.

    Whatever device it was written on, the state goes to that of the model.

    Returns:
        Number of updates done.

    Raises:
        ValueError: If the checkpoint is damaged, belongs to another architecture or cannot be read.
    """
    check_whole(checkpoint)
    about = checkpoint_about(checkpoint)
    load_model(checkpoint, model)
    try:
        states = torch.load(checkpoint / OPTIMIZERS, weights_only=True, map_location="cpu")
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(states[name])
        _set_random_states(load_file(checkpoint / RANDOM))
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
