"""What is known of a run at an evaluation: accuracies, other metrics, and whether it has diverged."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from hessalign import runs
from hessalign.datasets.base import Domain
from hessalign.metrics import measure_split
from hessalign.runs.records import (
    DIVERGED,
    MEASURED,
    METRICS_FIELD,
    OF_SOURCES,
    PREDICTIONS_FIELD,
    UNDEFINED,
)
from hessalign.training.batches import Key, Sample, load
from hessalign.training.processes import ALONE, Processes
from hessalign.training.seeds import seeded

BATCH_SIZE = 64
NO_CLASS = -1
"""Where logits are not finite, and tell nothing."""

Accuracies = Mapping[str, Mapping[str, float | None]]
"""From 0 to 1, by domain name and split; None of an empty one."""


@dataclass(frozen=True)
class Outputs:
    """What a network says of some samples, on the host.

    Attributes:
        logits: ``(n, C)``, of the network's type.
        targets: True classes, ``(n,)``.
    """

    logits: Tensor
    targets: Tensor

    def accuracy(self) -> float:
        """Share of samples whose largest logit is that of their class.

        Returns:
            Between 0 and 1; NaN of no sample, and where a logit is not finite.
        """
        classes = predicted_classes(self.logits)
        right, unknown = int((classes == self.targets).sum()), int((classes == NO_CLASS).sum())
        return share_right(right, unknown, len(self.targets))


@torch.no_grad()
def outputs(
    model: nn.Module,
    dataset: Dataset[Sample],
    device: torch.device,
    workers: int = 0,
    processes: Processes = ALONE,
) -> Outputs:
    """Logits of all samples in their order, in evaluation mode.

    Batches are dealt to the processes, and every sample and every batch has its own random numbers, so that
    the result depends neither on the number of processes nor on that of workers.

    Args:
        model: Maps inputs to logits; left in the mode it was in.
        dataset: Samples; augmented ones are drawn the same way at every call.
        device: Of the model.
        workers: Processes that load samples.
        processes: Of the run; each gets all of it.

    Returns:
        The logits and the classes.

    Raises:
        OSError: If a sample cannot be read.
    """
    size = len(dataset)  # type: ignore[arg-type]
    starts = range(0, size, BATCH_SIZE)[processes.rank :: processes.count]
    batches = [
        [Key(0, index, index) for index in range(start, min(start + BATCH_SIZE, size))] for start in starts
    ]
    was_training = model.training
    model.eval()
    found = []
    with processes.together():
        for start, (inputs, targets, _) in zip(starts, load([dataset], batches, workers), strict=True):
            found.append((_logits(model, inputs, device, start).cpu(), targets))
    model.train(was_training)
    if not size:
        return Outputs(torch.zeros(0, 1), torch.zeros(0, dtype=torch.long))
    # The first process has the first batch. Whoever has none learns from it how wide a row is.
    like = found[0][0] if found else torch.zeros(0, 0)
    width = processes.all_reduce(like.shape[1] * processes.is_first)
    is_double = processes.all_reduce(int(like.dtype == torch.float64) * processes.is_first)
    # bfloat16 and half lose nothing as float32, which NumPy and Parquet know.
    logits = torch.zeros(size, width, dtype=torch.float64 if is_double else torch.float32)
    labels = torch.zeros(size, dtype=torch.long)
    for start, (rows, targets) in zip(starts, found, strict=True):
        logits[start : start + len(rows)] = rows
        labels[start : start + len(rows)] = targets
    return Outputs(processes.sum(logits), processes.sum(labels))


@dataclass
class Evaluated:
    """What an evaluation of a run found, by domain name and split.

    Attributes:
        accuracies: From 0 to 1; None of an empty split, NaN where a logit was not finite.
        metrics: The other numbers, by name first; None where one is not defined.
        undefined: Why it is not, in words, by name, domain and split.
        table: Takes in the predictions; None (default) where they are not kept.
        predictions: SHA-256 of the file that they were written to; None where they are not kept.
    """

    accuracies: dict[str, dict[str, float | None]] = field(default_factory=dict)
    metrics: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    undefined: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    table: "runs.PredictionTable | None" = None
    predictions: str | None = None

    def add(
        self,
        domain: Domain,
        split: str,
        samples: Sequence[int],
        found: Outputs | None,
        training_counts: NDArray[np.intp] | None,
    ) -> None:
        """Take in a split.

        Args:
            domain: Whose it is.
            split: ``"in"`` or ``"out"``.
            samples: Which of the domain's.
            found: Of the network; None of an empty split.
            training_counts: Training samples of each class of the domain, ``(C,)``; None of a target domain.
        """
        self._measure(domain.name, split, found, training_counts)
        if self.table is not None and found is not None:
            files = [domain.plain.file_of(sample) for sample in samples]
            targets, logits = found.targets.numpy(), found.logits.numpy()
            self.table.add(domain.name, split, np.asarray(samples), targets, logits, files)

    def keep(self, folder: Path, step: int) -> None:
        """Write the predictions, where there is a table of them and all are finite.

        Args:
            folder: Of the run.
            step: Of the evaluation.

        Raises:
            OSError: If they cannot be written.
        """
        known = (value for splits in self.accuracies.values() for value in splits.values())
        if self.table is not None and not any(value is not None and math.isnan(value) for value in known):
            self.predictions = self.table.write(folder, step)
        self.table = None

    def _measure(
        self, domain: str, split: str, found: Outputs | None, training_counts: NDArray[np.intp] | None
    ) -> None:
        right = None if found is None else found.accuracy()
        self.accuracies.setdefault(domain, {})[split] = right
        numbers: dict[str, float] = {}
        if found is not None and right is not None and not math.isnan(right):
            numbers = measure_split(found.targets.numpy(), found.logits.numpy(), training_counts)
        for name in MEASURED if training_counts is None else (*MEASURED, *OF_SOURCES):
            value = numbers.get(name, math.nan)
            is_defined = not math.isnan(value)
            self.metrics.setdefault(name, {}).setdefault(domain, {})[split] = value if is_defined else None
            if not is_defined:
                words = "no samples" if found is None else _why_undefined(name)
                self.undefined.setdefault(name, {}).setdefault(domain, {})[split] = words


def _why_undefined(name: str) -> str:
    """Of a split that has samples."""
    return "samples of one class alone" if name == "auroc" else "none of these groups was trained on"


@torch.no_grad()
def cross_entropy(
    model: nn.Module, dataset: Dataset[Sample], device: torch.device, workers: int = 0
) -> float:
    """Mean cross-entropy of the samples, in evaluation mode.

    Every process computes all of it, so that the sum is the same to the last bit for any number of them.

    Args:
        model: Maps inputs to logits; left in the mode it was in.
        dataset: Samples, at least one.
        device: Of the model.
        workers: Processes that load samples.

    Returns:
        At least 0; NaN where a logit is not finite.

    Raises:
        OSError: If a sample cannot be read.
    """
    size = len(dataset)  # type: ignore[arg-type]
    starts = range(0, size, BATCH_SIZE)
    batches = [
        [Key(0, index, index) for index in range(start, min(start + BATCH_SIZE, size))] for start in starts
    ]
    was_training = model.training
    model.eval()
    total = 0.0
    for start, (inputs, targets, _) in zip(starts, load([dataset], batches, workers), strict=True):
        logits = _logits(model, inputs, device, start).cpu().double()
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    model.train(was_training)
    return total / size


def share_right(right: int, unknown: int, size: int) -> float:
    """An accuracy, 0 to 1, from counts; NaN of no sample, and where some have no class."""
    return right / size if size and not unknown else float("nan")


def predicted_classes(logits: Tensor) -> Tensor:
    """Class ids by the largest logit, ``(..., C)`` to ``(...)``; NO_CLASS where a logit is not finite."""
    return torch.where(logits.isfinite().all(-1), logits.argmax(-1), NO_CLASS)


def _logits(model: nn.Module, inputs: Tensor, device: torch.device, seed: int) -> Tensor:
    """The draws of a model that predicts by chance are the seed's and not training's."""
    with seeded(seed, device):
        logits: Tensor = model(inputs.to(device, _dtype(model.parameters())))
    return logits


def _dtype(values: Iterable[Tensor]) -> torch.dtype:
    """Of the first of them."""
    return next((value.dtype for value in values), torch.float32)


def what_diverged(
    means: Mapping[str, float],
    state: Mapping[str, Tensor],
    accuracies: Accuracies,
) -> str | None:
    """Why a run has diverged, in words; None where it has not.

    Args:
        means: Of the scalars since the last evaluation.
        state: Parameters and buffers.
        accuracies: Of this evaluation.

    Returns:
        Words that go into the record.
    """
    if not math.isfinite(means.get("loss", 0.0)):
        return f"the loss was {means['loss']}"
    finite = [value.isfinite().all() for value in state.values() if value.is_floating_point()]
    if finite and not bool(torch.stack(finite).all()):
        return "a weight was not finite"
    values = [value for splits in accuracies.values() for value in splits.values()]
    if any(value is not None and math.isnan(value) for value in values):
        return "a prediction was not finite"
    return None


def make_record(
    step: int,
    means: Mapping[str, float],
    evaluated: Evaluated,
    problem: str | None,
) -> dict[str, Any]:
    """The record of an evaluation; a network that has diverged has no accuracies, and no other metrics."""
    if problem is None:
        measured = {"accuracies": evaluated.accuracies, METRICS_FIELD: evaluated.metrics}
        why = {UNDEFINED: evaluated.undefined} if evaluated.undefined else {}
        kept = {} if evaluated.predictions is None else {PREDICTIONS_FIELD: evaluated.predictions}
        return {"step": step, **means, **measured, **why, **kept}
    none = {domain: dict.fromkeys(splits) for domain, splits in evaluated.accuracies.items()}
    return {"step": step, **means, "accuracies": none, DIVERGED: problem}
