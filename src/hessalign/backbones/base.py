"""What a backbone is, the choices that make one, and the making."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from hessalign import backbones
from hessalign.backbones.networks import (
    ADAPTERS,
    DEFAULT_RANK,
    MNIST_CNN,
    Adapter,
    InputNeeds,
    MnistCnn,
    Preparation,
)
from hessalign.backbones.weights import FILE_SUFFIXES, file_sha256, load_state, read_state
from hessalign.checks import did_you_mean
from hessalign.exceptions import HessalignWarning

RESNETS = ("resnet18", "resnet50")
LIBRARIES = ("timm", "torchvision")
SOURCES = ("none", "hub", "package")
IDENTITY = "identity"
OWN_NETWORKS = (MNIST_CNN, IDENTITY, *ADAPTERS)
"""Networks that there are no published weights of."""


class BackboneSpec(BaseModel):
    """The choices that make a backbone; they belong in the record of a run.

    Attributes:
        name: ``"mnist_cnn"``, ``"resnet18"`` or ``"resnet50"`` (torchvision's, as in DomainBed's published
            tables), ``"timm:NAME"`` or ``"torchvision:NAME"``. For data that are features already:
            ``"identity"``, ``"adapter:linear"`` or ``"adapter:mlp"``.
        weights: ``"none"`` (default) for random ones, ``"hub"`` for those that the library downloads
            (ImageNet V1 for ``resnet18`` and ``resnet50``, torchvision's default or timm's tag otherwise),
            ``"package"`` for those of an installed package, or the path of a ``.safetensors``, ``.pth`` or
            ``.pt`` file.
        weights_sha256: Hash of the weights file, so that a run can be told from others wherever the file
            lies; empty (default) if it does not matter. ``make_backbone`` refuses a file with another one.
        frozen_batch_norm: Keep every BatchNorm in eval mode for ever: its running statistics stay, its affine
            weights are trained. By default True with pretrained weights, as in the published tables, and
            False with random ones.
        dropout: Probability of dropping a feature in training, 0 to 1; 0 by default.
        normalization: Which mean and deviation images are normalised by. ``"imagenet"`` (default):
            ImageNet's, whatever the weights, as in DomainBed. ``"weights"``: those that the weights were
            trained with, which differ for some of timm's. The default is left out of records, where it is
            what the absence means.
        rank: Rank of an adapter, at least 1 and at most the number of features; 16 by default, None for all
            other backbones.

    Raises:
        ValueError: Naming the field that is unknown or not allowed.

    Examples:
        >>> from hessalign.backbones import BackboneSpec
        >>> BackboneSpec(name="resnet18").weights
        'none'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    weights: Literal["none", "hub", "package"] | Path = "none"
    weights_sha256: str = ""
    frozen_batch_norm: bool = False
    dropout: float = Field(0.0, ge=0, le=1)
    normalization: Literal["imagenet", "weights"] = "imagenet"
    rank: int | None = Field(None, ge=1)

    @property
    def takes_features(self) -> bool:
        """Whether inputs are feature vectors rather than images."""
        return self.name in (IDENTITY, *ADAPTERS)

    def check_takes(self, input_shape: tuple[int, ...]) -> None:
        """Refuse inputs of the wrong kind.

        Args:
            input_shape: ``(channels, height, width)`` of an image, or ``(d,)`` of a feature vector.

        Raises:
            ValueError: If a network for images is to take feature vectors, or the other way round.
        """
        features = len(input_shape) == 1
        if features == self.takes_features:
            return
        allowed = ", ".join((IDENTITY, *ADAPTERS)) if features else "networks for images"
        raise ValueError(
            f"backbone: {self.name!r} does not take the dataset's inputs, which are "
            f"{'feature vectors' if features else 'images'} of shape {input_shape}; allowed are {allowed}"
        )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        filled = dict(given)
        if filled.get("weights", "none") != "none":  # the statistics that come with weights are worth keeping
            filled.setdefault("frozen_batch_norm", True)
        if filled.get("name") in ADAPTERS and filled.get("rank") is None:
            filled["rank"] = DEFAULT_RANK
        return filled

    @model_validator(mode="after")
    def _rank_belongs_to_adapters(self) -> Self:
        if self.rank is not None and self.name not in ADAPTERS:
            raise ValueError(f"rank: {self.name!r} has none; only {' and '.join(map(repr, ADAPTERS))} do")
        return self

    @model_validator(mode="after")
    def _weights_have_a_normalization(self) -> Self:
        if self.normalization == "weights" and (self.name in OWN_NETWORKS or self.weights == "none"):
            raise ValueError(
                f"normalization: {self.name!r} with weights {str(self.weights)!r} has no mean and deviation "
                "of its own; allowed is 'imagenet'"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_the_default(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs from before there was the choice stay the same runs."""
        fields: dict[str, Any] = write(self)
        if fields.get("normalization") == "imagenet":
            del fields["normalization"]
        return fields

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str) -> str:
        library, _, model = name.partition(":")
        named = (MNIST_CNN, *RESNETS, IDENTITY, *ADAPTERS)
        if name not in named and not (library in LIBRARIES and model):
            raise ValueError(
                f"name: {name!r} is not known; allowed are "
                f"{', '.join(map(repr, named))}, 'timm:NAME' and 'torchvision:NAME'"
                f"{did_you_mean(name, named)}"
            )
        return name

    @field_validator("weights", mode="before")
    @classmethod
    def _known_weights(cls, weights: Any) -> Any:
        named = isinstance(weights, str | Path) and (
            weights in SOURCES or Path(weights).suffix in FILE_SUFFIXES
        )
        if not named:
            raise ValueError(
                f"weights: {str(weights)!r} is not known; allowed are {', '.join(map(repr, SOURCES))} "
                f"or the path of a {', '.join(FILE_SUFFIXES)} file"
            )
        return str(weights)  # the only kind of path that pydantic takes from Python and from JSON


class Backbone(nn.Module):
    """A network that maps images, or given features, to features, with dropout behind it.

    Args:
        network: Maps ``(n, c, h, w)``, or ``(n, d)``, to ``(n, width)``.
        width: Number of features.
        frozen_batch_norm: Keep every BatchNorm in eval mode, whatever mode the backbone is set to.
        dropout: Probability of dropping a feature in training.
        preparation: Applied to images before the network; None for none.

    Attributes:
        network: The network alone.
        width: Number of features.
        apply_network: How the network is applied to inputs; plainly by default. A training run on several
            processes spreads the inputs over them here.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from hessalign.backbones import Backbone
        >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), pool)
        >>> backbone = Backbone(network, width=5, frozen_batch_norm=True).train()
        >>> backbone(torch.zeros(2, 3, 8, 8)).shape, network[1].training
        (torch.Size([2, 5]), False)
    """

    def __init__(
        self,
        network: nn.Module,
        width: int,
        *,
        frozen_batch_norm: bool = False,
        dropout: float = 0.0,
        preparation: Preparation | None = None,
    ) -> None:
        super().__init__()
        self.preparation = preparation
        self.network = network
        self.width = width
        self.frozen_batch_norm = frozen_batch_norm
        self.dropout = nn.Dropout(dropout)
        self.apply_network: Callable[[nn.Module, Tensor], Tensor] = nn.Module.__call__
        self.train()

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode; a frozen BatchNorm stays in eval mode."""
        super().train(mode)
        if self.frozen_batch_norm:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Features ``(n, width)`` of images ``(n, c, h, w)`` or given features ``(n, d)``.

        Returns:
            ``(n, width)``.

        Raises:
            ValueError: If the network gives anything else, or does not take inputs of such a shape.
            RuntimeError: If the network fails for another reason, want of memory say.
        """
        if self.preparation is not None:
            inputs = self.preparation(inputs)
        try:
            features = self.apply_network(self.network, inputs)
        except AssertionError as error:
            _refuse_shape(inputs, error)
        except RuntimeError as error:
            if _takes_shape(self.network, inputs):
                raise
            _refuse_shape(inputs, error)
        if not isinstance(features, Tensor) or features.shape[1:] != (self.width,):
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"name: the network gave {found} instead of features (n, {self.width})")
        dropped: Tensor = self.dropout(features)
        return dropped


def _refuse_shape(inputs: Tensor, error: Exception) -> NoReturn:
    reason = next(iter(str(error).splitlines()), "an assertion of the network failed")
    raise ValueError(
        f"name: the network does not take inputs of shape {tuple(inputs.shape[1:])} ({reason})"
    ) from None


def _takes_shape(network: nn.Module, inputs: Tensor) -> bool:
    """Whether inputs of this shape pass the network, tried without a number being computed."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    state = {name: value.to("meta") for name, value in tensors}
    try:
        with torch.no_grad():
            functional_call(network, state, (inputs.to("meta"),))
    except (AssertionError, RuntimeError):
        return False
    return True


