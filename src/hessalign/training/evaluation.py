"""Accuracy on whole splits."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from hessalign.training.loading import Key, Sample, load
from hessalign.training.processes import ALONE, Processes

BATCH_SIZE = 64
NO_CLASS = -1
"""Where logits are not finite, and tell nothing."""


@torch.no_grad()
def accuracy(
    model: nn.Module,
    dataset: Dataset[Sample],
    device: torch.device,
    workers: int = 0,
    processes: Processes = ALONE,
) -> float:
    """Share of samples whose largest logit is that of their class, in evaluation mode.

    Batches are dealt to the processes, and every sample and every batch has its own random numbers, so that
    the result depends neither on the number of processes nor on that of workers.

    Args:
        model: Maps inputs to logits; left in the mode it was in.
        dataset: Samples; augmented ones are drawn the same way at every call.
        device: Of the model.
        workers: Processes that load samples.
        processes: Of the run.

    Returns:
        Between 0 and 1; NaN for an empty dataset, and where a logit is not finite.

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
    right = unknown = 0
    with processes.together():
        for start, (inputs, targets, _) in zip(starts, load([dataset], batches, workers), strict=True):
            classes = _predict(model, inputs, device, start)
            right += int((classes == targets).sum())
            unknown += int((classes == NO_CLASS).sum())
    model.train(was_training)
    right, unknown = processes.total(right), processes.total(unknown)
    return right / size if size and not unknown else float("nan")


def predicted_classes(logits: Tensor) -> Tensor:
    """Class ids by the largest logit, ``(..., C)`` to ``(...)``; NO_CLASS where a logit is not finite."""
    return torch.where(logits.isfinite().all(-1), logits.argmax(-1), NO_CLASS)


def _predict(model: nn.Module, inputs: Tensor, device: torch.device, seed: int) -> Tensor:
    """Classes; the draws of a model that predicts by chance are the seed's and not training's."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        logits: Tensor = model(inputs.to(device, _dtype(model.parameters())))
    return predicted_classes(logits).cpu()


def _dtype(values: Iterable[Tensor]) -> torch.dtype:
    """Of the first of them."""
    return next((value.dtype for value in values), torch.float32)
