"""Intermediate layers of a frozen network, pooled and side by side with the features that it gives."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hessalign.backbones.base import Backbone, BackboneSpec
from hessalign.backbones.networks import MnistCnn
from hessalign.checks import did_you_mean
from hessalign.exceptions import NoEffectWarning

STAGES = "stages"
"""Stands for the layers after which a network changes its resolution, or its blocks."""
FEATURES = "features"
"""What the network's own features are called among the columns."""


class PooledLayers(nn.Module):
    """A network that gives its layers, each pooled, and then its own features: ``(n, c₁ + … + d)``.

    A map ``(n, c, h, w)``, or ``(n, h, w, c)``, is averaged over its places, tokens ``(n, t, c)`` over the
    tokens; a vector ``(n, c)`` stays. The network itself is left as it was.

    Args:
        network: Maps images to ``(n, d)``.
        layers: Names of modules, as ``network.named_modules()`` has them.
        input_shape: ``(channels, height, width)`` of an image.

    Attributes:
        columns: First column and the one after the last of each layer, and of the network's own ``features``.

    Raises:
        ValueError: If the network has no such module, or one is not applied exactly once, or it gives
            anything else.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        modules = dict(network.named_modules())
        unknown = [name for name in layers if name not in modules or not name]
        if unknown:
            raise ValueError(
                f"layers: the backbone has no layer {unknown[0]!r}{did_you_mean(unknown[0], [*modules])}; "
                f"allowed are {STAGES!r} or names of its modules, such as "
                f"{', '.join(map(repr, _examples(modules)))}"
            )
        self.layers = tuple(layers)
        self._places: dict[str, tuple[int, ...]] = {}
        self.columns = self._measured(input_shape)

    def _measured(self, input_shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
        """The columns of one drawn image; a layer that is the features over again has none."""
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, *input_shape, generator=generator)
        with torch.no_grad():
            seen, features = self._passed(image)
            unclear = [output for output in seen.values() if _places(output) is None]
            channels, height, width = input_shape
            wide = torch.rand(1, channels, height, 2 * width, generator=generator)
            seen_wide = self._passed_or_nothing(wide) if any(map(_is_map, unclear)) else {}
            for name, output in seen.items():
                told = _places(output, seen_wide[name]) if name in seen_wide else _places(output)
                if told is None:
                    raise ValueError(
                        f"layers: {name!r} gives {_shape(output)}; allowed are vectors (n, c), tokens "
                        "(n, t, c), and maps (n, c, h, w) or (n, h, w, c)"
                    )
                self._places[name] = told
            found = {name: _mean(output, self._places[name]) for name, output in seen.items()}
        same = [
            name
            for name in self.layers
            if found[name].shape == features.shape and torch.allclose(found[name], features, rtol=1e-4)
        ]
        if same:
            warnings.warn(
                f"layers: {', '.join(map(repr, same))}, pooled, is what the backbone gives anyway, and is "
                "left out",
                NoEffectWarning,
                stacklevel=4,
            )
        self.layers = tuple(name for name in self.layers if name not in same)
        columns, start = {}, 0
        for name, values in (*((name, found[name]) for name in self.layers), (FEATURES, features)):
            columns[name] = (start, start + values.shape[1])
            start = columns[name][1]
        return columns

    def _passed(self, images: Tensor) -> tuple[dict[str, Any], Tensor]:
        """What each layer gave, and the features."""
        seen: dict[str, list[Any]] = {name: [] for name in self.layers}
        hooks = [
            self.network.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, outputs=outputs: outputs.append(output)
            )
            for name, outputs in seen.items()
        ]
        try:
            features = self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        for name, outputs in seen.items():
            if len(outputs) != 1:
                raise ValueError(
                    f"layers: {name!r} is applied {len(outputs)} times to an image, and must be once"
                )
        return {name: outputs[0] for name, outputs in seen.items()}, features

    def _passed_or_nothing(self, images: Tensor) -> dict[str, Any]:
        """The same of images that the network may not take; nothing where it does not."""
        try:
            return self._passed(images)[0]
        except (AssertionError, RuntimeError):
            return {}

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(n, width)`` of images ``(n, c, h, w)``."""
        seen, features = self._passed(images)
        pooled = [_mean(seen[name], self._places[name]) for name in self.layers]
        return torch.cat([*pooled, features], dim=1)


