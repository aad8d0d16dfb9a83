"""Pooled intermediate layers beside a backbone's features."""

import pytest
import torch
from torch import nn

from hessalign.backbones import Backbone, BackboneSpec, make_backbone
from hessalign.backbones.layers import PooledLayers, with_layers
from hessalign.exceptions import NoEffectWarning

MNIST = BackboneSpec(name="mnist_cnn")


def layered(spec: BackboneSpec, layers: tuple[str, ...], shape: tuple[int, ...]):
    torch.manual_seed(0)
    plain = make_backbone(spec, shape[0]).eval()
    return plain, *with_layers(plain, spec, layers, shape)


def test_columns_are_what_the_layers_give() -> None:
    plain, backbone, columns = layered(MNIST, ("2", "5"), (2, 12, 12))
    assert columns == {"2": (0, 64), "5": (64, 192), "features": (192, 320)}
    assert backbone.width == 320
    images = torch.randn(3, 2, 12, 12)
    with torch.no_grad():
        found = backbone(images)
        modules = nn.ModuleList(plain.network)
        first = nn.Sequential(*modules[:3])(images)
        second = nn.Sequential(*modules[3:6])(first)
        whole = nn.Sequential(*modules[6:])(second)
    expected = torch.cat([first.mean((2, 3)), second.mean((2, 3)), whole], dim=1)
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_stages_of_each_kind_of_network() -> None:
    cases = {
        "mnist_cnn": ((1, 28, 28), ["2", "5", "8"]),
        "resnet18": ((3, 32, 32), ["layer1", "layer2", "layer3"]),
        "timm:test_efficientnet": ((3, 32, 32), None),
        "timm:test_vit": ((3, 160, 160), ["blocks.0", "blocks.1"]),
        "torchvision:mobilenet_v3_small": ((3, 64, 64), None),
    }
    for name, (shape, expected) in cases.items():
        spec = BackboneSpec(name=name)
        with torch.random.fork_rng():
            if name in ("mnist_cnn", "resnet18"):  # whose last stage, pooled, is what they give
                with pytest.warns(NoEffectWarning, match="is what the backbone gives anyway"):
                    _, backbone, columns = layered(spec, ("stages",), shape)
            else:
                _, backbone, columns = layered(spec, ("stages",), shape)
        assert list(columns)[-1] == "features"
        if expected is not None:
            assert list(columns)[: len(expected)] == expected
        assert len(columns) >= 3
        with torch.no_grad():
            assert backbone(torch.rand(2, *shape)).shape == (2, backbone.width)


class Moved(nn.Module):
    """A map with its channels last, as windowed transformers have it."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.permute(0, 2, 3, 1)


class Tuple(nn.Module):
    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return maps, maps


@pytest.mark.parametrize("side", [5, 3])  # of a square with as many channels as places along a side, too
def test_channels_may_come_first_or_last(side: int) -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), Moved(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    pooled = PooledLayers(network, ("0", "1"), (1, side, side))
    images = torch.randn(2, 1, side, side)
    with torch.no_grad():
        expected = network[0](images).mean((2, 3))
        found = pooled(images)
    assert torch.allclose(found[:, :3], expected, atol=1e-6)
    assert torch.allclose(found[:, 3:6], expected, atol=1e-6)


def test_tokens_are_averaged_and_vectors_stay() -> None:
    network = nn.Sequential(nn.Flatten(2), nn.Linear(4, 4), nn.Flatten(), nn.Linear(12, 5), nn.ReLU())
    pooled = PooledLayers(network, ("1", "3"), (3, 2, 2))
    images = torch.randn(6, 3, 2, 2)
    with torch.no_grad():
        expected = [network[:2](images).mean(1), network[:4](images), network(images)]
        assert torch.allclose(pooled(images), torch.cat(expected, dim=1), atol=1e-6)


def test_what_is_no_layer_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="layers: the backbone has no layer 'layer9'; did you mean"):
        layered(BackboneSpec(name="resnet18"), ("layer9",), (3, 32, 32))
    with pytest.raises(ValueError, match=r"layers: 'layer1\.0\.relu' is applied 2 times"):
        layered(BackboneSpec(name="resnet18"), ("layer1.0.relu",), (3, 32, 32))
    identity = BackboneSpec(name="identity")
    with pytest.raises(ValueError, match="layers: 'identity' has no layers between its input and its"):
        with_layers(make_backbone(identity, 4), identity, ("stages",), (4,))
    with pytest.raises(ValueError, match=r"layers: '1' gives tuple; allowed are vectors \(n, c\), tokens"):
        PooledLayers(nn.Sequential(nn.Conv2d(1, 2, 1), Tuple()), ("1",), (1, 4, 4))
    plain = Backbone(nn.Flatten(), 12)
    with pytest.raises(ValueError, match="layers: the stages of 'resnet18' are not known; name modules"):
        with_layers(plain, BackboneSpec(name="resnet18"), ("stages",), (3, 2, 2))


def test_the_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 2))
    pooled = PooledLayers(network, ("0",), (1, 5, 5))
    with pytest.raises(RuntimeError):
        pooled(torch.zeros(1, 1, 6, 6))
    assert not any(module._forward_hooks for module in network.modules())
    with torch.no_grad():
        assert pooled(torch.zeros(1, 1, 5, 5)).shape == (1, 6)
