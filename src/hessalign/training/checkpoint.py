"""A run's folder: whose it is, the checkpoint that the run goes on from, and its last record.

Checkpoints are read without executing anything in them; how they lie on disk: ``hessalign.runs.checkpoints``.
"""

import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from hessalign.algorithms import Algorithm
from hessalign.exceptions import DivergedError, HessalignWarning
from hessalign.files import write_atomically
from hessalign.markup import counted
from hessalign.runs.checkpoints import (
    AVERAGE,
    OPTIMIZERS,
    RANDOM,
    SUMS,
    TRAINED,
    WEIGHTS,
    check_whole,
    checkpoint_metadata,
    write_checkpoint,
)
from hessalign.runs.layout import (
    CHECKPOINTS,
    METRICS,
    SPEC,
    is_finished,
    is_started,
    latest_checkpoint,
    remove_predictions,
)
from hessalign.runs.records import divergence, evaluated_steps, keep_records_before, read_records
from hessalign.runs.seals import check_spec, company_of, reopen
from hessalign.training.averaging import Averaging
from hessalign.training.spec import RunSpec

__all__ = [
    "check_unasked",
    "checkpoint_metadata",
    "claim",
    "claim_or_lengthen",
    "go_on",
    "is_finished",
    "is_started",
    "last_record",
    "latest_checkpoint",
    "load_model",
    "read_records",
    "resume",
    "save_checkpoint",
]


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizers: Mapping[str, Optimizer],
    metadata: Mapping[str, Any],
    sums: Mapping[str, Tensor] | None = None,
    predicting: Mapping[str, Tensor] | None = None,
    average: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint and make it the latest one.

    Args:
        folder: Of the run's checkpoints, in that of the run; created where missing.
        step: Number of updates done.
        model: Its ``state_dict`` is kept.
        optimizers: By name.
        metadata: What the run was, as JSON.
        sums: Of the scalars since the last regular evaluation, where this is none.
        predicting: ``state_dict`` of the network that predicts, where that is not the trained one.
        average: What the run's average remembers, where it takes one.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: If it cannot be written; the latest checkpoint then stays what it was.
    """
    # Made in memory first: on a full disk the libraries' own writers do not say what is wrong.
    states = BytesIO()
    torch.save({name: optimizer.state_dict() for name, optimizer in optimizers.items()}, states)
    files: dict[str, bytes] = {
        WEIGHTS: _weights(model.state_dict() if predicting is None else predicting),
        OPTIMIZERS: states.getvalue(),
        RANDOM: save(_random_states()),
    }
    if sums:
        files[SUMS] = save(dict(sums))
    if predicting is not None:
        files[TRAINED] = _weights(model.state_dict())
    if average is not None:
        files[AVERAGE] = save(dict(average))
    return write_checkpoint(folder, step, files, metadata)


def _weights(state: Mapping[str, Tensor]) -> bytes:
    return save({name: value.contiguous() for name, value in state.items()})


def load_model(checkpoint: Path, model: nn.Module, name: str = WEIGHTS) -> None:
    """Load parameters and buffers.

    Args:
        checkpoint: Its folder.
        model: What they are loaded into.
        name: Of the file; the network that predicts by default.

    Raises:
        ValueError: If they belong to another architecture or cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, build_algorithm, train
        >>> from hessalign.training import latest_checkpoint, load_model
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
        ...     algorithm = build_algorithm(spec, (3,), classes=2, source_domains=2)
        ...     load_model(latest_checkpoint(place / "run" / "checkpoints"), algorithm)
        >>> all(value.isfinite().all() for value in algorithm.state_dict().values())
        True
    """
    path = checkpoint / name
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
    metadata = checkpoint_metadata(checkpoint)
    load_model(checkpoint, model, TRAINED if (checkpoint / TRAINED).exists() else WEIGHTS)
    try:
        states = torch.load(checkpoint / OPTIMIZERS, weights_only=True, map_location="cpu")
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(states[name])
        _set_random_states(load_file(checkpoint / RANDOM))
    except Exception as error:  # the libraries do not share one for a damaged or foreign file
        raise ValueError(
            f"checkpoint: {checkpoint} does not go with this run or is damaged ({_one_line(error)})"
        ) from error
    return int(metadata["step"])


def claim(folder: Path, spec: RunSpec) -> None:
    """Make the folder this run's own.

    Raises:
        ValueError: If it holds another run.
    """
    path = folder / SPEC
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, spec.model_dump_json(indent=1))
        return
    held = _held(folder)
    if held is not None and held.steps != spec.steps:
        if spec.extends(held):
            raise ValueError(
                f"steps: the run in {folder} has {held.steps} steps, not {spec.steps}; train lengthens it "
                "with --resume"
            )
        if held.extends(spec):
            raise ValueError(
                f"steps: the run in {folder} has {held.steps} steps; it can be lengthened, but not shortened "
                f"to {spec.steps}"
            )
    if held is None or held.identity() != spec.identity():
        raise ValueError(f"out: {folder} holds another run (see its {SPEC}); choose a folder of its own")
    if is_finished(folder):
        check_spec(folder)


def claim_or_lengthen(folder: Path, spec: RunSpec) -> None:
    """Make the folder this run's own; one that holds the same run with fewer steps is to go on.

    No algorithm knows how many steps there will be, so the first steps of the longer run are those of the
    shorter one.

    Raises:
        ValueError: If it holds another run, or one that cannot go on.
        DivergedError: If it holds a run that diverged.
    """
    held = _held(folder) if is_started(folder) else None
    if held is None or not spec.extends(held) or held.steps == spec.steps:
        claim(folder, spec)
        return
    checkpoint = latest_checkpoint(folder / CHECKPOINTS)
    if is_finished(folder):
        check_spec(folder)
        last_record(folder, held)
        if checkpoint is None:
            raise ValueError(
                f"steps: the run in {folder} kept no checkpoint to go on from; do the longer run in a folder "
                "of its own"
            )
        if (company := company_of(folder)) > 1:
            warnings.warn(
                f"steps: the run in {folder} was trained together with {counted(company - 1, 'other')} and "
                "goes on alone; sums are taken in another order, so last bits may differ from those of one "
                "long run",
                HessalignWarning,
                stacklevel=3,
            )
    if checkpoint is not None:
        check_whole(checkpoint)
        done = checkpoint_metadata(checkpoint)["step"]
        kept = [step for step in evaluated_steps(spec.steps, spec.evaluate_every) if step < done]
        reopen(folder, checkpoint, len(kept))
    write_atomically(folder / SPEC, spec.model_dump_json(indent=1))


def check_unasked(folder: Path, spec: RunSpec) -> None:
    """Refuse to go on with the run in a folder, as somebody does who has not asked for that.

    Raises:
        ValueError: If the run is not finished, or has fewer steps.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, check_unasked, train
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
        ...     check_unasked(place / "run", spec)
        ...     try:
        ...         check_unasked(place / "run", spec.model_copy(update={"steps": 8}))
        ...     except ValueError:
        ...         print("refused")
        refused
    """
    if not is_started(folder):
        return
    if not is_finished(folder):
        raise ValueError(f"out: {folder} holds an unfinished run; add --resume to go on with it")
    claim(folder, spec)


def go_on(
    folder: Path, spec: RunSpec, algorithm: Algorithm, optimizers: Mapping[str, Optimizer], first: bool
) -> tuple[int, dict[str, Tensor]]:
    """Go back to the latest checkpoint, and leave the records until there.

    Args:
        folder: Of the run.
        spec: Of the run.
        algorithm: Brought to the checkpoint's state.
        optimizers: Likewise.
        first: Whether this process is the one that writes.

    Returns:
        Number of updates done; and for a run that is lengthened from a last step between two regular
        evaluations the sums of the scalars since the former.

    Raises:
        ValueError: If the checkpoint or the records are not those of the run at one of its evaluations.
    """
    checkpoint = latest_checkpoint(folder / CHECKPOINTS)
    if checkpoint is None:
        if first:
            (folder / METRICS).unlink(missing_ok=True)
            remove_predictions(folder)
        return 0, {}
    done = resume(checkpoint, algorithm, optimizers)
    written = _run_of(checkpoint)
    if written is None or not spec.extends(written):
        raise ValueError(
            f"checkpoint: {checkpoint} is of another run; remove {folder / CHECKPOINTS} to begin anew"
        )
    evaluated = [step for step in evaluated_steps(spec.steps, spec.evaluate_every) if step < done]
    between = done == written.steps < spec.steps and evaluated[-1] != done - 1
    known = between or evaluated[-1] == done - 1
    if done > written.steps or not known or int(algorithm.steps_done) != done:
        raise ValueError(
            f"checkpoint: {checkpoint} says that {done} steps are done, which cannot be; remove "
            f"{folder / CHECKPOINTS} to begin anew"
        )
    keep_before = done - 1 if between else done  # the evaluation of the shorter run's last step is none here
    found = [record["step"] for record in read_records(folder) if record["step"] < keep_before]
    if found != evaluated:
        missing = next((step for step in evaluated if step not in found), None)
        what = "repeats evaluations" if missing is None else f"lacks the evaluation of step {missing}"
        raise ValueError(
            f"{folder / METRICS}: {what}, though the checkpoint is of {done} steps; remove "
            f"{folder / CHECKPOINTS} to begin anew"
        )
    if first:
        keep_records_before(folder, keep_before)
    return done, _sums(checkpoint) if between else {}


def last_record(folder: Path, spec: RunSpec) -> dict[str, Any]:
    """The record of a finished run's last evaluation.

    Returns:
        The record.

    Raises:
        ValueError: If the records are damaged.
        DivergedError: If the run diverged, as its record says.
    """
    records = read_records(folder)
    problem = divergence(records)
    if problem is not None:
        raise DivergedError(
            f"the run in {folder} diverged: {problem} at step {records[-1]['step']}; choose a smaller "
            "learning rate or smaller weights of the penalty"
        )
    if not records or records[-1]["step"] != spec.steps - 1:
        raise ValueError(
            f"{folder / METRICS}: the run is marked as done, but its last evaluation, of step "
            f"{spec.steps - 1}, is missing; remove {folder} to do the run again"
        )
    return records[-1]


def resume_average(folder: Path, averaging: Averaging, like: Mapping[str, Tensor]) -> None:
    """Bring a run's average to where the latest checkpoint left it; to its beginning where there is none.

    Args:
        folder: Of the run.
        averaging: Of the run.
        like: The network's parameters by name.

    Raises:
        ValueError: If the checkpoint holds none, or not that of the run.
    """
    checkpoint = latest_checkpoint(folder / CHECKPOINTS)
    if checkpoint is None:
        return
    try:
        averaging.load(load_file(checkpoint / AVERAGE), like)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"checkpoint: {checkpoint / AVERAGE} does not go with this run or is damaged ({_one_line(error)})"
        ) from error


def _held(folder: Path) -> RunSpec | None:
    """The spec in a folder; None where it is of another program or version."""
    try:
        return RunSpec.model_validate_json((folder / SPEC).read_bytes())
    except ValidationError:
        return None


def _run_of(checkpoint: Path) -> RunSpec | None:
    try:
        return RunSpec.model_validate(checkpoint_metadata(checkpoint).get("run"))
    except ValidationError:
        return None


def _sums(checkpoint: Path) -> dict[str, Tensor]:
    path = checkpoint / SUMS
    if path.exists():
        return load_file(path)
    warnings.warn(
        f"steps: {checkpoint} is from before runs could be lengthened: the means in the next record are "
        "those since its last step only; weights and accuracies are not concerned",
        HessalignWarning,
        stacklevel=2,
    )
    return {}


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
