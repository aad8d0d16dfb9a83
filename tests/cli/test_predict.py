"""``hessalign predict`` on lists of images and on feature vectors."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import polars
import pytest
import torch

from hessalign.backbones import BackboneSpec
from hessalign.datasets.features_file import save_features
from hessalign.estimator import (
    DomainCentering,
    HessianAlignedClassifier,
    HessianAlignedRegressor,
    ISRMean,
)
from hessalign.training import CheckpointMetadata, TrainedModel, build_algorithm
from tests.cli.command import hessalign, words
from tests.datasets.images import write_image
from tests.estimator.samples import shifted_classes
from tests.training.tiny_domains import tiny_spec
from tests.training.tiny_features import feature_spec, tiny_features

WIDTH = 5


def shared(folder: Path, shape: tuple[int, ...], backbone: str, algorithm: str = "erm") -> Path:
    if len(shape) == 1:
        spec = feature_spec(algorithm, backbone=BackboneSpec(name=backbone))
    else:
        hparams = {"lr": 1e-3, "batch_size": 2}
        spec = tiny_spec(algorithm=algorithm, backbone=BackboneSpec(name=backbone), hparams=hparams)
    about = CheckpointMetadata(run=spec, class_names=("x", "y"), input_shape=shape, source_domains=2, step=1)
    torch.manual_seed(0)
    model = TrainedModel(build_algorithm(spec, shape, 2, 2).eval(), about, None)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def of_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory.mktemp("model") / "m", (3, 224, 224), "timm:test_efficientnet")


@pytest.fixture(scope="module")
def of_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory.mktemp("model") / "m", (WIDTH,), "identity")


def test_images_listed_in_tables_are_those_of_folders(of_photos: Path, tmp_path: Path) -> None:
    names = [f"photos/{number}.png" for number in range(3)]
    for name in names:
        write_image(tmp_path / name)
    (tmp_path / "list.csv").write_text("id;Path\n" + "".join(f"{name};{name}\n" for name in names))
    polars.DataFrame({"path": [str(tmp_path / name) for name in names]}).write_parquet(tmp_path / "l.parquet")
    found = [
        list(csv.DictReader(hessalign("predict", of_photos, tmp_path / given, *options).stdout.splitlines()))
        for given, options in (
            ("photos", []),
            ("list.csv", ["--device", "cpu", "--batch-size", 2]),
            ("l.parquet", ["--batch-size", 1]),
        )
    ]
    assert len(found[0]) == 3
    assert [[(row["path"], row["class"]) for row in rows] for rows in found[1:]] == [
        [(row["path"], row["class"]) for row in found[0]]
    ] * 2
    for rows in found[1:]:
        for row, other in zip(rows, found[0], strict=True):
            assert float(row["probability"]) == pytest.approx(float(other["probability"]), abs=2e-6)


def test_vectors_of_any_file_are_predicted_in_order(of_features: Path, tmp_path: Path) -> None:
    features = torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(0))
    save_features(tmp_path / "f.safetensors", features, [0, 1] * 3 + [0], ["a"] * 4 + ["b"] * 3)
    polars.DataFrame({"id": range(7), "embedding": features.tolist()}).write_parquet(tmp_path / "e.parquet")
    result = hessalign(
        "predict",
        of_features,
        tmp_path / "f.safetensors",
        tmp_path / "e.parquet",
        "--batch-size",
        4,
        "--json",
    )
    rows = json.loads(result.stdout)
    model = TrainedModel.from_pretrained(of_features)
    with torch.no_grad():
        probabilities, classes = model.algorithm(features).softmax(1).max(1)
    expected = ["xy"[index] for index in classes]
    assert [row["class_name"] for row in rows] == expected * 2
    assert [row["probability"] for row in rows] == pytest.approx(probabilities.tolist() * 2, abs=1e-6)
    assert rows[6]["path"] == f"{tmp_path}/f.safetensors[6]"
    assert rows[7]["path"] == f"{tmp_path}/e.parquet[0]"


def save_model(kind: str, folder: Path) -> None:
    """A model of a kind, saved by a path from the current folder, as a user does."""
    samples = shifted_classes()
    given = {"sample_domain": samples.domains}
    if kind in SHAPES:
        shared(folder, SHAPES[kind], BACKBONES[kind])
    elif kind == "regressor":
        HessianAlignedRegressor("hgp").fit(samples.X, samples.y.astype(float), **given).save_pretrained(
            folder
        )
    else:
        estimator = {"classifier": HessianAlignedClassifier("hgp"), "centring": DomainCentering()}.get(kind)
        (estimator or ISRMean(1)).fit(samples.X, samples.y, **given).save_pretrained(folder)


SHAPES = {"photographs": (3, 224, 224), "arrays": (2, 28, 28), "vectors": (WIDTH,)}
BACKBONES = {"photographs": "timm:test_efficientnet", "arrays": "mnist_cnn", "vectors": "identity"}
RESULTS = {"classifier": "probabilities", "regressor": "predictions", "centring": "transformed"}


@pytest.mark.parametrize("kind", [*SHAPES, *RESULTS, "recovery"])
def test_what_a_card_shows_runs_on_its_model(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python, then the line for a shell, where the model was saved, as they stand."""
    monkeypatch.chdir(tmp_path)
    folder = Path("models/it's mine")
    save_model(kind, folder)
    if kind == "photographs":  # what the card tells the reader to have
        for name, size in (("a.png", (9, 14)), ("b/c.jpg", (300, 80))):
            write_image(tmp_path / "photos" / name, size=size)
    card = (folder / "README.md").read_text()
    code = re.findall(r"```(python|sh)\n(.*?)\n```", card, re.DOTALL)
    python, *lines = [text for _, text in code]
    names: dict = {}
    exec(python, names)
    assert len(names[RESULTS.get(kind, "predictions" if kind in SHAPES else "transformed")]) == (
        2 if kind == "photographs" else 1
    )
    assert [language for language, _ in code][1:] == ["sh"] * len(lines)
    assert bool(lines) == (kind in SHAPES or kind == "classifier")
    for line in lines:
        *command, arrow, file = shlex.split(line)
        result = hessalign(*command[1:])
        assert (command[0], arrow, file, result.returncode) == ("hessalign", ">", "predictions.csv", 0)
        assert result.stdout.count("\n") == 1 + len(names.get("predictions", "x"))
    assert str(tmp_path) not in card


