"""Exported files are the network, and tell how to feed it."""

import json
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from hessalign.algorithms import algorithm_names, get_algorithm
from hessalign.backbones import BackboneSpec
from hessalign.benchmark.selection import Rule
from hessalign.cli import export
from hessalign.runs.pretrained import RULES, Selection
from hessalign.training import (
    CheckpointMetadata,
    Recipe,
    TrainedModel,
    build_algorithm,
    export_model,
    predict,
)
from hessalign.training import export as exporting
from tests.training.tiny_domains import PIXELS, tiny_spec
from tests.training.tiny_features import feature_spec

PHOTOGRAPH = (3, 224, 224)
SUFFIXES = exporting.SUFFIXES


def network(backbone: str = "timm:test_efficientnet", shape: tuple[int, ...] = PHOTOGRAPH, **changes):
    """A network with weights of its own, in evaluation mode, whose logits are not all alike."""
    spec = tiny_spec(
        algorithm=changes.pop("algorithm", "erm"),
        backbone=BackboneSpec(name=backbone),
        hparams={"lr": 1e-3, "batch_size": 2},
        **changes,
    )
    about = CheckpointMetadata(run=spec, class_names=("x", "y"), input_shape=shape, source_domains=2, step=3)
    torch.manual_seed(0)
    algorithm = build_algorithm(spec, shape, 2, 2).eval()
    with torch.no_grad():
        algorithm.head.weight.mul_(100)
    return algorithm, about


def transformed(path: Path, transforms: list[dict]) -> torch.Tensor:
    """An input of an image by what a file tells alone, with Pillow and NumPy."""
    resize, divide, normalize, _ = transforms
    assert (resize["interpolation"], resize["antialias"], resize["keep_aspect_ratio"]) == (
        "bilinear",
        True,
        False,
    )
    height, width = resize["resize"]
    image = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.float32) / divide["divide"]
    mean, std = (np.array(normalize["normalize"][name], dtype=np.float32) for name in ("mean", "std"))
    return torch.from_numpy(((values - mean) / std).transpose(2, 0, 1)).unsqueeze(0)


def loaded(path: Path, format: str):
    """What a file computes, by the format's own library, and what it tells."""
    if format == "torchscript":
        files = {exporting.ABOUT: ""}
        module = torch.jit.load(path, _extra_files=files)
        return module, json.loads(files[exporting.ABOUT])
    if format == "torch-export":
        files = {exporting.ABOUT: ""}
        program = torch.export.load(path, extra_files=files)
        return program.module(), json.loads(files[exporting.ABOUT])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map[exporting.ABOUT])
    name = about["input"]["name"]
    return lambda inputs: torch.from_numpy(session.run(None, {name: inputs.numpy()})[0]), about


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "format",
    [
        "torchscript",
        pytest.param("torch-export", marks=pytest.mark.slow),
        pytest.param("onnx", marks=pytest.mark.slow),
    ],
)
def test_a_file_and_its_transforms_give_what_predict_gives(tmp_path: Path, format: str) -> None:
    algorithm, about = network()
    path = tmp_path / f"model{SUFFIXES[format]}"
    exported = export_model(algorithm, about, path, format)
    assert exported.difference <= 1e-5
    assert exported.bytes == path.stat().st_size
    run, told = loaded(path, format)
    assert (told["format"], told["classes"], told["step"]) == (format, ["x", "y"], 3)
    assert told["input"]["shape"] == ["n", *PHOTOGRAPH]
    pixels = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (predicted,) = predict(algorithm, about, [tmp_path / "photo.png"])
    probabilities = run(transformed(tmp_path / "photo.png", told["transforms"])).detach().softmax(1)[0]
    assert 0.5 < predicted.probability < 1 - 1e-4
    assert told["classes"][int(probabilities.argmax())] == predicted.class_name
    # Pillow and torchvision round resized pixels alike; what is left is the file's own difference.
    assert abs(float(probabilities.max()) - predicted.probability) < 1e-5