def make_backbone(spec: BackboneSpec, input_channels: int) -> Backbone:
    """The backbone of a spec.

    Random weights come from torch's global generator.

    Args:
        spec: The choices.
        input_channels: Channels of the images. For another number than 3, channel ``i`` of the first
            convolution gets the weights of channel ``i mod 3`` of the three-channel network, as in DomainBed;
            ``mnist_cnn`` is built for any number. For ``identity`` and adapters the number of features.

    Returns:
        The network with what belongs before and behind it, in training mode.

    Raises:
        ValueError: If there is no such model, it does not have such weights, the weights do not fit or are
            not the recorded ones, or it cannot take that many channels.
        OSError: If a file is missing or damaged, or a download fails.

    Examples:
        >>> import torch
        >>> from hessalign.backbones import BackboneSpec, make_backbone
        >>> backbone = make_backbone(BackboneSpec(name="mnist_cnn"), input_channels=2)
        >>> backbone(torch.zeros(4, 2, 28, 28)).shape, backbone.width
        (torch.Size([4, 128]), 128)
    """
    if isinstance(input_channels, bool) or not isinstance(input_channels, int) or input_channels < 1:
        raise ValueError(f"input_channels: {input_channels!r} is not allowed; it must be an integer ≥ 1")
    if isinstance(spec.weights, Path) and spec.weights_sha256 not in ("", file_sha256(spec.weights)):
        raise ValueError(
            f"weights: the content of {spec.weights} has changed; allowed is the file with the SHA-256 "
            f"{spec.weights_sha256}"
        )
    network, width, needs = _network(spec, input_channels)
    return Backbone(
        network,
        width,
        frozen_batch_norm=spec.frozen_batch_norm,
        dropout=spec.dropout,
        preparation=_preparation(spec, needs, input_channels),
    )