def test_a_card_names_a_folder_elsewhere_by_its_name_alone(tmp_path: Path) -> None:
    save_model("vectors", tmp_path / "secret" / "m")
    card = (tmp_path / "secret" / "m" / "README.md").read_text()
    assert "from_pretrained('m')" in card
    assert "hessalign predict m features.npy" in card
    assert "secret" not in card


def test_arrays_are_predicted_as_the_network_does(tmp_path: Path) -> None:
    save_model("arrays", tmp_path / "m")
    inputs = np.random.default_rng(0).normal(size=(3, 2, 28, 28))
    np.save(tmp_path / "a.npy", inputs)
    rows = json.loads(hessalign("predict", tmp_path / "m", tmp_path / "a.npy", "--json").stdout)
    with torch.no_grad():
        logits = TrainedModel.from_pretrained(tmp_path / "m").algorithm(torch.from_numpy(inputs).float())
    probabilities, classes = logits.softmax(1).max(1)
    assert [row["path"] for row in rows] == [f"{tmp_path}/a.npy[{row}]" for row in range(3)]
    assert [row["class_name"] for row in rows] == ["xy"[index] for index in classes]
    assert [row["probability"] for row in rows] == pytest.approx(probabilities.tolist(), abs=1e-6)
    np.save(tmp_path / "whole.npy", np.zeros((1, 2, 28, 28), dtype=np.uint8))
    np.save(tmp_path / "one.npy", np.zeros((1, 1, 28, 28)))
    np.save(tmp_path / "huge.npy", inputs * 1e300)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    write_image(tmp_path / "0.png")
    for name, message in (
        ("whole.npy", "must hold floats of shape (n, 2, 28, 28), as training had them; it holds uint8 of sh"),
        ("one.npy", "have the shape (1, 28, 28), and the model takes the shape (2, 28, 28)"),
        ("huge.npy", "row 0: the array holds NaN or infinity"),
        ("objects.npy", "cannot be read as an array of numbers"),
        ("text.npy", "cannot be read as an array of numbers"),
        ("0.png", "takes arrays of shape (2, 28, 28), and"),
    ):
        result = hessalign("predict", tmp_path / "m", tmp_path / name)
        assert (result.returncode, message in words(result.stderr)) == (2, True), words(result.stderr)