def test_without_the_extra_onnx_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    algorithm, about = network("mnist_cnn", (1, PIXELS, PIXELS))
    with pytest.raises(
        ValueError, match=r"format: 'onnx' is not installed; run  pip install 'hessalign\[onnx"
    ):
        export_model(algorithm, about, tmp_path / "m.onnx", "onnx")


def test_what_is_no_file_for_serving_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    algorithm, about = network("mnist_cnn", (1, PIXELS, PIXELS))
    there = tmp_path / "there.pt"
    there.write_text("kept")
    for path, format, message in (
        (tmp_path / "m.onnx", "torchscript", r"out: a file of the format torchscript ends in \.pt, got"),
        (tmp_path / "m.pt", "pickle", "format: 'pickle' is not known; allowed are onnx, torchscript, torch-"),
        (tmp_path / "no" / "m.pt", "torchscript", "out: there is no folder"),
    ):
        with pytest.raises(ValueError, match=message):
            export_model(algorithm, about, path, format)
    batched, metadata = network("mnist_cnn", (1, PIXELS, PIXELS), algorithm="mtl")
    with pytest.raises(ValueError, match=r"what mtl predicts of a sample depends on the other samples"):
        export_model(batched, metadata, there, "torchscript")
    assert there.read_text() == "kept"


def test_a_file_that_differs_from_the_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, about = network("mnist_cnn", (1, PIXELS, PIXELS))
    other, _ = network("mnist_cnn", (1, PIXELS, PIXELS))
    with torch.no_grad():
        other.head.bias.add_(torch.tensor([1e-3, 0.0]))
    write = exporting._FORMATS["torchscript"]

    def of_another(*arguments):
        return write(exporting._Network(other).eval(), *arguments[1:])

    monkeypatch.setitem(exporting._FORMATS, "torchscript", of_another)
    with pytest.raises(ValueError, match=r"the exported file differs from the network by .* nothing was"):
        export_model(algorithm, about, tmp_path / "m.pt", "torchscript")
    assert not (tmp_path / "m.pt").exists()


def test_which_algorithms_predict_by_the_batch_is_known() -> None:
    for name in algorithm_names():
        algorithm = get_algorithm(name)
        shape = (1, PIXELS, PIXELS) if algorithm.needs_images else (16,)
        backbone = "mnist_cnn" if algorithm.needs_images else "adapter:linear"
        model = build_algorithm(feature_spec(name, backbone=BackboneSpec(name=backbone)), shape, 3, 2).eval()
        inputs = torch.randn(4, *shape)
        with torch.no_grad():
            difference = float((model(inputs)[:1] - model(inputs[:1])).abs().max())
        assert (difference > 1e-4) == model.predicts_by_batch, name


def test_a_shared_model_comes_back_whole_and_says_where_it_is_from(tmp_path: Path) -> None:
    algorithm, about = network(
        "mnist_cnn", (1, PIXELS, PIXELS), dataset="[b]tiny[/b] | odd", target_domains=(1,)
    )
    accuracies = {"a|b": {"in": 0.5, "out": None}, "<west>": {"in": 0.25, "out": 1.0}}
    model = TrainedModel(algorithm, about, accuracies)
    model.save_pretrained(tmp_path / "model", selection="source-validation")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    back = TrainedModel.from_pretrained(tmp_path / "model")
    assert (back.metadata, back.accuracies) == (about, accuracies)
    inputs = torch.randn(3, 1, PIXELS, PIXELS)
    assert torch.equal(back.algorithm(inputs), algorithm(inputs))
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: hessalign\n")
    assert "pipeline_tag: image-classification" in card
    assert "held-out samples of the source domains; the target domains had no part" in card
    assert r"| a\|b | source | 50.0 | – |" in card
    assert "| target | 25.0 | 100.0 |" in card
    assert "<west>" not in card.replace("\\<west", "")