def _preparation(spec: BackboneSpec, needs: InputNeeds, input_channels: int) -> Preparation | None:
    own = spec.normalization == "weights"
    if own and input_channels != 3:
        raise ValueError(
            f"normalization: 'weights' is for images of 3 channels, got {input_channels}; "
            "allowed is 'imagenet'"
        )
    unasked = "normalization" not in spec.model_fields_set and spec.weights != "none" and input_channels == 3
    if unasked and needs.differs:
        warnings.warn(
            f"the weights of {spec.name!r} were trained on images normalised by mean {needs.mean} and "
            f"deviation {needs.std}, and get ImageNet's, as in DomainBed; choose normalization 'weights' for "
            "their own, or 'imagenet' to keep it so without this warning",
            HessalignWarning,
            stacklevel=3,
        )
    return Preparation(needs, own) if own or needs.size is not None else None


def _network(spec: BackboneSpec, input_channels: int) -> tuple[nn.Module, int, InputNeeds]:
    if spec.name == IDENTITY:
        if spec.weights != "none":
            raise ValueError(f"weights: 'identity' has none, got {str(spec.weights)!r}; allowed is 'none'")
        return nn.Identity(), input_channels, InputNeeds()
    if spec.name not in OWN_NETWORKS:
        return backbones.pretrained.pretrained_network(spec.name, spec.weights, input_channels)
    if spec.weights in ("hub", "package"):
        raise ValueError(f"weights: {spec.name} has none in a {spec.weights}; allowed are 'none' or a file")
    state = read_state(spec.weights) if isinstance(spec.weights, Path) else None
    network, width = _own_network(spec, input_channels)
    if state is not None:
        load_state(network, state, classifiers=(), source=str(spec.weights))
    return network, width, InputNeeds()


def _own_network(spec: BackboneSpec, input_channels: int) -> tuple[nn.Module, int]:
    if spec.rank is not None:
        return Adapter(spec.name, input_channels, spec.rank), input_channels
    return MnistCnn(input_channels), MnistCnn.width
