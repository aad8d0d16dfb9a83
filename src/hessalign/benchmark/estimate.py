"""What a sweep will cost, from a few steps of real runs on a few real samples; and what is left of it."""

import math
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from hessalign.benchmark.job import Job, Outcome
from hessalign.datasets import Domain, DomainDataset, Samples
from hessalign.datasets.base import held_out_count
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from hessalign.runs import CHECKPOINTS, METRICS, SPEC
from hessalign.training import Machine, Progress, RunSpec, can_train_together, train, train_together
from hessalign.training.spec import REMEDY

STEPS = 4
"""Of a measured run; the first warms up and the last evaluates."""

FEW_PER_DOMAIN = 2
"""Samples of a domain in the batches that are measured first."""

BYTES_OF_LOGIT, BYTES_OF_SAMPLE = 4, 4
"""In a file of predictions; what tells a sample beside its logits repeats itself, and takes little."""

LARGE_INPUT = 3 * 64 * 64
"""Values; with smaller inputs a step is never long."""

LONG_STEP = 1.0
"""Seconds; where a step takes longer, it is the network that takes them, image by image."""


@dataclass(frozen=True)
class Cost:
    """What a part of a run costs.

    Attributes:
        image_seconds: To train on an image.
        evaluation_seconds: To evaluate an image.
        record_bytes: Of the record of an evaluation.
        spec_bytes: Of a run's spec.
        checkpoint_bytes: Of a checkpoint.
        prediction_bytes: Of a kept prediction of one sample.
    """

    image_seconds: float
    evaluation_seconds: float
    record_bytes: int
    spec_bytes: int
    checkpoint_bytes: int
    prediction_bytes: int

    def seconds(self, spec: RunSpec, sizes: Sequence[int]) -> float:
        """Time of a run on domains of some sizes."""
        per_step = int(spec.hparams["batch_size"]) * (len(sizes) - len(spec.target_domains))
        training = spec.steps * per_step * self.image_seconds
        return training + evaluations(spec) * evaluated_samples(spec, sizes) * self.evaluation_seconds

    def disk_bytes(self, spec: RunSpec, sizes: Sequence[int], *, checkpoint: bool, predictions: bool) -> int:
        """Space that a finished run takes.

        Args:
            spec: The run.
            sizes: Of its domains.
            checkpoint: Whether it keeps one.
            predictions: Whether it keeps those of every evaluation.

        Returns:
            Bytes.
        """
        kept = self.prediction_bytes * evaluated_samples(spec, sizes) if predictions else 0
        return (
            evaluations(spec) * (self.record_bytes + kept)
            + self.spec_bytes
            + (self.checkpoint_bytes if checkpoint else 0)
        )


