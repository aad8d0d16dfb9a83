"""One run: train on the source domains, evaluate on all, and be able to go on after any interruption."""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Subset

from hessalign.algorithms import Algorithm, DomainBatch, get_algorithm
from hessalign.algorithms.base import Metrics
from hessalign.backbones import make_backbone
from hessalign.backbones.base import IDENTITY
from hessalign.datasets.base import DomainDataset, Samples, split_indices
from hessalign.exceptions import DivergedError
from hessalign.files import write_atomically
from hessalign.runs.layout import (
    CHECKPOINTS,
    METRICS,
    SPEC,
    hold,
    is_finished,
    is_started,
    latest_checkpoint,
    remove_leftovers,
)
from hessalign.runs.records import (
    DIVERGED,
    append_record,
    divergence,
    evaluated_steps,
    keep_records_before,
    read_records,
)
from hessalign.runs.seals import check_spec, finish
from hessalign.training.batches import check_sizes, domain_batches
from hessalign.training.checkpoint import checkpoint_about, resume, save_checkpoint
from hessalign.training.doubts import Doubts
from hessalign.training.evaluation import accuracy
from hessalign.training.machine import Machine, launched, make_fabric
from hessalign.training.meter import Meter
from hessalign.training.processes import Processes
from hessalign.training.spec import CheckpointAbout, RunSpec
from hessalign.training.spread import check_spreadable

__all__ = [
    "Progress",
    "build_algorithm",
    "check_algorithm",
    "is_finished",
    "is_started",
    "read_records",
    "train",
]
Part = Subset[tuple[Tensor, int]]


@dataclass(frozen=True)
class Progress:
    """State of a run after a step.

    Attributes:
        step: The step, counted from 0.
        metrics: Detached scalars of this step's update, on the device: reading one waits for the device.
        record: The latest evaluation, or None before the first.
        images_per_second: Since the latest evaluation, loading included, by all processes.
    """

    step: int
    metrics: Metrics
    record: dict[str, Any] | None
    images_per_second: float


@dataclass(frozen=True)
class _Split:
    """One domain's samples for training and for the two accuracies."""

    train: Part
    evaluated: dict[str, Part]


def build_algorithm(
    spec: RunSpec, input_shape: tuple[int, ...], classes: int, source_domains: int
) -> Algorithm:
    """The untrained algorithm of a run.

    Args:
        spec: Names algorithm, hyper-parameters and backbone.
        input_shape: ``(channels, height, width)`` of an input, or ``(d,)`` of a feature vector.
        classes: Number of classes.
        source_domains: Number of domains to train on.

    Raises:
        ValueError: If a name, a hyper-parameter or the backbone is not allowed, or does not go with such
            inputs.
        OSError: If the backbone's weights cannot be read.
    """
    algorithm_class = get_algorithm(spec.algorithm)
    hparams = algorithm_class.hparams_class(**spec.hparams)
    spec.backbone.check_takes(input_shape)
    check_algorithm(spec.algorithm, spec.backbone.name, input_shape)
    backbone = make_backbone(spec.backbone, input_shape[0] + algorithm_class.extra_input_channels)
    algorithm = algorithm_class(backbone, backbone.width, classes, source_domains, hparams)
    algorithm.eval()
    with torch.no_grad():  # gives layers that learn their input's size from it their parameters
        algorithm(torch.zeros(1, *input_shape))
    return algorithm.train()


def train(
    spec: RunSpec,
    dataset: DomainDataset,
    folder: Path,
    machine: Machine,
    report: Callable[[Progress], None] | None = None,
    *,
    keep_checkpoint: bool = True,
) -> dict[str, Any]:
    """Run a spec from its beginning, or from the latest checkpoint in the folder.

    Args:
        spec: What to run.
        dataset: The dataset that the spec names.
        folder: Of this run alone; holds spec, metrics as JSON lines and the latest checkpoint.
        machine: Where to run it. With several devices, the program is run once for each: the other
            processes must come to this call, too, with the same arguments.
        report: Called after every step, in the first process.
        keep_checkpoint: Whether the last checkpoint stays when the run is done.

    Returns:
        The record of the last evaluation.

    Raises:
        ValueError: If spec, dataset, folder and machine do not go together, or what is in the folder is
            damaged.
        OSError: If a sample cannot be read, or the disk not be written, or another process writes to the
            folder.
        DivergedError: If the loss, a weight or a prediction was not finite at an evaluation. The run ends
            there and is done; its last record says so.
    """
    check_targets(spec, dataset)
    torch.manual_seed(spec.seed)
    splits = [_split(spec, dataset, index) for index in range(len(dataset.domains))]
    sources = [index for index in range(len(splits)) if index not in spec.target_domains]
    algorithm = build_algorithm(spec, dataset.input_shape, len(dataset.class_names), len(sources))
    training_sets = [splits[index].train for index in sources]
    _check_start(algorithm, [dataset.domains[index].name for index in sources], training_sets)
    fabric = make_fabric(machine)
    if machine.devices > 1:
        check_spreadable(algorithm)
    with hold(folder) if machine.is_first_process else nullcontext():
        if machine.is_first_process:
            claim(folder, spec)
            remove_leftovers(folder)
        if is_finished(folder):
            return last_record(folder, spec)
        with launched(fabric) as processes:
            _perform(
                spec,
                dataset,
                splits,
                sources,
                algorithm,
                folder,
                machine,
                fabric,
                processes,
                report,
                keep_checkpoint,
            )
            return last_record(folder, spec)


