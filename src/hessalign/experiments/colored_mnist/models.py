"""Trained networks on disk, each with the restart it is of, and what they make of their own data."""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hessalign.experiments.colored_mnist.config import RestartSpec
from hessalign.experiments.colored_mnist.data import make_colored_mnist
from hessalign.experiments.colored_mnist.network import ColoredMLP
from hessalign.files import replacing

KIND = "hessalign Colored MNIST"


@dataclass(frozen=True, eq=False)
class ModelOutputs:
    """What a network makes of the two source domains and the target.

    Attributes:
        features: Input of the head, ``(n, d)``.
        logits: ``(n,)``.
        labels: 0 or 1, ``(n,)``, float32.
        domains: 0 and 1 for the sources, 2 for the target, ``(n,)``.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    domains: Tensor


def save_model(network: ColoredMLP, spec: RestartSpec, path: Path) -> None:
    """Write the weights, and the restart in the file's header, at once.

    Raises:
        OSError: If it cannot be written.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        save_file(weights, draft, metadata={"kind": KIND, "spec": spec.model_dump_json()})


def load_model(path: Path) -> tuple[ColoredMLP, RestartSpec]:
    """The network in evaluation mode, and the restart it is of.

    Raises:
        ValueError: If the file is not such a network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("kind") != KIND:
                raise ValueError(f"{path}: not a network of hessalign cmnist --save-models")
            spec = RestartSpec.model_validate_json(about["spec"])
            network = ColoredMLP(spec.hidden, torch.Generator())
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValidationError, RuntimeError) as error:
        raise ValueError(f"{path}: cannot be read as a network of hessalign cmnist ({error})") from error
    return network.eval(), spec


@torch.no_grad()
def model_outputs(network: ColoredMLP, spec: RestartSpec, per_domain: int | None) -> ModelOutputs:
    """Features and logits on the data that the restart was trained and tested on, drawn again from its seed.

    Args:
        network: In evaluation mode.
        spec: Gives split and seed.
        per_domain: At most so many random images of each domain; None for all.
    """
    data = make_colored_mnist(spec.split, torch.Generator().manual_seed(spec.seed), spec.subsample)
    draws = torch.Generator().manual_seed(0)
    parts = []
    for number, images in enumerate((*data.sources, data.target)):
        features, logits = network(images)
        chosen = torch.randperm(len(logits), generator=draws)[:per_domain]
        domain = torch.full((len(chosen),), number)
        parts.append((features[chosen], logits[chosen], images.labels[chosen], domain))
    return ModelOutputs(*map(torch.cat, zip(*parts, strict=True)))
