"""Features of coloured digits by a network that was trained on them, for docs/compare-heads.md.

    hessalign train --dataset colored_mnist --algorithm erm --target 2 --steps 300 --out RUN
    python docs/write_colored_features.py RUN OUT.safetensors --colour-flips 0.1 0.2 0.9

Each domain has the label noise of Colored MNIST, and a colour that disagrees with the label as given.
The digits are those of the data set; which are in which domain, their noise and colours are drawn anew.
"""

import argparse
import sys
from pathlib import Path

import torch

from hessalign.datasets.colored_mnist import COLOUR_FLIPS, ColoredMNIST
from hessalign.datasets.features_file import save_features
from hessalign.training import load_trained


def main() -> None:
    """Read the run, and write the features."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="Folder of a run of hessalign train on colored_mnist.")
    parser.add_argument("out", type=Path, help="The file to write, NAME.safetensors.")
    parser.add_argument("--colour-flips", type=float, nargs="+", default=COLOUR_FLIPS, help="Of each domain.")
    parser.add_argument("--images", type=int, default=1500, help="Of each domain; 1,500 by default.")
    parser.add_argument("--seed", type=int, default=1, help="Not that of the run, which is 0; 1 by default.")
    options = parser.parse_args()
    flips = tuple(options.colour_flips)

    class Coloured(ColoredMNIST):
        domain_names = tuple(
            f"{round(100 * max(flip, 1 - flip)):+d}%".replace("+", "+-"[flip > 0.5]) for flip in flips
        )
        colour_flips = flips

    algorithm, _ = load_trained(options.run)
    data = Coloured(options.seed)
    with torch.no_grad():
        features = torch.cat(
            [
                algorithm.backbone(domain.plain.take(torch.arange(options.images), torch.zeros(0)))
                for domain in data.domains
            ]
        )
    labels = torch.cat([domain.targets[: options.images] for domain in data.domains])
    names = [name for name in data.domain_names for _ in range(options.images)]
    written = save_features(options.out, features, labels.numpy(), names, class_names=data.class_names)
    sys.stdout.write(f"{options.out}: {tuple(features.shape)}, domains {', '.join(written.domain_names)}\n")


if __name__ == "__main__":
    main()
