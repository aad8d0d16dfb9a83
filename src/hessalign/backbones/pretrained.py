"""Networks of torchvision and timm without their classifiers."""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from torch import nn

from hessalign.backbones.networks import InputNeeds
from hessalign.backbones.weights import load_in_order, load_state, package_file, read_state

# Their published weights are the first ones of torchvision, which DomainBed's tables were made with.
PUBLISHED = {"resnet18": "IMAGENET1K_V1", "resnet50": "IMAGENET1K_V1"}
CLASSES = 1000
# Networks of torchvision that take images of one size and do not tell which.
FIXED_SIZES = {"maxvit_t": 224}
# These have further classifiers half-way, which only training with them needs.
AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}


class Network(NamedTuple):
    """A network without its classifier.

    Attributes:
        module: Maps ``(n, 3, h, w)`` to ``(n, width)``.
        width: Number of features.
        classifiers: Names of the modules it lost.
        inputs: What images it wants.
    """

    module: nn.Module
    width: int
    classifiers: tuple[str, ...]
    inputs: InputNeeds


def pretrained_network(
    name: str, weights: str | Path, input_channels: int
) -> tuple[nn.Module, int, InputNeeds]:
    """A network, its number of features, and what images it wants.

    Args:
        name: ``"resnet18"``, ``"resnet50"``, ``"timm:NAME"`` or ``"torchvision:NAME"``.
        weights: ``"none"``, ``"hub"``, ``"package"`` or the path of a file.
        input_channels: Channels of the images.

    Returns:
        Module, number of features, and needs.

    Raises:
        ValueError: If there is no such model, it does not have such weights, the weights do not fit, or it
            cannot take that many channels.
        OSError: If a file is missing or damaged, or a download fails.
    """
    library, _, model = name.partition(":") if ":" in name else ("torchvision", "", name)
    build = _timm_builder(model) if library == "timm" else _torchvision_builder(model, PUBLISHED.get(name))
    path = package_file(name) if weights == "package" else weights
    state = read_state(path) if isinstance(path, Path) else None
    network = build(weights == "hub")
    if state is not None and weights == "package":
        load_in_order(network.module, state, source=str(path))
    elif state is not None:
        load_state(network.module, state, network.classifiers, source=str(path))
    if input_channels != 3:
        _adapt_channels(network.module, name, input_channels)
    return network.module, network.width, network.inputs


def _timm_builder(model: str) -> Callable[[bool], Network]:
    if not timm.is_model(model):
        raise _unknown(f"timm:{model}", timm.list_models(), "timm.list_models()")
    tags = timm.list_pretrained(f"{model.partition('.')[0]}.*")
    if "." in model and model not in tags:
        raise _unknown(f"timm:{model}", tags, f"timm.list_pretrained('{model.partition('.')[0]}.*')")

    def build(hub: bool) -> Network:
        if hub and not timm.is_model_pretrained(model):
            raise ValueError(f"weights: timm has none of {model!r} in its hub; allowed are 'none' or a file")
        module: Any = (
            _download(model, lambda: timm.create_model(model, pretrained=True, num_classes=0))
            if hub
            else timm.create_model(model, num_classes=0)
        )
        classifier = module.pretrained_cfg.get("classifier") or ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        return Network(module, module.head_hidden_size, names, _timm_needs(model, module.pretrained_cfg))

    return build


def _torchvision_builder(model: str, published: str | None) -> Callable[[bool], Network]:
    models = torchvision.models.list_models(module=torchvision.models)
    if model not in models:
        raise _unknown(f"torchvision:{model}", models, "torchvision.models.list_models()")

    def build(hub: bool) -> Network:
        auxiliary = AUXILIARY.get(model, ())
        # torchvision warns unless the initialisation of these models is asked for.
        options: dict[str, Any] = {"init_weights": True} if auxiliary and not hub else {}
        if hub:
            weights = torchvision.models.get_model_weights(model)[published or "DEFAULT"]
            # The download comes first, so that only its failure counts as one, and reads tensors alone.
            _download(
                model, lambda: weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
            )
            options["weights"] = weights
        module = torchvision.models.get_model(model, **options)
        if auxiliary:
            module.aux_logits = False
            for name in auxiliary:
                setattr(module, name, None)
        width, classifier = _remove_classifier(module, model)
        return Network(module, width, (classifier, *auxiliary), _torchvision_needs(module, model, published))

    return build


