"""Training: one loop of steps and evaluations, for a run and for runs that are computed together."""

import copy
import math
import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset
from typing_extensions import override

from hessalign import runs
from hessalign.algorithms import Algorithm
from hessalign.algorithms.base import Metrics
from hessalign.datasets.base import DomainDataset, Samples, split_indices
from hessalign.exceptions import NoEffectWarning
from hessalign.runs.layout import (
    CHECKPOINTS,
    hold,
    is_finished,
    latest_checkpoint,
    remove_leftovers,
)
from hessalign.runs.records import (
    DIVERGED,
    append_record,
    check_predictions,
    keeps_predictions,
    remove_unrecorded,
)
from hessalign.runs.seals import finish
from hessalign.training.averaging import RENEWAL_BATCHES, Mean, in_place, make_averaging
from hessalign.training.batches import check_sizes, domain_batches
from hessalign.training.checkpoint import (
    claim_or_lengthen,
    go_on,
    last_record,
    resume_average,
    save_checkpoint,
)
from hessalign.training.doubts import Doubts, Predicted
from hessalign.training.evaluation import (
    Evaluated,
    Outputs,
    cross_entropy,
    make_record,
    outputs,
    what_diverged,
)
from hessalign.training.machine import Machine, launched, make_fabric
from hessalign.training.meter import Meter
from hessalign.training.processes import ALONE, Processes, check_spreadable
from hessalign.training.recipe import Practice
from hessalign.training.spec import (
    CheckpointMetadata,
    RunSpec,
    build_algorithm,
    check_batch_norm,
    check_targets,
)

Split = Subset[tuple[Tensor, int]]


@dataclass(frozen=True)
class Progress:
    """State of a run after a step.

    Attributes:
        step: The step, counted from 0.
        metrics: Detached scalars of this step's update, on the device: reading one waits for the device.
        record: The latest evaluation, or None before the first; of runs that are computed together the first
            one's.
        images_per_second: Since the latest evaluation, loading included, by all processes.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, train
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
        ...     steps = []
        ...     record = train(
        ...         spec, dataset, place / "run", Machine("cpu"), lambda progress: steps.append(progress.step)
        ...     )
        >>> steps
        [0, 1, 2, 3]
    """

    step: int
    metrics: Metrics
    record: dict[str, Any] | None
    images_per_second: float


class Computation(ABC):
    """What ``perform`` drives: a run, or several of one algorithm that are computed at once.

    Attributes:
        specs: Of the runs; they agree in steps and evaluations.
        dataset: What they are trained on.
        algorithm: Whose rule they follow.
        processes: That share each update.
        samples: In one update of all runs.
    """

    specs: Sequence[RunSpec]
    dataset: DomainDataset
    algorithm: Algorithm
    processes: Processes = ALONE
    samples: int

    @abstractmethod
    def update(self, step: int) -> Metrics:
        """One update; the scalars of several runs are ``(R,)``."""

    @abstractmethod
    def evaluate(self, step: int) -> Sequence[Evaluated]:
        """Each run after a step, on all domains."""

    @abstractmethod
    def state(self, run: int) -> Mapping[str, Tensor]:
        """Parameters and buffers of a run."""

    @abstractmethod
    def predicted(self) -> Predicted:
        """Predictions of each run on source domains."""

    @abstractmethod
    def keep(self, step: int, records: Mapping[int, dict[str, Any]], meter: Meter) -> None:
        """Keep the records of an evaluation, by run, and what is needed to go on from there."""


def perform(
    computation: Computation,
    steps: range,
    meter: Meter,
    report: Callable[[Progress], None] | None = None,
) -> None:
    """Do steps, and evaluate after every so many and the last; a run that diverges ends there.

    Args:
        computation: Of the runs.
        steps: Those that are left.
        meter: What is known since the last evaluation.
        report: Called after every step, in the first process, but not after all runs have diverged.
    """
    spec, processes = computation.specs[0], computation.processes
    class_names = computation.dataset.class_names
    doubts = Doubts(computation.algorithm, spec.steps, class_names, speak=processes.is_first)
    going = list(range(len(computation.specs)))
    records: dict[int, dict[str, Any]] = {}
    for step in steps:
        metrics = computation.update(step)
        meter.add(metrics, computation.samples)
        samples_per_second = meter.samples_per_second()
        if step % spec.evaluate_every == 0 or step == spec.steps - 1:
            means, evaluated = meter.means(), computation.evaluate(step)
            records = {}
            for run in going:
                problem = what_diverged(means[run], computation.state(run), evaluated[run].accuracies)
                records[run] = make_record(step, means[run], evaluated[run], processes.first_of(problem))
            computation.keep(step, records, meter)
            going = [run for run in going if DIVERGED not in records[run]]
            if not going:
                break
            doubts.look(step, means, computation.predicted)
            meter.restart()
        if report is not None and processes.is_first:
            report(Progress(step, metrics, next(iter(records.values()), None), samples_per_second))


