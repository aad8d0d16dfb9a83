"""An update of every algorithm, and an evaluation, on the MNIST network: 3 domains of 32 images of 28 pixels.

Updates of all algorithms stand against ERM's, two in a row, of which times are one's. Then come plain loops:
the same network with channels first in memory, as it was before and as DomainBed has it; CORAL, GroupDRO, MMD
and Mixup as papers write them, domain by domain, on that network; and an evaluation by a loader with batches
of 64. All in processor seconds of one thread, in the command line's way of keeping freed memory.
"""

import time
from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from benchmarks.algorithm_step import CLASSES, DOMAINS, UPDATES, against_erm, updates_of
from benchmarks.timing import Comparison, median_seconds, one_thread
from hessalign.algorithms import DomainBatch
from hessalign.backbones.networks import MnistCnn
from hessalign.datasets.mnist import DigitSamples
from hessalign.memory import keep_freed_memory
from hessalign.training.evaluation import outputs

SHAPE, IMAGES = (2, 28, 28), 32
EVALUATED = 640
BANDWIDTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
PLAIN = "a plain loop, channels first"
ROUNDS = 5


def run() -> list[Comparison]:
    """Time updates against ERM's and against plain loops, and an evaluation."""
    keep_freed_memory()
    against = against_erm("MNIST network", "mnist_cnn", SHAPE, IMAGES, "small", rounds=ROUNDS)
    with one_thread():
        return [*against, *_against_plain_loops(), _evaluation()]


def _against_plain_loops() -> list[Comparison]:
    torch.manual_seed(0)
    samples = DOMAINS * IMAGES
    inputs, targets = torch.randn(samples, *SHAPE), torch.randint(0, CLASSES, (samples,))
    batch = DomainBatch(inputs, targets, torch.arange(DOMAINS).repeat_interleave(IMAGES), DOMAINS)
    rows = []
    for name, loss in LOSSES.items():
        ours, plain = updates_of(name, "mnist_cnn", batch, "small"), _plain_updates(loss, batch)
        seconds = median_seconds({"ours": ours, "plain": plain}, ROUNDS, clock=time.process_time)
        rows.append(
            Comparison(
                f"MNIST network update of {name}, 32 images a domain",
                PLAIN,
                seconds["ours"] / UPDATES,
                seconds["plain"] / UPDATES,
                "cost",
                1.0,
            )
        )
    return rows


def _plain_network(classes: int) -> tuple[nn.Sequential, nn.Linear]:
    return nn.Sequential(*MnistCnn(SHAPE[0])), nn.Linear(MnistCnn.width, classes)


Loss = Callable[[nn.Module, nn.Module, list[tuple[Tensor, Tensor]]], Tensor]


def _plain_updates(loss: Loss, batch: DomainBatch) -> Callable[[], None]:
    network, head = _plain_network(CLASSES)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-3)
    pairs = list(zip(batch.by_domain(batch.inputs), batch.by_domain(batch.targets), strict=True))

    def updates() -> None:
        for _ in range(UPDATES):
            value = loss(network, head, pairs)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            value.item()  # what a loop reports

    return updates


def _erm(network: nn.Module, head: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return F.cross_entropy(head(network(inputs)), targets)


def _with_distance(distance: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    def loss(network: nn.Module, head: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        features = [network(inputs) for inputs, _ in pairs]
        risks = [F.cross_entropy(head(z), y) for z, (_, y) in zip(features, pairs, strict=True)]
        distances = [distance(*two) for two in combinations(features, 2)]
        return sum(risks) / len(risks) + sum(distances) / len(distances)

    return loss


def _coral_distance(one: Tensor, two: Tensor) -> Tensor:
    means = (one.mean(0) - two.mean(0)).square().mean()
    return means + (one.T.cov() - two.T.cov()).square().mean()


def _mmd_distance(one: Tensor, two: Tensor) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distances = (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp_min(1e-30)
        return sum((-bandwidth * distances).exp() for bandwidth in BANDWIDTHS).mean()

    return kernel(one, one) + kernel(two, two) - 2 * kernel(one, two)


def _group_dro(network: nn.Module, head: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    risks = torch.stack([F.cross_entropy(head(network(inputs)), targets) for inputs, targets in pairs])
    weights = (0.01 * risks.detach()).exp()
    return (weights / weights.sum() * risks).sum()


def _mixup(network: nn.Module, head: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    order = torch.randperm(len(pairs)).tolist()
    losses = []
    for first, second in zip(order, order[1:] + order[:1], strict=True):
        (x1, y1), (x2, y2) = pairs[first], pairs[second]
        share = np.random.beta(0.2, 0.2)
        logits = head(network(share * x1 + (1 - share) * x2))
        losses.append(share * F.cross_entropy(logits, y1) + (1 - share) * F.cross_entropy(logits, y2))
    return torch.stack(losses).mean()


LOSSES: Mapping[str, Loss] = {
    "erm": _erm,
    "coral": _with_distance(_coral_distance),
    "group_dro": _group_dro,
    "mmd": _with_distance(_mmd_distance),
    "mixup": _mixup,
}


def _evaluation() -> Comparison:
    torch.manual_seed(0)
    images, targets = (
        torch.randint(0, 256, (EVALUATED, *SHAPE), dtype=torch.uint8),
        torch.randint(0, 2, (EVALUATED,)),
    )
    everything = range(EVALUATED)
    ours = nn.Sequential(MnistCnn(SHAPE[0]), nn.Linear(MnistCnn.width, 2))
    part = Subset(DigitSamples(images, targets), everything)
    plain = nn.Sequential(*_plain_network(2))
    loader = DataLoader(Subset(TensorDataset(images.float() / 255, targets), everything), batch_size=64)

    def plain_loop() -> float:
        plain.eval()
        right = 0
        with torch.no_grad():
            for inputs, labels in loader:
                right += int((plain(inputs).argmax(1) == labels).sum())
        plain.train()
        return right / EVALUATED

    functions = {"ours": lambda: outputs(ours, part, torch.device("cpu")).accuracy(), "plain": plain_loop}
    seconds = median_seconds(functions, ROUNDS, clock=time.process_time)
    return Comparison(
        f"MNIST network, evaluation of {EVALUATED} images",
        PLAIN,
        seconds["ours"],
        seconds["plain"],
        "faster",
        1.4,
    )