def _timm_needs(model: str, config: dict[str, Any]) -> InputNeeds:
    height, width = config["input_size"][-2:]
    fixed = config.get("fixed_input_size") and not _takes_other_sizes(model, height)
    return InputNeeds(tuple(config["mean"]), tuple(config["std"]), (height, width) if fixed else None)


def _takes_other_sizes(model: str, own: int) -> bool:
    """Whether a network that timm calls one of a fixed size takes another all the same; some do.

    Tried without a number being computed.

    Returns:
        Whether it does.
    """
    other = 224 if own != 224 else 448
    try:
        with torch.device("meta"), torch.no_grad(), torch.random.fork_rng(devices=()):
            timm.create_model(model, num_classes=0).eval()(torch.zeros(1, 3, other, other))
    except Exception:  # of many kinds, some of them only assertions
        return False
    return True


def _torchvision_needs(module: nn.Module, model: str, published: str | None) -> InputNeeds:
    side = getattr(module, "image_size", FIXED_SIZES.get(model))  # of a vision transformer
    size = None if side is None else (int(side), int(side))
    known = torchvision.models.get_model_weights(model)
    if not len(known):
        return InputNeeds(size=size)
    transform = known[published or "DEFAULT"].transforms()
    return InputNeeds(tuple(transform.mean), tuple(transform.std), size)


def _remove_classifier(module: nn.Module, model: str) -> tuple[int, str]:
    """Replace the classifier, and a dropout right before it, by the identity; its input features and name."""
    linears = [(name, inner) for name, inner in module.named_modules() if isinstance(inner, nn.Linear)]
    if not linears or linears[-1][1].out_features != CLASSES:
        raise ValueError(
            f"name: 'torchvision:{model}' does not end in a linear classifier of {CLASSES} classes, "
            "so it has no features to give"
        )
    name, linear = linears[-1]
    parent_name, _, leaf = name.rpartition(".")
    parent = module.get_submodule(parent_name)
    siblings = [sibling for sibling, _ in parent.named_children()]
    removed = [leaf]
    # A dropout right before the classifier belongs to it; the backbone's own takes its place.
    if (place := siblings.index(leaf)) and isinstance(parent.get_submodule(siblings[place - 1]), nn.Dropout):
        removed.append(siblings[place - 1])
    for sibling in removed:
        setattr(parent, sibling, nn.Identity())
    return linear.in_features, name


def _adapt_channels(module: nn.Module, name: str, input_channels: int) -> None:
    """Let channel ``i`` of the first convolution have the weights of channel ``i mod 3``."""
    convolutions = [
        inner
        for inner in module.modules()
        if isinstance(inner, nn.Conv2d) and inner.in_channels == 3 and inner.groups == 1
    ]
    # A network that standardises its three channels itself cannot take another number of them.
    if len(convolutions) != 1 or getattr(module, "transform_input", False):
        raise ValueError(
            f"input_channels: {input_channels} is not allowed for {name!r}, which does not begin with one "
            "convolution of 3 channels; allowed is 3"
        )
    (first,) = convolutions
    copies = [channel % 3 for channel in range(input_channels)]
    first.weight = nn.Parameter(first.weight.detach()[:, copies].clone())
    first.in_channels = input_channels


def _download(model: str, fetch: Callable[[], Any]) -> Any:
    """What the library fetches.

    Returns:
        Whatever ``fetch`` returns.

    Raises:
        OSError: Whatever went wrong, for the libraries do not share an exception for it.
    """
    try:
        with redirect_stdout(sys.stderr):  # where PyTorch's hub tells what it does, and results go
            return fetch()
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise OSError(
            f"weights: those of {model!r} could not be fetched from the hub ({reason}); give the path of a "
            "downloaded file instead"
        ) from None


def _unknown(name: str, known: list[str], listing: str) -> ValueError:
    library, _, model = name.partition(":")
    near = get_close_matches(model, known)
    suggestion = f"did you mean {' or '.join(near)}? " if near else ""
    return ValueError(f"name: {name!r} is not known; {suggestion}{listing} names all that {library} has")