def evaluations(spec: RunSpec) -> int:
    """Number of evaluations of a run: those of every so many steps, and that of the last."""
    regular = -(-spec.steps // spec.evaluate_every)
    return regular + ((spec.steps - 1) % spec.evaluate_every > 0)


def evaluated_samples(spec: RunSpec, sizes: Sequence[int]) -> int:
    """Number of samples of one evaluation."""
    total = 0
    for size in sizes:
        outside = held_out_count(size, spec.holdout_fraction)
        total += sum(min(part, spec.evaluation_samples or part) for part in (size - outside, outside))
    return total


def measure(spec: RunSpec, dataset: DomainDataset, machine: Machine) -> Cost:
    """The cost of runs like one, measured.

    Batches of a few images tell whether steps are long. If so, the cost of an image is theirs: a step of
    ResNet-50 on a processor takes a quarter of a minute, and a sweep of all algorithms would be measured for
    the better part of an hour. If not, the run's own batches are measured.

    Args:
        spec: The run; a few of its steps are done from random weights, in a folder that is removed.
        dataset: Its dataset; a few samples of each domain are read.
        machine: Where.

    Returns:
        What its parts cost.

    Raises:
        ValueError: If the run cannot be done.
        OSError: If an image cannot be read.
    """
    batch = int(spec.hparams["batch_size"])
    if batch > FEW_PER_DOMAIN and math.prod(dataset.input_shape) >= LARGE_INPUT:
        fewer = {**spec.hparams, "batch_size": FEW_PER_DOMAIN}
        cost = _measured(spec.model_copy(update={"hparams": fewer}), dataset, machine)
        per_step = batch * (len(dataset.domains) - len(spec.target_domains))
        if per_step * cost.image_seconds > LONG_STEP:
            return cost
    return _measured(spec, dataset, machine)


def _measured(spec: RunSpec, dataset: DomainDataset, machine: Machine) -> Cost:
    batch = int(spec.hparams["batch_size"])
    few = _Few(dataset, samples=int(batch / (1 - spec.holdout_fraction)) + 2)
    short = _few_steps(spec)
    ends: list[float] = []
    checkpoint_bytes: list[int] = []

    with tempfile.TemporaryDirectory(prefix="hessalign-") as name, _of_no_meaning():
        folder = Path(name)

        def note(_: Progress) -> None:
            ends.append(time.perf_counter())
            checkpoint_bytes.append(sum(path.stat().st_size for path in (folder / CHECKPOINTS).rglob("*")))

        # The checkpoint of the first step is enough: at the last one, it would count as evaluation.
        train(short, few, folder, machine, note, keep_checkpoint=False)
        step_seconds = (ends[-2] - ends[0]) / (STEPS - 2)
        sizes = [len(domain) for domain in few.domains]
        return Cost(
            image_seconds=step_seconds / (batch * (len(sizes) - len(spec.target_domains))),
            evaluation_seconds=max(ends[-1] - ends[-2] - step_seconds, 0) / evaluated_samples(short, sizes),
            record_bytes=(folder / METRICS).stat().st_size // evaluations(short),
            spec_bytes=(folder / SPEC).stat().st_size,
            checkpoint_bytes=checkpoint_bytes[0],
            prediction_bytes=BYTES_OF_LOGIT * len(dataset.class_names) + BYTES_OF_SAMPLE,
        )


def measure_together(specs: Sequence[RunSpec], dataset: DomainDataset, machine: Machine) -> float:
    """Seconds of each of some runs that are trained together, measured.

    Args:
        specs: The runs; a few of their steps are done, in a folder that is removed.
        dataset: Of features, which all of them name.
        machine: Where.

    Returns:
        The seconds.

    Raises:
        ValueError: If the runs cannot be trained together.
    """
    short = [_few_steps(spec) for spec in specs]
    ends: list[float] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hessalign-") as name, _of_no_meaning():
        folders = [Path(name) / str(number) for number in range(len(specs))]
        train_together(short, dataset, folders, machine, lambda _: ends.append(time.perf_counter()))
    whole = time.perf_counter() - started
    step = (ends[-2] - ends[0]) / (STEPS - 2)
    evaluation = max(ends[-1] - ends[-2] - step, 0)
    building = max(whole - STEPS * step - evaluations(short[0]) * evaluation, 0)
    return (building + specs[0].steps * step + evaluations(specs[0]) * evaluation) / len(specs)


@contextmanager
def _of_no_meaning() -> Iterator[None]:
    """What is doubtful in a few steps from random weights says nothing of the runs that are asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrustworthyWarning)
        warnings.filterwarnings("ignore", f".*{REMEDY}", NoEffectWarning)
        yield


Kind = tuple[str, str, str]
"""Dataset, fingerprint and algorithm: runs of one kind cost the same but for steps and batch size."""


class TimeLeft:
    """How long a sweep will still take, from what its runs have taken so far.

    A run costs what others of its algorithm and data have cost. As long as there are none, it costs what the
    runs known so far do; but one that must be trained alone costs then as much as a whole group that is
    trained together, for a step of such a group takes hardly less than one of its own.

    Args:
        jobs: All of the sweep.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._left: Counter[Kind] = Counter()
        self._examples = {kind_of(job): job for job in jobs}
        for job in jobs:
            self._left[kind_of(job)] += job.work
        self._alone = cache(lambda kind: can_train_together(self._examples[kind].spec) is None)
        self._work: Counter[Kind] = Counter()
        self._seconds: dict[Kind, float] = {}
        self._company: dict[Kind, int] = {}
        self._seen: dict[str, tuple[float, float]] = {}

    def add(self, outcome: Outcome) -> None:
        """Take an outcome into account; a job that is held has none yet."""
        kind = kind_of(outcome.job)
        self._left[kind] -= outcome.job.work
        if outcome.seconds is not None:
            self._work[kind] += outcome.job.work
            self._seconds[kind] = self._seconds.get(kind, 0.0) + outcome.seconds
            self._company[kind] = max(outcome.together, self._company.get(kind, 1))

    def seconds(self, running: Sequence[Sequence[Job]]) -> float | None:
        """The estimate; None before anything is known.

        Args:
            running: Groups that are being done at this moment, side by side.

        Returns:
            Seconds, of all runs whose outcome is not known.
        """
        now = time.monotonic()
        shares = [_share_done(group[0]) if len(group) == 1 else 0.0 for group in running]
        self._seen = {  # when a group was first seen, and how much of it was done then
            group[0].identity: self._seen.get(group[0].identity, (now, share))
            for group, share in zip(running, shares, strict=True)
        }
        spent = [now - self._seen[group[0].identity][0] for group in running]
        rates = self._rates(running, spent, shares)
        if not rates:
            return None
        left = sum(work * self._rate(kind, rates) for kind, work in self._left.items())
        for group, seconds, share in zip(running, spent, shares, strict=True):
            cost = sum(job.work * self._rate(kind_of(job), rates) for job in group)
            left -= share * cost if share > 0 else min(seconds, cost)
        return max(left, 0.0) / max(1, len(running))

    def _rates(
        self, running: Sequence[Sequence[Job]], spent: Sequence[float], shares: Sequence[float]
    ) -> dict[Kind, float]:
        """Seconds of a unit of work of a run, by kind, of those kinds of which something is known."""
        rates = {kind: seconds / self._work[kind] for kind, seconds in self._seconds.items()}
        for group, elapsed, share in zip(running, spent, shares, strict=True):
            job, done = group[0], share - self._seen[group[0].identity][1]
            if done > 0 and kind_of(job) not in self._seconds:
                rates[kind_of(job)] = elapsed / (done * job.work)
        return rates

    def _rate(self, kind: Kind, rates: Mapping[Kind, float]) -> float:
        if kind in rates:
            return rates[kind]
        alike = [known for known in rates if self._alone(known) == self._alone(kind)] or list(rates)
        near = [known for known in alike if known[:2] == kind[:2]] or alike
        company = {known: self._company.get(known, 1) if self._alone(kind) else 1 for known in near}
        return sum(rates[known] * company[known] for known in near) / len(near)


def kind_of(job: Job) -> Kind:
    """Which runs cost what a run costs."""
    return job.spec.dataset, job.spec.data, job.spec.algorithm


def _share_done(job: Job) -> float:
    """By the latest evaluation; 0 for the first, which tells of the start more than of the steps."""
    with suppress(ValueError, OSError):  # the run will say so itself
        done = job.share_done()
        return done if done * job.spec.steps > 1 else 0.0
    return 0.0


def _few_steps(spec: RunSpec) -> RunSpec:
    """The run cut short. Its network takes as long with random weights, which need not be downloaded."""
    backbone = spec.backbone.model_copy(update={"weights": "none", "weights_sha256": ""})
    return spec.model_copy(update={"steps": STEPS, "evaluate_every": STEPS, "backbone": backbone})


class _FewSamples(Samples):
    def __init__(self, samples: Samples, indices: Tensor) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.samples[int(self.indices[index])]


class _Few(DomainDataset):
    """Some samples of each domain, spread over all of it."""

    def __init__(self, dataset: DomainDataset, samples: int) -> None:
        self.input_shape = dataset.input_shape
        domains = []
        for domain in dataset.domains:
            indices = torch.linspace(0, len(domain) - 1, min(samples, len(domain))).long()
            domains.append(
                Domain(
                    domain.name,
                    domain.targets[indices],
                    _FewSamples(domain.plain, indices),
                    _FewSamples(domain.augmented, indices),
                )
            )
        super().__init__(dataset.class_names, tuple(domains))

    @classmethod
    def make(cls, root: Path | None, seed: int) -> "_Few":
        raise NotImplementedError("made from another dataset")