def train(
    spec: RunSpec,
    dataset: DomainDataset,
    folder: Path,
    machine: Machine,
    report: Callable[[Progress], None] | None = None,
    *,
    keep_checkpoint: bool = True,
    save_predictions: bool = False,
) -> dict[str, Any]:
    """Run a spec from its beginning, or from the latest checkpoint in the folder.

    A folder that holds the same run with fewer steps goes on, too, and ends to the last bit with what all
    steps at once give.

    Args:
        spec: What to run.
        dataset: The dataset that the spec names.
        folder: Of this run alone; holds spec, metrics as JSON lines and the latest checkpoint.
        machine: Where to run it. With several devices, the program is run once for each: the other
            processes must come to this call, too, with the same arguments.
        report: Called after every step, in the first process.
        keep_checkpoint: Whether the last checkpoint stays when the run is done.
        save_predictions: Keep the logits of every evaluated sample, in a Parquet file for each evaluation,
            which [read_predictions][hessalign.training.read_predictions] reads. A run that was begun with it
            goes on with it.

    Returns:
        The record of the last evaluation.

    Raises:
        ValueError: If spec, dataset, folder and machine do not go together, or what is in the folder is
            damaged.
        OSError: If a sample cannot be read, or the disk not be written, or another process writes to the
            folder.
        DivergedError: If the loss, a weight or a prediction was not finite at an evaluation. The run ends
            there and is done; its last record says so.

    Warns:
        NoEffectWarning: If predictions are to be saved of a run that was done before without, or a request of
            the spec never comes to pass.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import make_dataset
        >>> from hessalign.training import Machine, RunSpec, train
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("small", {"batch_size": 4})
        >>> spec = RunSpec(
        ...     dataset="colored_mnist",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="mnist_cnn"),
        ...     hparams=hparams.model_dump(),
        ...     steps=2,
        ...     evaluate_every=2,
        ...     evaluation_samples=4,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = train(spec, make_dataset("colored_mnist"), Path(folder), Machine("cpu"))
        >>> record["step"]
        1
    """
    run = _Run(spec, dataset, folder, machine, keep_checkpoint, save_predictions)
    with hold(folder) if machine.is_first_process else nullcontext():
        if machine.is_first_process:
            claim_or_lengthen(folder, spec)
            remove_leftovers(folder)
            if save_predictions:
                check_predictions(folder)
        if not is_finished(folder):
            with launched(run.fabric) as processes:
                first_step, sums = run.start(processes)
                perform(run, range(first_step, spec.steps), Meter(sums=sums), report)
                run.finish()
        return last_record(folder, spec)