def test_a_shared_model_tells_what_its_accuracies_are_of(tmp_path: Path) -> None:
    for changes, said in (
        ({}, "in: the 80 % of a domain that sources train on; out: the 20 % held out."),
        ({"evaluation_samples": 1000}, "held out; of both at most 1,000 samples."),
        (
            {"holdout_fraction": 0.75},
            "in: the 25 % of a domain that sources train on; out: the 75 % held out.",
        ),
        ({"validation_images": "augmented"}, "held out; source domains on augmented images."),
    ):
        algorithm, about = network("mnist_cnn", (1, PIXELS, PIXELS), **changes)
        accuracies = {name: {"in": 0.5, "out": None} for name in "abc"}
        TrainedModel(algorithm, about, accuracies).save_pretrained(tmp_path / "model")
        notes = (tmp_path / "model" / "README.md").read_text().splitlines()
        (note,) = [line for line in notes if line.startswith("In percent")]
        assert note.startswith("In percent, after 3 updates; in: ")
        assert note.endswith(said)


def test_a_shared_model_tells_its_recipe_and_no_place_on_this_machine(tmp_path: Path) -> None:
    algorithm, about = network("mnist_cnn", (1, PIXELS, PIXELS))
    start = {"start_from": tmp_path / "secret" / "former", "start_sha256": "0" * 64}
    backbone = about.run.backbone.model_copy(update={"weights": tmp_path / "secret" / "w.safetensors"})
    run = about.run.model_copy(update={"backbone": backbone, "recipe": Recipe(average="sma", **start)})
    metadata = about.model_copy(update={"run": run})
    TrainedModel(algorithm, metadata, None).save_pretrained(tmp_path / "model")
    export_model(algorithm, metadata, tmp_path / "m.pt", "torchscript")
    files = [tmp_path / "m.pt", *(tmp_path / "model").iterdir()]
    assert not [path for path in files if b"secret" in path.read_bytes()]
    card = (tmp_path / "model" / "README.md").read_text()
    assert ", ".join(["erm", *run.recipe.words()]) in card
    assert "SMA" in card
    back = TrainedModel.from_pretrained(tmp_path / "model")
    assert back.metadata.run.identity() == TrainedModel.load(tmp_path / "model").metadata.run.identity()
    inputs = torch.randn(2, 1, PIXELS, PIXELS)
    assert torch.equal(back.algorithm(inputs), algorithm(inputs))


def test_a_shared_model_that_is_damaged_or_another_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    algorithm, about = network("mnist_cnn", (1, PIXELS, PIXELS))
    TrainedModel(algorithm, about, None).save_pretrained(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"folder: .*other holds other things \(thesis.tex\)"):
        TrainedModel(algorithm, about, None).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="selection: 'luck' is not known; allowed are none, source-valid"):
        TrainedModel(algorithm, about, None).save_pretrained(folder, selection="luck")
    with pytest.raises(ValueError, match=r"revision: .* is a local folder, which has none"):
        TrainedModel.from_pretrained(folder, revision="main")
    with pytest.raises(ValueError, match="model: there is no folder"):
        TrainedModel.from_pretrained(tmp_path / "nowhere")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors is damaged \(its SHA-256 is not the one in"):
        TrainedModel.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hessalign": {"kind": "poem"}}))
    with pytest.raises(ValueError, match=r"holds no model of hessalign"):
        TrainedModel.from_pretrained(folder)


def test_a_model_of_the_hub_comes_from_its_cache_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache as the Hub's own library lays it out, and that library reads it."""
    from huggingface_hub import constants  # noqa: PLC0415 (read from the environment when first imported)

    algorithm, about = network("mnist_cnn", (1, PIXELS, PIXELS))
    commit = "0" * 40
    repository = tmp_path / "models--me--tiny"
    TrainedModel(algorithm, about, None).save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    back = TrainedModel.from_pretrained("me/tiny")
    inputs = torch.randn(2, 1, PIXELS, PIXELS)
    assert torch.equal(back.algorithm(inputs), algorithm(inputs))
    with pytest.raises(OSError, match="nothing of that name can be fetched from the Hub"):
        TrainedModel.from_pretrained("me/other")


def test_cards_know_every_rule_of_selection() -> None:
    assert set(get_args(Selection)) == set(RULES) == set(get_args(export.RULES)) == {"none", *get_args(Rule)}
