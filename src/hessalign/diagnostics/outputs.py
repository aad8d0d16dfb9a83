"""Features and logits to report on: of a trained run, or of frozen features and a head fitted to them."""

from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from hessalign.algorithms import Algorithm
from hessalign.algorithms.base import known_as
from hessalign.datasets.base import DomainDataset
from hessalign.training.evaluation import BATCH_SIZE

FIT_ITERATIONS = 2000


@dataclass(frozen=True, eq=False)
class HeadOutputs:
    """What a head gets and gives.

    Attributes:
        features: ``(n, d)``.
        logits: ``(n, C)``.
        targets: Class ids, ``(n,)``.
        domains: Index of each sample's domain, ``(n,)``.
    """

    features: Tensor
    logits: Tensor
    targets: Tensor
    domains: Tensor


@torch.no_grad()
def run_outputs(
    algorithm: Algorithm, dataset: DomainDataset, per_domain: int | None, device: torch.device, seed: int = 0
) -> HeadOutputs:
    """What a trained algorithm's head makes of every domain's un-augmented samples.

    Args:
        algorithm: In evaluation mode, on the device.
        dataset: The one it was trained on, or another with inputs and classes alike.
        per_domain: At most so many random samples of each domain; None for all.
        device: Where to compute.
        seed: Of the samples that are drawn.

    Returns:
        Features and logits of all chosen samples, domain after domain.

    Raises:
        ValueError: If the algorithm's prediction is not its linear head's output.
        OSError: If a sample cannot be read.
    """
    if getattr(algorithm, "head", None) is None:
        raise ValueError(
            f"algorithm: {known_as(algorithm)} has no head of its own, so there is nothing to report on"
        )
    seen: list[tuple[Tensor, Tensor]] = []
    handle = algorithm.head.register_forward_hook(lambda _, given, result: seen.append((given[0], result)))
    parts = []
    try:
        for number, domain in enumerate(dataset.domains):
            chosen = _draw(len(domain), per_domain, seed + number)
            for inputs, targets in DataLoader(Subset(domain.plain, chosen), batch_size=BATCH_SIZE):
                seen.clear()
                logits = algorithm(inputs.to(device))
                features, own = seen[-1]
                if not torch.equal(own, logits):
                    raise ValueError(f"checkpoint: {algorithm.name} does not predict by a linear head alone")
                parts.append((features.cpu(), logits.cpu(), targets, torch.full((len(targets),), number)))
    finally:
        handle.remove()
    return HeadOutputs(*map(torch.cat, zip(*parts, strict=True)))


def feature_outputs(dataset: DomainDataset, per_domain: int | None, seed: int = 0) -> HeadOutputs:
    """Standardised features, and the logits of a multinomial logistic head fitted to all domains together.

    Args:
        dataset: With inputs of one axis, the features.
        per_domain: At most so many random samples of each domain; None for all.
        seed: Of the samples that are drawn.

    Returns:
        Features and logits of all chosen samples, domain after domain.
    """
    parts = []
    for number, domain in enumerate(dataset.domains):
        chosen = _draw(len(domain), per_domain, seed + number)
        features = torch.stack([domain.plain[index][0] for index in chosen])
        parts.append((features, domain.targets[chosen], torch.full((len(chosen),), number)))
    features, targets, domains = map(torch.cat, zip(*parts, strict=True))
    standard = StandardScaler().fit_transform(features.double().numpy())
    classes = len(dataset.class_names)
    model = LogisticRegression(max_iter=FIT_ITERATIONS).fit(standard, targets.numpy())
    found = torch.from_numpy(model.decision_function(standard))
    if found.ndim == 1:  # scikit-learn gives two classes one logit
        found = torch.stack([-found / 2, found / 2], dim=1)
    # A class without samples is never predicted.
    logits = torch.full((len(found), classes), -30.0, dtype=torch.float64)
    logits[:, torch.from_numpy(model.classes_)] = found
    return HeadOutputs(torch.from_numpy(standard), logits, targets, domains)


def _draw(count: int, wanted: int | None, seed: int) -> list[int]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return sorted(order[:wanted].tolist())