class _Run(Computation):
    """One run, whose update several processes may share."""

    def __init__(
        self,
        spec: RunSpec,
        dataset: DomainDataset,
        folder: Path,
        machine: Machine,
        keep_checkpoint: bool,
        save_predictions: bool,
    ) -> None:
        check_targets(spec, dataset)
        if spec.average is not None:
            raise ValueError(
                "average: the run is a mean of trained runs, which cannot be trained; train those"
            )
        torch.manual_seed(spec.seed)
        self.specs, self.spec, self.dataset = (spec,), spec, dataset
        self.folder, self.machine, self.keep_checkpoint = folder, machine, keep_checkpoint
        self.save_predictions = save_predictions or keeps_predictions(folder)
        sources = [index for index in range(len(dataset.domains)) if index not in spec.target_domains]
        self.algorithm = build_algorithm(spec, dataset.input_shape, len(dataset.class_names), len(sources))
        self.training_sets, self.evaluated = evaluation_splits(spec, dataset)
        self.training_counts = training_counts(spec, dataset)
        per_domain = self.algorithm.hparams.batch_size
        names = [dataset.domains[index].name for index in sources]
        check_sizes(names, list(map(len, self.training_sets)), per_domain)
        self.algorithm.check_start()
        begins = latest_checkpoint(folder / CHECKPOINTS) is None and not is_finished(folder)
        self.practice = Practice(spec.recipe, self.algorithm, begins=begins)
        self.averaging = make_averaging(spec.recipe)
        self.predicting: dict[str, Tensor] | None = None
        self._check_average(sources)
        self.samples = per_domain * len(sources)
        self.fabric = make_fabric(machine)
        if machine.devices > 1:
            check_spreadable(self.algorithm)
        self.never = spec.never_comes()
        if machine.is_first_process:
            check_batch_norm(spec.backbone, self.algorithm.backbone)
            for sentence in self.never.values():
                warnings.warn(sentence, NoEffectWarning, stacklevel=3)

    def start(self, processes: Processes) -> tuple[int, dict[str, Tensor]]:
        """Go to the latest checkpoint, or the beginning; the steps done, and sums of the scalars before."""
        self.processes = processes
        self.fabric.strategy.precision.convert_module(self.algorithm.to(self.fabric.device))
        self.optimizers = self.practice.make_optimizers()
        with processes.together():
            done, sums = go_on(self.folder, self.spec, self.algorithm, self.optimizers, processes.is_first)
            if self.averaging is not None:
                resume_average(self.folder, self.averaging, self._parameters())
        processes.spread(self.algorithm)
        steps, workers = range(done, self.spec.steps), self.machine.workers
        self.shards = domain_batches(
            self.training_sets,
            self.algorithm.hparams.batch_size,
            self.spec.seed,
            steps,
            workers,
            processes.rank,
            processes.count,
        )
        return done, sums

    def finish(self) -> None:
        if self.processes.is_first:
            foreseen = "average" in self.never
            if self.averaging is not None and self.predicting is None and not foreseen:
                warnings.warn(
                    f"average: {self.averaging.no_mean}; the latest network predicts, as without an average",
                    NoEffectWarning,
                    stacklevel=3,
                )
            if not self.keep_checkpoint:
                shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
            if self.save_predictions:
                remove_unrecorded(self.folder)
            finish(self.folder)

    @override
    def update(self, step: int) -> Metrics:
        with self.processes.together():  # where one process cannot load its own, all stop
            shard = next(self.shards)
        batch = self.processes.all_gather(shard.to(self.fabric.device), self.samples)
        self.batch = batch.with_inputs(self.fabric.strategy.precision.convert_input(batch.inputs))
        self.practice.before_update(step)
        with self.fabric.autocast():
            metrics = self.algorithm.update(self.batch, self.optimizers)
        if self.averaging is not None:
            self.averaging.take_in(step + 1, self._parameters())
        return metrics

    @override
    def evaluate(self, step: int) -> Sequence[Evaluated]:
        self.processes.broadcast(self.algorithm)
        mean = self._mean(step)
        if mean is None:
            self.predicting = None
            return self._measured(step)
        with in_place(self.algorithm, mean.values, self._batches_for_statistics()):
            self.predicting = {name: value.clone() for name, value in self.algorithm.state_dict().items()}
            return self._measured(step)

    def _mean(self, step: int) -> Mean | None:
        """What predicts after a step, where that is a mean."""
        if self.averaging is None:
            return None
        averaging = self.averaging
        if averaging.needs_loss:
            if step % self.spec.evaluate_every:  # a longer run has no evaluation here
                averaging = copy.deepcopy(averaging)
            averaging.look(self._source_loss())
        return averaging.mean()

    def _source_loss(self) -> float:
        """Mean cross-entropy on the held-out samples of the source domains, each domain weighing the same."""
        sources = [
            splits["out"]
            for index, splits in enumerate(self.evaluated)
            if index not in self.spec.target_domains and len(splits["out"])
        ]
        losses = [
            cross_entropy(self.algorithm, split, self.fabric.device, self.machine.workers)
            for split in sources
        ]
        return math.fsum(losses) / len(losses)

    def _check_average(self, sources: Sequence[int]) -> None:
        if self.averaging is None or not self.averaging.needs_loss:
            return
        if not any(len(self.evaluated[index]["out"]) for index in sources):
            raise ValueError(
                "average: 'swad' needs held-out samples of the source domains, of which there are none; "
                "allowed is 'sma', or a larger share that is held out"
            )

    def _parameters(self) -> dict[str, Tensor]:
        return dict(self.algorithm.named_parameters())

    def _batches_for_statistics(self) -> Iterator[Tensor]:
        size = self.algorithm.hparams.batch_size
        for inputs in batches_for_statistics(self.training_sets, size, self.spec, self.machine.workers):
            yield self.fabric.strategy.precision.convert_input(inputs.to(self.fabric.device))

    def _measured(self, step: int) -> Sequence[Evaluated]:
        keeps = self.save_predictions and self.processes.is_first
        evaluated = Evaluated(table=prediction_table(self.dataset) if keeps else None)
        for domain, splits, counts in zip(
            self.dataset.domains, self.evaluated, self.training_counts, strict=True
        ):
            for name, split in splits.items():
                evaluated.add(domain, name, split.indices, self._outputs(split), counts)
        with self.processes.together():
            evaluated.keep(self.folder, step)
        return [evaluated]

    @override
    def state(self, run: int) -> Mapping[str, Tensor]:
        return self.algorithm.state_dict()

    @override
    def predicted(self) -> Predicted:
        # For the latest batch.
        self.algorithm.eval()
        with torch.no_grad():
            classes = self.algorithm(self.batch.inputs).argmax(1)
        self.algorithm.train()
        return [classes], [self.batch.targets]

    @override
    def keep(self, step: int, records: Mapping[int, dict[str, Any]], meter: Meter) -> None:
        is_last = step == self.spec.steps - 1
        with self.processes.together():
            if self.processes.is_first:
                append_record(self.folder, records[0])
                if DIVERGED not in records[0] and (self.keep_checkpoint or not is_last):
                    self._save(step + 1, meter.sums() if step % self.spec.evaluate_every else None)

    def _save(self, done: int, sums: Mapping[str, Tensor] | None) -> None:
        metadata = metadata_of(self.spec, self.dataset)
        save_checkpoint(
            self.folder / CHECKPOINTS,
            done,
            self.algorithm,
            self.optimizers,
            metadata,
            sums,
            self.predicting,
            None if self.averaging is None else self.averaging.state(),
        )

    def _outputs(self, split: Split) -> Outputs | None:
        if not len(split):
            return None
        return outputs(self.algorithm, split, self.fabric.device, self.machine.workers, self.processes)


