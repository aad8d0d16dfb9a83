"""The multi-layer perceptron of the Colored MNIST experiment: made, saved with its restart, and looked at."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hessalign.experiments.colored_mnist.config import RestartSpec
from hessalign.experiments.colored_mnist.data import PIXELS, ColoredImages, make_colored_mnist
from hessalign.files import write_atomically
from hessalign.runs.seals import sha256

KIND = "hessalign Colored MNIST"
# Images handled together on a processor: activations of a group stay in its cache, which makes the matrix
# products about 1.5 times as fast as one call over the whole domain. A GPU wants large products instead.
IMAGES_IN_CACHE = 2500
# Matrix products are faster over a multiple of eight units: layers are filled up with units that stay zero.
WIDTH_MULTIPLE = 8


class ColoredMLP(nn.Module):
    """392 – hidden – hidden – 1 with ReLU; Xavier-uniform weights, zero biases.

    Args:
        hidden: Width of both hidden layers, the head's number of features.
        generator: Source of the initial weights, on the CPU.
    """

    def __init__(self, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Linear(2 * PIXELS, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 1)
        for layer in (self.first, self.second, self.head):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, images: ColoredImages) -> tuple[Tensor, Tensor]:
        """Features ``(n, hidden)`` and logits ``(n,)``, in the order of the images."""
        hidden = self.head.in_features
        added = -hidden % WIDTH_MULTIPLE
        first_bias = F.pad(self.first.bias, (0, added))
        second, second_bias = F.pad(self.second.weight, (0, added) * 2), F.pad(self.second.bias, (0, added))
        groups = []
        # The columns of the first layer that belong to an image's empty channel, and those of pixels that are
        # dark in all images, add nothing: leave them out.
        for pixels, weight in zip(images.by_colour(), self.first.weight.split(PIXELS, dim=1), strict=True):
            lit = F.pad(weight[:, images.columns], (0, 0, 0, added))
            together = IMAGES_IN_CACHE if pixels.device.type == "cpu" else max(1, len(pixels))
            for group in pixels.split(together):
                activations = F.linear(group, lit, first_bias).relu_()
                groups.append(F.linear(activations, second, second_bias).relu_())
        features = torch.cat(groups)[:, :hidden]
        return features, self.head(features).squeeze(1)


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

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, load_model, run_restart, save_model
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "network.safetensors"
        ...     record = run_restart(
        ...         spec, torch.device("cpu"), keep=lambda network: save_model(network, spec, path)
        ...     )
        ...     network, found = load_model(path)
        >>> found == spec, network.training
        (True, False)
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made in memory first: on a full disk the library's own writer raises an error of its own.
    about = {"kind": KIND, "spec": spec.model_dump_json(), "sha256": _digest(weights, spec)}
    write_atomically(path, save(weights, metadata=about))


def load_model(path: Path) -> tuple[ColoredMLP, RestartSpec]:
    """The network in evaluation mode, and the restart it is of.

    Returns:
        Network and restart.

    Raises:
        ValueError: If the file is not such a network.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, load_model, run_restart, save_model
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "network.safetensors"
        ...     record = run_restart(
        ...         spec, torch.device("cpu"), keep=lambda network: save_model(network, spec, path)
        ...     )
        ...     network, found = load_model(path)
        >>> found == spec, network.training
        (True, False)
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("kind") != KIND:
                raise ValueError(f"{path}: not a network of hessalign cmnist --save-models")
            spec = RestartSpec.model_validate_json(about["spec"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about.get("sha256", _digest(weights, spec)) != _digest(weights, spec):
            raise ValueError(f"{path}: is damaged: its SHA-256 differs from the recorded one")
        network = ColoredMLP(spec.hidden, torch.Generator())
        network.load_state_dict(weights)
    except (SafetensorError, OSError, KeyError, ValidationError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: cannot be read as a network of hessalign cmnist ({reason})") from error
    return network.eval(), spec


def _digest(weights: dict[str, Tensor], spec: RestartSpec) -> str:
    """Of what a file says; files from before there was one have none."""
    return sha256(save(weights, metadata={"spec": spec.model_dump_json()}))


@torch.no_grad()
def model_outputs(network: ColoredMLP, spec: RestartSpec, per_domain: int | None) -> ModelOutputs:
    """Features and logits on the data that the restart was trained and tested on, drawn again from its seed.

    Args:
        network: In evaluation mode.
        spec: Gives split and seed.
        per_domain: At most so many random images of each domain; None for all.

    Returns:
        Features, logits, labels and domains of all images, the domains one after another.

    Examples:
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, model_outputs, run_restart
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> networks = []
        >>> record = run_restart(spec, torch.device("cpu"), keep=networks.append)
        >>> outputs = model_outputs(networks[0].eval(), spec, per_domain=5)
        >>> outputs.features.shape, outputs.domains.bincount().tolist()
        (torch.Size([15, 4]), [5, 5, 5])
    """
    data = make_colored_mnist(spec.split, torch.Generator().manual_seed(spec.seed), spec.subsample)
    draws = torch.Generator().manual_seed(0)
    outputs = []
    for number, images in enumerate((*data.sources, data.target)):
        features, logits = network(images)
        chosen = torch.randperm(len(logits), generator=draws)[:per_domain]
        domain = torch.full((len(chosen),), number)
        outputs.append((features[chosen], logits[chosen], images.labels[chosen], domain))
    return ModelOutputs(*map(torch.cat, zip(*outputs, strict=True)))