def test_a_shared_estimator_predicts_vectors(tmp_path: Path) -> None:
    samples = shifted_classes()
    names = np.array(["cat", "dog", "hen"])[samples.y]
    fitted = HessianAlignedClassifier("hgp", alpha=0.1).fit(samples.X, names, sample_domain=samples.domains)
    fitted.save_pretrained(tmp_path / "head")
    vectors = samples.X[:9].astype(np.float32)
    polars.DataFrame({"a": vectors.tolist()}).write_parquet(tmp_path / "e.parquet")
    rows = json.loads(hessalign("predict", tmp_path / "head", tmp_path / "e.parquet", "--json").stdout)
    assert [row["class_name"] for row in rows] == fitted.predict(vectors).tolist()
    expected = fitted.predict_proba(vectors).max(1)
    assert [row["probability"] for row in rows] == pytest.approx(expected, abs=1e-6)
    narrow = polars.DataFrame({"a": vectors[:, 1:].tolist()})
    narrow.write_parquet(tmp_path / "n.parquet")
    DomainCentering().fit(samples.X, sample_domain=samples.domains).save_pretrained(tmp_path / "centring")
    for model, file, message in (
        ("head", "n.parquet", f"have {vectors.shape[1] - 1} values, and the model takes {vectors.shape[1]}"),
        ("centring", "e.parquet", "checkpoint: a DomainCentering predicts no classes; load it from Python"),
    ):
        result = hessalign("predict", tmp_path / model, tmp_path / file)
        assert (result.returncode, message in words(result.stderr)) == (2, True), result.stderr


def test_what_is_no_list_of_samples_is_one_sentence(
    of_photos: Path, of_features: Path, tmp_path: Path
) -> None:
    write_image(tmp_path / "0.png")
    (tmp_path / "no_column.csv").write_text("file,label\n0.png,x\n")
    (tmp_path / "gone.csv").write_text("path\n0.png\n1.png\n")
    (tmp_path / "hole.csv").write_text("path,label\n0.png,x\n,x\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    frames = {
        "none": {"x": [1.0]},
        "two": {"a": [[1.0]], "b": [[1.0]]},
        "short": {"a": [[1.0] * WIDTH, [1.0]]},
        "narrow": {"a": [[1.0, 2.0]]},
        "nan": {"a": [[1.0] * WIDTH, [float("nan")] * WIDTH]},
        "null": {"a": [[1.0] * WIDTH, None]},
        "text": {"a": [["x"] * WIDTH]},
    }
    for name, columns in frames.items():
        polars.DataFrame(columns).write_parquet(tmp_path / f"{name}.parquet")
    for model, name, message in (
        (of_photos, "no_column.csv", "has no column path; found are 'file', 'label'"),
        (of_photos, "gone.csv", "row 1: there is no file"),
        (of_photos, "hole.csv", "row 1: no path; every row needs one"),
        (of_photos, "broken.parquet", "cannot be read as a table"),
        (of_features, "0.png", "the model takes feature vectors, and"),
        (of_features, "none.parquet", "must have one column of vectors; found are none"),
        (of_features, "two.parquet", "must have one column of vectors; found are 'a', 'b'"),
        (of_features, "short.parquet", "must all be numbers, as many in each row"),
        (of_features, "narrow.parquet", "have 2 values, and the model takes 5"),
        (of_features, "nan.parquet", "row 1: the vector holds NaN or infinity"),
        (of_features, "null.parquet", "must all be numbers, as many in each row"),
        (of_features, "text.parquet", "must all be numbers, as many in each row"),
    ):
        result = hessalign("predict", model, tmp_path / name)
        assert result.returncode == 2, (name, result.stderr)
        assert message in words(result.stderr), (name, words(result.stderr))
        assert result.stdout == ""
    result = hessalign("predict", of_photos, tmp_path / "0.png", "--device", "abacus")
    assert "device: 'abacus' cannot be used here" in words(result.stderr)


