"""Names in the folders of runs and sweeps, and the lock of whoever writes there."""

import json
import re
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hessalign.files import remove_drafts

SPEC, METRICS, CHECKPOINTS, DONE, ERROR = "spec.json", "metrics.jsonl", "checkpoints", "done", "error.json"
PREDICTIONS = "predictions"
"""In a run's folder: a file for each evaluation, where they are kept."""
RUNS, SWEEP = "runs", "sweep.json"
"""In a sweep's folder: the folders of its runs, and what was asked for."""
DATA_NAMES = "data_names"
"""Field of what was asked for: what data of one's own are called, by fingerprint."""
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "torch-export": ".pt2"}
"""Of exported files, by format."""
LATEST, LOCK = "latest", ".lock"
CHECKPOINT_NAME = re.compile(r"step-\d{6,}")

PATIENCE = 8.0
"""Seconds to wait for a lock. Loading processes notice after five that the run that started them was killed,
and hold its lock until then."""

_held_here: set[tuple[int, Path]] = set()


class HeldError(OSError):
    """Another process writes to the folder."""


@contextmanager
def hold(
    folder: Path, patience: float | None = None, name: str = LOCK, of: Path | None = None
) -> Iterator[None]:
    """Be the only process that writes to a folder, which is created where it is missing.

    The lock is the operating system's: it ends with the process, however that ends. Whoever holds it may
    take it once more.

    Args:
        folder: Of a run, say.
        patience: Seconds to wait for whoever has it; PATIENCE by default.
        name: Of the lock's file in the folder; it stays there, empty.
        of: What is written there, for the error; None (default) for the folder itself.

    Raises:
        HeldError: If another process has it.
        OSError: If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    key = threading.get_ident(), path.resolve()
    if key in _held_here:
        yield
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE if patience is None else patience, poll_interval=0.1)
    except Timeout:
        raise HeldError(
            f"{of or folder} is being written by another process; wait for it, or choose another "
            f"{'name' if of else 'folder'}"
        ) from None
    _held_here.add(key)
    try:
        yield
    finally:
        _held_here.discard(key)
        lock.release()


def is_held(folder: Path, name: str = LOCK) -> bool:
    """Whether another process writes to the folder at this moment."""
    if not (folder / name).exists():
        return False
    try:
        with hold(folder, 0, name):
            return False
    except HeldError:
        return True


def wait_while_held(folder: Path, name: str = LOCK) -> None:
    """Return when no other process writes to the folder."""
    while is_held(folder, name):
        time.sleep(1)


def is_started(folder: Path) -> bool:
    """Whether a run was begun in the folder.

    Returns:
        True from the moment its spec is there.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from hessalign.training import is_started
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     is_started(Path(folder))
        False
    """
    return (folder / SPEC).exists()


def of_sweep(folder: Path) -> str:
    """The end of a sentence on a folder that holds no run: where its runs lie, if it is a sweep's."""
    if not (folder / SWEEP).is_file():
        return ""
    return f"; it is the folder of a sweep, and the folders of its runs lie in {folder / RUNS}"


def data_names_of(out: Path) -> dict[str, str]:
    """What data of one's own are called in a sweep's tables.

    Args:
        out: Folder of the sweep.

    Returns:
        The name of a file or a folder by fingerprint; none where the sweep noted none.
    """
    try:
        names = json.loads((out / SWEEP).read_bytes())[DATA_NAMES]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}  # of a sweep from before they were noted, or of a run that belongs to none
    known = names.items() if isinstance(names, dict) else ()
    return {fingerprint: name for fingerprint, name in known if isinstance(name, str)}


def is_finished(folder: Path) -> bool:
    """Whether the folder's run is done: all of its steps, or those until it diverged.

    Returns:
        True once the mark of a run that is done is there.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from hessalign.training import is_finished
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     is_finished(Path(folder))
        False
    """
    return (folder / DONE).exists()


