"""Accuracy on whole splits."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

BATCH_SIZE = 64


@torch.no_grad()
def accuracy(
    model: nn.Module, dataset: Dataset[tuple[Tensor, int]], device: torch.device, workers: int = 0
) -> float:
    """Share of samples whose largest logit is that of their class, in evaluation mode.

    Args:
        model: Maps inputs to logits; left in the mode it was in.
        dataset: Un-augmented samples, in a fixed order.
        device: Of the model.
        workers: Processes that load samples.

    Returns:
        Between 0 and 1; NaN for an empty dataset.
    """
    was_training = model.training
    model.eval()
    right = total = 0
    # With a generator of its own the loader leaves the global random state alone.
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, num_workers=workers, generator=torch.Generator())
    for inputs, targets in loader:
        predicted = model(inputs.to(device)).argmax(1).cpu()
        right += int((predicted == targets).sum())
        total += len(targets)
    model.train(was_training)
    return right / total if total else float("nan")
