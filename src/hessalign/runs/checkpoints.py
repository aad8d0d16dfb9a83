"""Checkpoints on disk, which survive being killed at any moment.

A checkpoint is a folder ``step-000300`` with

* ``model.safetensors``: parameters and buffers of the network that predicts,
* ``trained.safetensors``: of the network that is trained, where a mean over training predicts,
* ``average.safetensors``: what such a mean remembers,
* ``optimizers.pt``: the optimisers' states, read back with ``weights_only=True``,
* ``random.safetensors``: states of the random generators,
* ``sums.safetensors``: after a last step between two regular evaluations, the sums of the scalars since the
  last regular one, for a run that is lengthened,
* ``state.json``: the step and what the run was,
* ``seal.json``: digests of all these, and of the run's records so far (absent before there were seals).

It is written under another name first and renamed when all of it is on disk; the file ``latest`` then
names it. Older ones are removed last.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hessalign.files import flush, write_atomically
from hessalign.runs.layout import LATEST, what_lies_there
from hessalign.runs.seals import SEAL, read_seal, seal, sha256

WEIGHTS, OPTIMIZERS, RANDOM, STATE = "model.safetensors", "optimizers.pt", "random.safetensors", "state.json"
SUMS = "sums.safetensors"
TRAINED, AVERAGE = "trained.safetensors", "average.safetensors"


def write_checkpoint(
    folder: Path, step: int, files: Mapping[str, bytes], metadata: Mapping[str, Any]
) -> Path:
    """Write a checkpoint and make it the latest one.

    Args:
        folder: Of the run's checkpoints, in that of the run; created where missing.
        step: Number of updates done.
        files: Contents by name.
        metadata: What the run was, as JSON.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: If it cannot be written; the latest checkpoint then stays what it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, draft = folder / f"step-{step:06d}", folder / f".step-{step:06d}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    contents = {**files, STATE: json.dumps({**metadata, "step": step}, indent=1).encode()}
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


def checkpoint_metadata(checkpoint: Path) -> dict[str, Any]:
    """What is known of the run: its step and what was given to ``write_checkpoint``.

    Returns:
        The fields of ``state.json``.

    Raises:
        ValueError: If the folder holds no checkpoint.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, checkpoint_metadata, latest_checkpoint, train
        >>> y, site = np.arange(24) % 2, np.arange(24) // 8
        >>> X = (np.random.default_rng(0).normal(size=(24, 3)) + 3 * y[:, None]).astype("float32")
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("features", {"batch_size": 4})
        >>> spec = RunSpec(
        ...     dataset="features_file",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="identity"),
        ...     hparams=hparams.model_dump(),
        ...     steps=4,
        ...     evaluate_every=2,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder)
        ...     written = save_features(place / "sites.safetensors", X, y, site)
        ...     dataset = find_data(f"{folder}/sites.safetensors").open(seed=0)
        ...     record = train(spec, dataset, place / "run", Machine("cpu"))
        ...     found = checkpoint_metadata(latest_checkpoint(place / "run" / "checkpoints"))
        >>> found["step"], found["run"]["algorithm"]
        (4, 'erm')
    """
    try:
        metadata = json.loads((checkpoint / STATE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"checkpoint: {what_lies_there(checkpoint)}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"checkpoint: {checkpoint} holds no readable checkpoint ({STATE}: {reason})"
        ) from error
    step = metadata.get("step") if isinstance(metadata, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 1:
        raise ValueError(
            f"checkpoint: {checkpoint / STATE} must tell a step, a whole number above 0, got {step!r:.80}"
        )
    return dict(metadata)
