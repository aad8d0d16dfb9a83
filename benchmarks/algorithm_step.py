"""An update of every algorithm, against ERM's: ResNet-18 at 224 pixels, 3 domains of 2 images, 7 classes.

Each algorithm is timed in turns with ERM alone, so that few networks are in memory. What is timed are two
updates in a row, since adversarial algorithms train network and discriminator in turns; times are of one, in
processor seconds of one thread. BatchNorm is trained here, as in a network without pretrained weights, so
that algorithms which then pass the backbone domain by domain (CORAL, MMD, GroupDRO, HGP and others) make
three passes of two images where ERM makes one of six; with frozen BatchNorm, the default, they make one.
Freed memory goes back to the system, as in a plain script; other work ran on the machine.
"""

import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.timing import Comparison, median_seconds, one_thread
from hessalign.algorithms import DomainBatch, algorithm_names, get_algorithm
from hessalign.backbones import BackboneSpec, make_backbone
from hessalign.datasets.base import SearchSpace

DOMAINS, IMAGES, CLASSES = 3, 2, 7
UPDATES = 2
TARGETS = {
    **dict.fromkeys(
        (
            "coral",
            "exact_diagonal",
            "exact_hessian",
            "fishr",
            "group_dro",
            "hgp",
            "hutchinson",
            "irm",
            "mmd",
            "vrex",
        ),
        1.03,
    ),
    "sand_mask": 1.6,
    "sagnet": 2.2,
    "arm": 3.0,
}
"""Of the first ones, which do no more than add to ERM's loss, and of three that take long."""


def run() -> list[Comparison]:
    """Time each registered algorithm's update and ERM's."""
    return against_erm("ResNet-18", "resnet18", (3, 224, 224), IMAGES, "large", rounds=3)


def against_erm(
    label: str, network: str, shape: Sequence[int], images: int, search_space: SearchSpace, rounds: int
) -> list[Comparison]:
    """Updates of all algorithms on one network.

    Args:
        label: What rows call the network.
        network: The backbone.
        shape: Of an image.
        images: Of each domain.
        search_space: Whose defaults the hyper-parameters have.
        rounds: How often each is timed.

    Returns:
        A row for each algorithm.
    """
    torch.manual_seed(0)
    batch = DomainBatch(
        torch.randn(DOMAINS * images, *shape),
        torch.randint(0, CLASSES, (DOMAINS * images,)),
        torch.arange(DOMAINS).repeat_interleave(images),
        DOMAINS,
    )
    with one_thread():
        erm = updates_of("erm", network, batch, search_space)
        rows = []
        for name in algorithm_names():
            if name != "erm":
                alternatives = {"erm": erm, name: updates_of(name, network, batch, search_space)}
                seconds = median_seconds(alternatives, rounds, warm_up=1, clock=time.process_time)
                rows.append(
                    Comparison(
                        f"{label} update of {name}",
                        "ERM update",
                        seconds[name] / UPDATES,
                        seconds["erm"] / UPDATES,
                        "cost",
                        TARGETS.get(name),
                    )
                )
        return rows


def updates_of(name: str, network: str, batch: DomainBatch, search_space: SearchSpace) -> Callable[[], None]:
    """Two updates of an algorithm.

    Args:
        name: Of the algorithm.
        network: The backbone.
        batch: What it is updated on.
        search_space: Whose defaults the hyper-parameters have.

    Returns:
        A function that does them.
    """
    algorithm_class = get_algorithm(name)
    channels = batch.inputs.shape[1] + algorithm_class.extra_input_channels
    backbone = make_backbone(BackboneSpec(name=network), channels)
    hparams = algorithm_class.hparams_class.with_defaults(
        search_space, {"batch_size": batch.samples_per_domain}
    )
    algorithm = algorithm_class(backbone, backbone.width, CLASSES, DOMAINS, hparams)
    with torch.no_grad():  # gives layers that learn their input's size from it their parameters
        algorithm(batch.inputs)
    optimizers = algorithm.make_optimizers()

    def updates() -> None:
        for _ in range(UPDATES):
            algorithm.update(batch, optimizers)

    return updates
