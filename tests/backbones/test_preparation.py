"""What networks want of their images: mean, deviation and size."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import v2

from hessalign.algorithms import get_algorithm
from hessalign.backbones import Backbone, BackboneSpec, make_backbone, networks
from hessalign.datasets import get_dataset, image_reading
from hessalign.datasets.image_reading import plain_transform
from hessalign.exceptions import HessalignWarning
from hessalign.training import RunSpec, choose_backbone
from tests.training.tiny_domains import tiny_spec

ONE_SIZE = "test_vit_relpos"
needs_one_size = pytest.mark.skipif(
    ONE_SIZE not in timm.list_models(), reason=f"timm {timm.__version__} has no {ONE_SIZE}"
)
LITE0 = {"name": "timm:tf_efficientnet_lite0", "weights": "package"}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_datasets_and_backbones_mean_the_same_imagenet() -> None:
    assert networks.IMAGENET_MEAN == image_reading.IMAGENET_MEAN
    assert networks.IMAGENET_STD == image_reading.IMAGENET_STD


def test_the_weights_own_normalization_is_what_timm_does(photo: Image.Image) -> None:
    backbone = make_backbone(BackboneSpec(**LITE0, normalization="weights"), 3).eval()
    config = timm.get_pretrained_cfg("tf_efficientnet_lite0")
    own = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(config.mean, config.std)]
    )
    with torch.no_grad():
        expected = backbone.network(own(photo).unsqueeze(0))
        torch.testing.assert_close(
            backbone(plain_transform()(photo).unsqueeze(0)), expected, rtol=1e-4, atol=1e-4
        )
        plain = make_backbone(BackboneSpec(**LITE0, normalization="imagenet"), 3).eval()
        unlike = plain(plain_transform()(photo).unsqueeze(0))
    assert (unlike - expected).norm() > 0.3 * expected.norm()
    assert backbone.state_dict().keys() == plain.state_dict().keys()


def test_a_difference_that_nobody_chose_is_told() -> None:
    with pytest.warns(HessalignWarning, match=r"trained on images normalised by mean \(0.5, 0.5, 0.5\)"):
        make_backbone(BackboneSpec(**LITE0), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_backbone(BackboneSpec(**LITE0, normalization="imagenet"), 3)
        make_backbone(BackboneSpec(**LITE0, normalization="weights"), 3)


def test_the_default_leaves_runs_what_they_were() -> None:
    old = {"name": "resnet18", "weights": "hub", "frozen_batch_norm": True, "dropout": 0.0, "rank": None}
    old["weights_sha256"] = ""
    spec = BackboneSpec(name="resnet18", weights="hub")
    assert spec.model_dump(mode="json") == old
    assert BackboneSpec(**old) == spec == choose_backbone_of("resnet18", "imagenet")
    chosen = choose_backbone_of("resnet18", "weights")
    assert chosen.model_dump(mode="json") == {**old, "normalization": "weights"}
    runs = [
        tiny_spec(backbone=backbone)
        for backbone in (spec, choose_backbone_of("resnet18", "imagenet"), chosen)
    ]
    assert runs[0].identity() == runs[1].identity() != runs[2].identity()
    assert RunSpec.model_validate_json(runs[2].model_dump_json()) == runs[2]


def choose_backbone_of(name: str, normalization: str) -> BackboneSpec:
    return choose_backbone(get_dataset("pacs"), name, "hub", normalization=normalization)


@pytest.mark.parametrize(
    ("choices", "channels", "message"),
    [
        ({"name": "mnist_cnn"}, 3, "normalization: 'mnist_cnn' with weights 'none' has no mean"),
        ({"name": "identity"}, 3, "normalization: 'identity' with weights 'none' has no mean"),
        ({"name": "resnet18"}, 3, "normalization: 'resnet18' with weights 'none' has no mean"),
        ({**LITE0}, 2, "normalization: 'weights' is for images of 3 channels, got 2"),
    ],
)
def test_a_normalization_that_is_nowhere_is_refused(choices: dict, channels: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_backbone(BackboneSpec(**choices, normalization="weights"), channels)
    with pytest.raises(ValueError, match="normalization"):
        BackboneSpec(name="resnet18", normalization="own")


@pytest.mark.parametrize(
    "name",
    [
        "timm:vit_tiny_patch16_384",
        pytest.param(f"timm:{ONE_SIZE}", marks=needs_one_size),
        "torchvision:vit_b_16",
    ],
)
def test_networks_of_one_size_get_images_of_that_size(name: str) -> None:
    """On meta tensors: the shapes alone are of interest."""
    with torch.device("meta"):
        backbone = make_backbone(BackboneSpec(name=name), 3).eval()
    assert backbone.preparation is not None
    size = backbone.preparation.needs.size
    for pixels in (28, 224):
        assert backbone(torch.zeros(1, 3, pixels, pixels, device="meta")).shape == (1, backbone.width)
        told = backbone.preparation.describe((pixels, pixels))
        assert told == ("" if size == (pixels, pixels) else f"resize to {size}, bicubic, antialiased")


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:resnet50x4_clip", "timm:resnet10t", "resnet18"])
def test_networks_that_take_other_sizes_get_images_as_they_are(name: str) -> None:
    """Also where timm calls the size fixed."""
    with torch.device("meta"):
        assert make_backbone(BackboneSpec(name=name), 3).preparation is None


@needs_one_size
def test_looking_for_the_size_draws_nothing() -> None:
    torch.manual_seed(0)
    weights, drawn = make_backbone(BackboneSpec(name=f"timm:{ONE_SIZE}"), 3).state_dict(), torch.rand(())
    torch.manual_seed(0)
    expected = timm.create_model(ONE_SIZE, num_classes=0).state_dict()
    assert all(torch.equal(weights[f"network.{key}"], value) for key, value in expected.items())
    assert drawn == torch.rand(())


@needs_one_size
def test_an_image_of_another_size_is_resized(tmp_path: Path) -> None:
    backbone = make_backbone(BackboneSpec(name=f"timm:{ONE_SIZE}"), 3).eval()
    images = torch.rand(2, 3, 224, 224)
    resized = torch.nn.functional.interpolate(images, (160, 160), mode="bicubic", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), backbone.network(resized))
    path = tmp_path / "w.safetensors"
    save_file(timm.create_model(ONE_SIZE).state_dict(), path)
    again = make_backbone(BackboneSpec(name=f"timm:{ONE_SIZE}", weights=path, normalization="imagenet"), 3)
    algorithm = get_algorithm("erm")
    hparams = algorithm.hparams_class.with_defaults("large")
    assert algorithm(again, again.width, 2, 1, hparams)(images).shape == (2, 2)


@needs_one_size
def test_an_assertion_of_a_network_is_one_sentence() -> None:
    backbone = make_backbone(BackboneSpec(name=f"timm:{ONE_SIZE}"), 3)
    backbone.preparation = None
    with pytest.raises(ValueError, match=r"name: the network does not take inputs of shape \(3, 224, 224\)"):
        backbone(torch.rand(2, 3, 224, 224))


@pytest.mark.parametrize("name", ["torchvision:alexnet", "torchvision:inception_v3", "torchvision:maxvit_t"])
def test_images_that_are_too_small_for_a_network_are_one_sentence(name: str) -> None:
    with torch.device("meta"):
        backbone = make_backbone(BackboneSpec(name=name), 3)
        backbone.preparation = None
        with pytest.raises(
            ValueError, match=r"name: the network does not take inputs of shape \(3, 20, 20\)"
        ):
            backbone(torch.zeros(2, 3, 20, 20))


def test_a_lack_of_memory_is_no_matter_of_shape() -> None:
    class Full(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if not images.is_meta:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return images.mean((2, 3))

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        Backbone(Full(), 3)(torch.zeros(2, 3, 8, 8))
