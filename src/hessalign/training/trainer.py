"""One run: train on the source domains, evaluate on all, and be able to go on after any interruption."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import Subset

from hessalign.algorithms import Algorithm, DomainBatch, get_algorithm
from hessalign.algorithms.base import Metrics
from hessalign.backbones import make_backbone
from hessalign.backbones.base import IDENTITY
from hessalign.datasets.base import DomainDataset, Samples
from hessalign.datasets.splits import split_indices
from hessalign.files import write_atomically
from hessalign.training.batches import check_sizes, domain_batches
from hessalign.training.checkpoint import latest_checkpoint, resume, save_checkpoint
from hessalign.training.doubts import Doubts
from hessalign.training.evaluation import accuracy
from hessalign.training.machine import Machine, launched, make_fabric
from hessalign.training.meter import Meter
from hessalign.training.processes import Processes
from hessalign.training.records import append_record, keep_records_before, read_records
from hessalign.training.spec import CheckpointAbout, RunSpec
from hessalign.training.spread import check_spreadable

SPEC, CHECKPOINTS, DONE = "spec.json", "checkpoints", "done"
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
) -> dict[str, Any]:
    """Run a spec from its beginning, or from the latest checkpoint in the folder.

    Args:
        spec: What to run.
        dataset: The dataset that the spec names.
        folder: Of this run alone; holds spec, metrics as JSON lines and the latest checkpoint.
        machine: Where to run it. With several devices, the program is run once for each: the other
            processes must come to this call, too, with the same arguments.
        report: Called after every step, in the first process.

    Returns:
        The record of the last evaluation.

    Raises:
        ValueError: If spec, dataset, folder and machine do not go together.
        OSError: If a sample cannot be read, or the disk not be written.
    """
    check_targets(spec, dataset)
    torch.manual_seed(spec.seed)
    splits = [_split(spec, dataset, index) for index in range(len(dataset.domains))]
    sources = [index for index in range(len(splits)) if index not in spec.target_domains]
    algorithm = build_algorithm(spec, dataset.input_shape, len(dataset.class_names), len(sources))
    training_sets = [splits[index].train for index in sources]
    per_domain = algorithm.hparams.batch_size
    _check_start(algorithm, [dataset.domains[index].name for index in sources], training_sets)
    fabric = make_fabric(machine)
    if machine.devices > 1:
        check_spreadable(algorithm)
    if machine.is_first_process:
        claim(folder, spec)
    if is_finished(folder):
        return read_records(folder)[-1]

    with launched(fabric) as processes:
        fabric.strategy.precision.convert_module(algorithm.to(fabric.device))
        optimizers = algorithm.make_optimizers()
        checkpoint = latest_checkpoint(folder / CHECKPOINTS)
        first_step = 0 if checkpoint is None else resume(checkpoint, algorithm, optimizers)
        with processes.together():
            if processes.is_first:
                keep_records_before(folder, first_step)
        processes.spread(algorithm)

        steps = range(first_step, spec.steps)
        shares = domain_batches(
            training_sets, per_domain, spec.seed, steps, machine.workers, processes.rank, processes.count
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
                doubts.of_run(step, means, batch)
                accuracies = _accuracies(
                    algorithm, dataset, splits, fabric.device, machine.workers, processes
                )
                record = {"step": step, **means, "accuracies": accuracies}
                with processes.together():
                    if processes.is_first:
                        append_record(folder, record)
                        save_checkpoint(folder / CHECKPOINTS, step + 1, algorithm, optimizers, about)
                meter.restart()
            if report is not None and processes.is_first:
                report(Progress(step, metrics, record, images_per_second))
        if processes.is_first:
            (folder / DONE).touch()
        return read_records(folder)[-1]


def is_started(folder: Path) -> bool:
    """Whether a run was begun in the folder."""
    return (folder / SPEC).exists()


def is_finished(folder: Path) -> bool:
    """Whether the folder's run has done all of its steps."""
    return (folder / DONE).exists()


def claim(folder: Path, spec: RunSpec) -> None:
    """Make the folder this run's own.

    Raises:
        ValueError: If it holds another run.
    """
    path = folder / SPEC
    if path.exists() and not _describes(path, spec):
        raise ValueError(f"out: {folder} holds another run (see its {SPEC}); choose a folder of its own")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, spec.model_dump_json(indent=1))


def _describes(path: Path, spec: RunSpec) -> bool:
    try:
        found = RunSpec.model_validate_json(path.read_text(encoding="utf-8"))
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
) -> dict[str, dict[str, float]]:
    """Accuracies of every domain's in and out split, by domain name."""
    return {
        domain.name: {
            part: accuracy(algorithm, samples, device, workers, processes)
            for part, samples in split.evaluated.items()
        }
        for domain, split in zip(dataset.domains, splits, strict=True)
    }