def _places(output: Any, of_wider: Any = None) -> tuple[int, ...] | None:
    """Axes of a layer's output to average over; None where they cannot be told from its channels.

    Height and width of a square map are the two axes that are alike. Where all three are, or none, the output
    of a wider image tells: its width alone is another.

    Returns:
        The axes, none for a vector.
    """
    if not isinstance(output, Tensor) or not 2 <= output.ndim <= 4:
        return None
    if output.ndim < 4:
        return (1,) if output.ndim == 3 else ()
    first, middle, last = output.shape[1:]
    if of_wider is not None:
        changed = [axis for axis in (1, 2, 3) if output.shape[axis] != of_wider.shape[axis]]
        return {3: (2, 3), 2: (1, 2)}.get(changed[0]) if len(changed) == 1 else None
    if (middle == last) == (first == middle):
        return None
    return (2, 3) if middle == last else (1, 2)


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4


def _mean(output: Tensor, places: tuple[int, ...]) -> Tensor:
    return output.mean(places) if places else output


def _shape(output: Any) -> object:
    return tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__


def stages(spec: BackboneSpec, network: nn.Module) -> tuple[str, ...]:
    """Names of the modules that ``"stages"`` stands for.

    Those that timm knows of its networks, ``layer1`` to ``layer4`` of torchvision's ResNets, the modules in
    ``features`` of most others of torchvision's, the four blocks of ``mnist_cnn``.

    Args:
        spec: The backbone's choices.
        network: Its network.

    Returns:
        The names, from the input to the output.

    Raises:
        ValueError: If none are known.
    """
    modules = dict(network.named_modules())
    known: Any = getattr(network, "feature_info", None)
    if known:
        return tuple(stage["module"] for stage in known)
    if isinstance(network, MnistCnn):
        return network.stages
    layers = tuple(name for name in ("layer1", "layer2", "layer3", "layer4") if name in modules)
    if not layers and isinstance(modules.get("features"), nn.Sequential):
        layers = tuple(f"features.{name}" for name, _ in modules["features"].named_children())
    if not layers:
        raise ValueError(
            f"layers: the stages of {spec.name!r} are not known; name modules of its network, such as "
            f"{', '.join(map(repr, _examples(modules)))}"
        )
    return layers


def with_layers(
    backbone: Backbone, spec: BackboneSpec, layers: Sequence[str], input_shape: tuple[int, ...]
) -> tuple[Backbone, dict[str, tuple[int, int]]]:
    """A backbone that gives its layers, pooled, before its own features; in evaluation mode.

    Args:
        backbone: As [make_backbone][hessalign.backbones.make_backbone] makes it.
        spec: The choices that made it.
        layers: ``("stages",)``, or names of its network's modules.
        input_shape: ``(channels, height, width)`` of an image.

    Returns:
        The backbone, and the first column and the one after the last of each layer, in order.

    Raises:
        ValueError: If the backbone is one of features, or lacks such a layer.
    """
    if spec.takes_features:
        raise ValueError(f"layers: {spec.name!r} has no layers between its input and its features")
    names = [
        name for given in layers for name in (stages(spec, backbone.network) if given == STAGES else (given,))
    ]
    network = backbone.network.eval()
    size = input_shape[1:]
    if backbone.preparation is not None and backbone.preparation.needs.size is not None:
        size = backbone.preparation.needs.size
    pooled = PooledLayers(network, tuple(dict.fromkeys(names)), (input_shape[0], *size))
    width = max(end for _, end in pooled.columns.values())
    layered = Backbone(pooled, width, preparation=backbone.preparation)
    return layered.eval(), pooled.columns


def _examples(modules: dict[str, nn.Module]) -> list[str]:
    names = [name for name in modules if name]
    return names[:: max(1, len(names) // 3)][:4]