def _perform(
    spec: RunSpec,
    dataset: DomainDataset,
    splits: Sequence[_Split],
    sources: Sequence[int],
    algorithm: Algorithm,
    folder: Path,
    machine: Machine,
    fabric: Fabric,
    processes: Processes,
    report: Callable[[Progress], None] | None,
    keep_checkpoint: bool,
) -> None:
    """All steps that are left, each evaluation brought to disk."""
    per_domain = algorithm.hparams.batch_size
    fabric.strategy.precision.convert_module(algorithm.to(fabric.device))
    optimizers = algorithm.make_optimizers()
    with processes.together():
        first_step = _resume(folder, spec, algorithm, optimizers, processes.is_first)
    processes.spread(algorithm)

    steps = range(first_step, spec.steps)
    shares = domain_batches(
        [splits[index].train for index in sources],
        per_domain,
        spec.seed,
        steps,
        machine.workers,
        processes.rank,
        processes.count,
    )
    about = CheckpointAbout(
        run=spec,
        class_names=dataset.class_names,
        input_shape=dataset.input_shape,
        source_domains=len(sources),
    ).model_dump(mode="json")
    record: dict[str, Any] | None = None
    meter, doubts = Meter(), Doubts(algorithm, speak=processes.is_first)
    for step, share in zip(steps, _in_step(shares, processes), strict=True):
        batch = processes.whole(share.to(fabric.device), per_domain * len(sources))
        batch = batch.with_inputs(fabric.strategy.precision.convert_input(batch.inputs))
        with fabric.autocast():
            metrics = algorithm.update(batch, optimizers)
        meter.add(metrics, len(batch.targets))
        images_per_second = meter.images_per_second()
        if step % spec.evaluate_every == 0 or step == spec.steps - 1:
            means = meter.means()
            processes.agree(algorithm)
            accuracies = _accuracies(algorithm, dataset, splits, fabric.device, machine.workers, processes)
            problem = what_diverged(means, algorithm.state_dict(), accuracies)
            diverged = processes.total(int(problem is not None)) > 0
            if not diverged:
                doubts.of_run(step, means, batch)
            record = make_record(step, means, accuracies, problem)
            with processes.together():
                if processes.is_first:
                    append_record(folder, record)
                    if not diverged and (keep_checkpoint or step < spec.steps - 1):
                        save_checkpoint(folder / CHECKPOINTS, step + 1, algorithm, optimizers, about)
            if diverged:
                break
            meter.restart()
        if report is not None and processes.is_first:
            report(Progress(step, metrics, record, images_per_second))
    if processes.is_first:
        if not keep_checkpoint:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        finish(folder)


def claim(folder: Path, spec: RunSpec) -> None:
    """Make the folder this run's own.

    Raises:
        ValueError: If it holds another run.
    """
    path = folder / SPEC
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, spec.model_dump_json(indent=1))
    elif not _describes(path, spec):
        raise ValueError(f"out: {folder} holds another run (see its {SPEC}); choose a folder of its own")
    elif is_finished(folder):
        check_spec(folder)