def what_lies_there(path: Path) -> str:
    """Why a path leads to no checkpoint, in words that tell what to give instead.

    Args:
        path: Of a file or a folder, as it was given for a trained model.

    Returns:
        The end of a sentence.
    """
    if not path.is_dir():
        return _of_no_folder(path)
    if is_started(path):
        again = f"do it again by  hessalign train --spec {path} --out NEW"
        kept = f"kept no checkpoint, as runs of a sweep do without --keep-checkpoints; {again}"
        return f"the run in {path} {kept if is_finished(path) else 'has no checkpoint yet'}"
    is_sweep = (path / SWEEP).exists()
    below = sorted(spec.parent for spec in (path / RUNS if is_sweep else path).glob(f"*/{SPEC}"))
    if not is_sweep and not below:
        return f"{path} holds no run, no checkpoint and no shared model"
    what = "is the folder of a sweep" if is_sweep else "holds runs and is none itself"
    return f"{path} {what}; give one of the runs" + (f", such as {below[0]}" if below else "")


def _of_no_folder(path: Path) -> str:
    if not path.exists():
        return f"there is no file or folder {path}"
    if path.suffix in SUFFIXES.values():
        return (
            f"{path} is a file; an exported file is loaded by its own library; give the run or the shared "
            "model that it was exported from"
        )
    return f"{path} is a file; give the folder of a run, a checkpoint or a shared model"


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """The latest whole checkpoint, or None where there is none.

    Args:
        checkpoints: Folder of a run's checkpoints.

    Returns:
        Its folder.

    Raises:
        ValueError: If the file that names it does not name one that is there.
        OSError: If that file cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, latest_checkpoint, train
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
        ...     checkpoint = latest_checkpoint(place / "run" / "checkpoints")
        >>> checkpoint.name
        'step-000004'
    """
    name = latest_name(checkpoints)
    if name is not None and not (checkpoints / name).is_dir():
        raise ValueError(f"{checkpoints / LATEST}: names {name}, which is not there")
    return None if name is None else checkpoints / name


def latest_name(checkpoints: Path) -> str | None:
    """Name of the latest checkpoint, or None where there is none.

    Args:
        checkpoints: Folder of a run's checkpoints.

    Returns:
        Name of its folder.

    Raises:
        ValueError: If the file that should tell it does not.
        OSError: If that file cannot be read.
    """
    try:
        name = (checkpoints / LATEST).read_bytes().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not CHECKPOINT_NAME.fullmatch(name):
        raise ValueError(f"{checkpoints / LATEST}: must name a checkpoint beside it, got {name[:80]!r}")
    return name


def predictions_path(folder: Path, step: int) -> Path:
    """File of the predictions of a run's evaluation.

    Args:
        folder: Of the run.
        step: Of the evaluation.

    Returns:
        Its path, whether or not it is there.
    """
    return folder / PREDICTIONS / f"step-{step:06d}.parquet"


def remove_predictions(folder: Path, steps: Collection[int] = ()) -> None:
    """Remove predictions of evaluations that a run has no records of.

    Args:
        folder: Of the run.
        steps: Of the evaluations whose predictions stay; none by default.
    """
    kept = {predictions_path(folder, step) for step in steps}
    for path in (folder / PREDICTIONS).glob("step-*.parquet"):
        if path not in kept:
            path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a run's folder: drafts, and checkpoints that are not the latest.

    Only for whoever holds the folder.
    """
    remove_drafts(folder)
    remove_drafts(folder / PREDICTIONS)
    checkpoints = folder / CHECKPOINTS
    if not checkpoints.is_dir():
        return
    remove_drafts(checkpoints)
    latest = latest_checkpoint(checkpoints)
    if latest is None:  # whatever is there may be all that is left of hours of work
        return
    for path in (*checkpoints.glob("step-*"), *checkpoints.glob(".step-*.draft")):
        if path != latest and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
