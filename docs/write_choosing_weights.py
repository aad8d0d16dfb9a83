"""Write the measured table of docs/choosing-weights.md:  python docs/write_choosing_weights.py (minutes).

A small network is trained without a penalty on Colored MNIST's two source domains; then the weights that
``penalty.suggest`` finds are put side by side for several batch sizes and scales of the features.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import hessalign as ha
from hessalign.backbones.networks import MnistCnn
from hessalign.datasets import make_dataset
from hessalign.grid import markdown_table
from hessalign.loop import DomainBalancedSampler

PAGE = Path(__file__).parent / "choosing-weights.md"
START, END = "<!-- written by docs/write_choosing_weights.py -->\n", "\n<!-- end -->"
METHODS = {
    "`gradient`": ("gradient", {}, "beta"),
    "`hgp`": ("hgp", {}, "alpha"),
    "`diagonal`": ("diagonal", {}, "alpha"),
    "`frobenius`": ("frobenius", {}, "alpha"),
    "`hutchinson`, `probes=150, expected=True`": (
        "hutchinson",
        {"probes": 150, "expected": True},
        "alpha",
    ),
}
STEPS, SIZES, BATCHES = 200, (8, 32, 128), 20
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def main() -> None:
    """Train, measure, write."""
    network, head, images, targets, domains = train()

    def batches(size: int, scale: float) -> Iterator[Batch]:
        for chosen in DomainBalancedSampler(domains, size, batches=BATCHES, seed=1):
            with torch.no_grad():
                features = network(images[chosen].float() / 255)
                # The logits stay what they are: a head on larger features has smaller weights.
                yield scale * features, head(features), targets[chosen], domains[chosen]

    cells = {
        (name, size, scale): ha.HessianAlignment(method, **options)
        .suggest(batches(size, scale), share=0.1)
        .terms[weight]
        for name, (method, options, weight) in METHODS.items()
        for size, scale in [*((size, 1.0) for size in SIZES), (32, 2.0)]
    }
    headers = [
        "method",
        "weight",
        *(f"n = {size}" for size in SIZES),
        "n = 32, features × 2",
        "noise at n = 32",
    ]
    rows = []
    for name, (_, _, weight) in METHODS.items():
        found = [f"{cells[name, size, 1.0].weight:.2g}" for size in SIZES]
        scaled, noise = f"{cells[name, 32, 2.0].weight:.2g}", cells[name, 32, 1.0].noise
        assert noise is not None
        rows.append([name, weight, *found, scaled, f"{100 * noise:.0f} %"])
    table = markdown_table(headers, rows, "ll" + "r" * (len(headers) - 2))
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    PAGE.write_text(before + START + table + END + rest.split(END)[1], encoding="utf-8")


def train() -> tuple[torch.nn.Module, torch.nn.Linear, Tensor, Tensor, Tensor]:
    """A network after some steps of plain training, and the source domains' images, classes and ids."""
    torch.manual_seed(0)
    sources = make_dataset("colored_mnist").domains[:2]
    images = torch.cat([domain.plain.images for domain in sources])
    targets = torch.cat([domain.targets for domain in sources])
    domains = torch.arange(2).repeat_interleave(torch.tensor([len(domain) for domain in sources]))
    network, head = MnistCnn(2), torch.nn.Linear(MnistCnn.width, 2)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-3)
    for chosen in DomainBalancedSampler(domains, 32, batches=STEPS):
        loss = F.cross_entropy(head(network(images[chosen].float() / 255)), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval(), head, images, targets, domains


if __name__ == "__main__":
    main()