def metadata_of(spec: RunSpec, dataset: DomainDataset) -> dict[str, Any]:
    """What a checkpoint tells of its run."""
    return CheckpointMetadata(
        run=spec,
        class_names=dataset.class_names,
        input_shape=dataset.input_shape,
        source_domains=len(dataset.domains) - len(spec.target_domains),
    ).model_dump(mode="json")


def prediction_table(dataset: DomainDataset) -> "runs.PredictionTable":
    """An empty one for an evaluation on a dataset."""
    return runs.PredictionTable([domain.name for domain in dataset.domains], dataset.class_names)


def evaluation_splits(spec: RunSpec, dataset: DomainDataset) -> tuple[list[Split], list[dict[str, Split]]]:
    """What each source domain trains on, and what the accuracies of each domain are measured on."""
    splits = [_split(spec, dataset, index) for index in range(len(dataset.domains))]
    training = [part for index, (part, _) in enumerate(splits) if index not in spec.target_domains]
    return training, [evaluated for _, evaluated in splits]


def training_counts(spec: RunSpec, dataset: DomainDataset) -> list[NDArray[np.intp] | None]:
    """Training samples of each class, ``(C,)``, of each source domain; None of target domains."""
    counts: list[NDArray[np.intp] | None] = []
    for index, domain in enumerate(dataset.domains):
        inside, _ = split_indices(len(domain.targets), spec.trial_seed, index, spec.holdout_fraction)
        targets = np.asarray(domain.targets)[inside]
        is_source = index not in spec.target_domains
        counts.append(np.bincount(targets, minlength=len(dataset.class_names)) if is_source else None)
    return counts


def batches_for_statistics(
    training_sets: Sequence[Split], batch_size: int, spec: RunSpec, workers: int
) -> Iterator[Tensor]:
    """Inputs of a run's first batches, whole in every process, for running statistics of a mean."""
    steps = range(min(RENEWAL_BATCHES, spec.steps))
    return (batch.inputs for batch in domain_batches(training_sets, batch_size, spec.seed, steps, workers))


def _split(spec: RunSpec, dataset: DomainDataset, index: int) -> tuple[Split, dict[str, Split]]:
    """One domain's samples for training, and for the two accuracies."""
    domain = dataset.domains[index]
    inside, outside = split_indices(len(domain.targets), spec.trial_seed, index, spec.holdout_fraction)
    evaluated: Samples = domain.plain
    if spec.validation_images == "augmented" and index not in spec.target_domains:
        evaluated = domain.augmented
    limit = spec.evaluation_samples
    return (
        Subset(domain.augmented, inside),
        {"in": Subset(evaluated, inside[:limit]), "out": Subset(evaluated, outside[:limit])},
    )