def test_what_is_no_model_is_told_what_it_is(of_features: Path, tmp_path: Path) -> None:
    """A sweep, a run without its checkpoint, a folder of runs, an exported file, a feature file."""
    tiny_features(tmp_path / "f.safetensors")
    data = ("--target", "0", "--algorithm", "erm", "--set", "batch_size=4", "--steps", "1")
    runs = tmp_path / "sweep" / "runs"
    train = ("train", "--dataset", tmp_path / "f.safetensors", *data)
    assert hessalign(*train, "--out", runs / "0a").returncode == 0
    shutil.copytree(runs / "0a", tmp_path / "mine" / "b")
    shutil.rmtree(runs / "0a" / "checkpoints")
    shutil.copytree(runs / "0a", tmp_path / "begun")
    (tmp_path / "begun" / "done").unlink()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    polars.DataFrame({"a": [[1.0] * WIDTH] * 2}).write_parquet(tmp_path / "e.parquet")
    exported = hessalign("export", of_features, "--format", "torchscript", "--out", tmp_path / "m.pt")
    assert exported.returncode == 0, exported.stderr
    kept = (
        "kept no checkpoint, as runs of a sweep do without --keep-checkpoints; do it again by hessalign train"
    )
    for path, message in (
        ("sweep", f"is the folder of a sweep; give one of the runs, such as {runs / '0a'}"),
        ("sweep/runs/0a", f"the run in {runs / '0a'} {kept} --spec {runs / '0a'} --out NEW"),
        ("begun", f"the run in {tmp_path / 'begun'} has no checkpoint yet"),
        ("mine", f"holds runs and is none itself; give one of the runs, such as {tmp_path / 'mine' / 'b'}"),
        ("empty", f"{tmp_path / 'empty'} holds no run, no checkpoint and no shared model"),
        ("m.pt", "an exported file is loaded by its own library; give the run or the shared model that it"),
        (
            "f.safetensors",
            "f.safetensors is a file; give the folder of a run, a checkpoint or a shared model",
        ),
    ):
        for command in (
            ("predict", tmp_path / path, tmp_path / "e.parquet"),
            ("export", tmp_path / path, "--format", "torchscript", "--out", tmp_path / "x.pt"),
            ("export", tmp_path / path, "--format", "pretrained", "--out", tmp_path / "x"),
            *([("inspect", tmp_path / path)] if (tmp_path / path).is_dir() else []),
            (*train, "--start-from", tmp_path / path, "--out", tmp_path / "x"),
        ):
            result = hessalign(*command, COLUMNS="1000")
            said = words(result.stderr)
            assert (result.returncode, message in said) == (2, True), (command, said)
            assert not (tmp_path / "x.pt").exists()
            assert not (tmp_path / "x").exists()


def test_predictions_that_depend_on_the_batch_say_so(tmp_path: Path) -> None:
    model = shared(tmp_path / "m", (WIDTH,), "identity", "mtl")
    polars.DataFrame({"a": [[1.0] * WIDTH, [2.0] * WIDTH]}).write_parquet(tmp_path / "e.parquet")
    result = hessalign("predict", model, tmp_path / "e.parquet")
    assert result.returncode == 0
    assert "what mtl predicts of a sample depends on the others of its batch, here groups of 32" in words(
        result.stderr
    )