def last_record(folder: Path, spec: RunSpec) -> dict[str, Any]:
    """The record of a finished run's last evaluation.

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


def what_diverged(
    means: Mapping[str, float],
    state: Mapping[str, Tensor],
    accuracies: Mapping[str, Mapping[str, float | None]],
) -> str | None:
    """Why a run has diverged, in words; None where it has not.

    Args:
        means: Of the scalars since the last evaluation.
        state: Parameters and buffers.
        accuracies: Of this evaluation.
    """
    if not math.isfinite(means.get("loss", 0.0)):
        return f"the loss was {means['loss']}"
    finite = [value.isfinite().all() for value in state.values() if value.is_floating_point()]
    if finite and not bool(torch.stack(finite).all()):
        return "a weight was not finite"
    values = [value for parts in accuracies.values() for value in parts.values()]
    if any(value is not None and math.isnan(value) for value in values):
        return "a prediction was not finite"
    return None


def make_record(
    step: int,
    means: Mapping[str, float],
    accuracies: Mapping[str, Mapping[str, float | None]],
    problem: str | None,
) -> dict[str, Any]:
    """The record of an evaluation; a network that has diverged has no accuracies."""
    if problem is None:
        return {"step": step, **means, "accuracies": accuracies}
    none = {domain: dict.fromkeys(parts) for domain, parts in accuracies.items()}
    return {"step": step, **means, "accuracies": none, DIVERGED: problem}


def _resume(
    folder: Path, spec: RunSpec, algorithm: Algorithm, optimizers: Mapping[str, Optimizer], first: bool
) -> int:
    """Go back to the latest checkpoint, and leave the records until there.

    Returns:
        Number of updates done.

    Raises:
        ValueError: If the checkpoint or the records are not those of the run at one of its evaluations.
    """
    checkpoint = latest_checkpoint(folder / CHECKPOINTS)
    if checkpoint is None:
        if first:
            (folder / METRICS).unlink(missing_ok=True)
        return 0
    done = resume(checkpoint, algorithm, optimizers)
    about = checkpoint_about(checkpoint)
    try:
        same = RunSpec.model_validate(about.get("run")).identity() == spec.identity()
    except ValidationError:
        same = False
    if not same:
        raise ValueError(
            f"checkpoint: {checkpoint} is of another run; remove {folder / CHECKPOINTS} to begin anew"
        )
    evaluated = [step for step in evaluated_steps(spec.steps, spec.evaluate_every) if step < done]
    if done > spec.steps or evaluated[-1] != done - 1 or int(algorithm.steps_done) != done:
        raise ValueError(
            f"checkpoint: {checkpoint} says that {done} steps are done, which cannot be; remove "
            f"{folder / CHECKPOINTS} to begin anew"
        )
    found = [record["step"] for record in read_records(folder) if record["step"] < done]
    if found != evaluated:
        missing = next((step for step in evaluated if step not in found), None)
        what = "repeats evaluations" if missing is None else f"lacks the evaluation of step {missing}"
        raise ValueError(
            f"{folder / METRICS}: {what}, though the checkpoint is of {done} steps; remove "
            f"{folder / CHECKPOINTS} to begin anew"
        )
    if first:
        keep_records_before(folder, done)
    return done


def _describes(path: Path, spec: RunSpec) -> bool:
    try:
        found = RunSpec.model_validate_json(path.read_bytes())
    except ValidationError:  # of another program or version
        return False
    return found.identity() == spec.identity()


def check_algorithm(name: str, backbone: str, input_shape: tuple[int, ...]) -> None:
    """Refuse an algorithm that has nothing to do on such inputs with such a backbone.

    Args:
        name: Of the algorithm.
        backbone: Its name.
        input_shape: See [build_algorithm][].

    Raises:
        ValueError: Saying what it needs.
    """
    algorithm = get_algorithm(name)
    if len(input_shape) == 1 and algorithm.needs_images:
        raise ValueError(f"algorithm: {name} works on images, not on feature vectors; choose another one")
    if backbone == IDENTITY and algorithm.needs_trainable_backbone:
        raise ValueError(
            f"algorithm: {name} trains the backbone, and 'identity' has nothing to train; choose "
            "the backbone adapter:linear or adapter:mlp, or another algorithm"
        )


def _in_step(shares: Iterator[DomainBatch], processes: Processes) -> Iterator[DomainBatch]:
    """Shares of batches; where one process cannot load its own, all stop."""
    while True:
        with processes.together():
            share = next(shares, None)
        if share is None:
            return
        yield share


def check_targets(spec: RunSpec, dataset: DomainDataset) -> None:
    """Refuse target domains that are not there, or leave none to train on.

    Raises:
        ValueError: Naming them.
    """
    count = len(dataset.domains)
    chosen = set(spec.target_domains)
    if not chosen <= set(range(count)) or len(chosen) != len(spec.target_domains) or len(chosen) >= count:
        raise ValueError(
            f"target_domains: must be different indices from 0 to {count - 1} that leave one to train on, "
            f"got {list(spec.target_domains)}"
        )


def _check_start(algorithm: Algorithm, names: Sequence[str], training_sets: Sequence[Part]) -> None:
    """Refuse a run that cannot be trained, and say what of it will have no effect."""
    check_sizes(names, list(map(len, training_sets)), algorithm.hparams.batch_size)
    algorithm.check_start()


def _split(spec: RunSpec, dataset: DomainDataset, index: int) -> _Split:
    domain = dataset.domains[index]
    inside, outside = split_indices(len(domain.targets), spec.trial_seed, index, spec.holdout_fraction)
    evaluated: Samples = domain.plain
    if spec.validation_images == "augmented" and index not in spec.target_domains:
        evaluated = domain.augmented
    limit = spec.evaluation_samples
    return _Split(
        Subset(domain.augmented, inside),
        {"in": Subset(evaluated, inside[:limit]), "out": Subset(evaluated, outside[:limit])},
    )


def _accuracies(
    algorithm: Algorithm,
    dataset: DomainDataset,
    splits: Iterable[_Split],
    device: torch.device,
    workers: int,
    processes: Processes,
) -> dict[str, dict[str, float | None]]:
    """Accuracies of every domain's in and out split, by domain name; None for an empty one."""
    return {
        domain.name: {
            part: accuracy(algorithm, samples, device, workers, processes) if len(samples) else None
            for part, samples in split.evaluated.items()
        }
        for domain, split in zip(dataset.domains, splits, strict=True)
    }
