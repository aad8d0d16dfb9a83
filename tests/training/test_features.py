"""Extraction of features, killed and not, and runs on features."""

import json
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset

from hessalign.algorithms import algorithm_names, get_algorithm
from hessalign.backbones import BackboneSpec, make_backbone, network_sha256
from hessalign.datasets.features_file import FeaturesFile, feature_rows, save_features
from hessalign.datasets.image_folder import ImageFolderDomains
from hessalign.training import FeaturesSpec, Machine, RunSpec, extract_features, train
from hessalign.training.batches import domain_batches
from hessalign.training.evaluation import outputs
from tests.cli.command import hessalign, words
from tests.datasets.images import write_folder
from tests.processes import start
from tests.training.tiny_domains import NAMES, TinyDomains
from tests.training.tiny_features import WIDTH, feature_spec, tiny_features

CPU = Machine(accelerator="cpu")
SMALL = "timm:test_convnext"
MNIST_CNN = BackboneSpec(name="mnist_cnn")


def spec(**changes) -> FeaturesSpec:
    return FeaturesSpec(**{"backbone": MNIST_CNN, "dtype": "float32", "batch_size": 4, **changes})


def test_features_are_the_backbones(tmp_path: Path) -> None:
    seen = []
    about = extract_features(TinyDomains(), spec(), tmp_path / "f.safetensors", CPU, report=seen.append)
    dataset = FeaturesFile(tmp_path / "f.safetensors")
    torch.manual_seed(0)
    backbone = make_backbone(MNIST_CNN, 1).eval()
    assert about.weights_sha256 == network_sha256(backbone.network)
    for mine, original in zip(dataset.domains, TinyDomains().domains, strict=True):
        assert torch.equal(mine.targets, original.targets)
        with torch.no_grad():
            expected = backbone(original.plain.images)
        assert torch.allclose(mine.plain.table[:, 0], expected, atol=1e-5)
    assert (dataset.class_names, tuple(d.name for d in dataset.domains)) == (("upper", "lower"), NAMES)
    assert [seen[0].done, seen[-1].done, seen[-1].total] == [4, 90, 90]
    assert seen[-1].images_per_second > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "f.safetensors"]


def test_views_are_seeded_and_differ(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for path, seed, workers in zip(files, (0, 0, 1), (0, 2, 0), strict=True):
        extract_features(TinyDomains(), spec(views=3, seed=seed), path, Machine("cpu", workers=workers))
    assert files[0].read_bytes() == files[1].read_bytes()
    first = FeaturesFile(files[0]).domains[0].augmented.table
    assert first.shape == (30, 3, 128)
    assert len(first.flatten(0, 1).unique(dim=0)) == 90
    assert not torch.equal(first, FeaturesFile(files[2]).domains[0].augmented.table)


def test_layers_stand_before_the_features_and_the_file_names_their_columns(tmp_path: Path) -> None:
    path, without = tmp_path / "layers.safetensors", tmp_path / "plain.safetensors"
    about = extract_features(TinyDomains(), spec(layers=("2", "5"), views=1), path, CPU)
    extract_features(TinyDomains(), spec(views=1), without, CPU)
    assert about.columns == {"2": (0, 64), "5": (64, 192), "features": (192, 320)}
    assert FeaturesFile(path).input_shape == (320,)
    for mine, plain in zip(FeaturesFile(path).domains, FeaturesFile(without).domains, strict=True):
        assert torch.allclose(mine.plain.table[:, :, 192:], plain.plain.table, atol=1e-5)
        assert torch.allclose(mine.augmented.table[:, :, 192:], plain.augmented.table, atol=1e-5)
    assert torch.allclose(
        torch.from_numpy(feature_rows(path, layers=["5"]).X),
        torch.from_numpy(feature_rows(path).X[:, 64:192]),
    )
    # Files without layers and named augmentation are those of before there were any.
    assert b"columns" not in without.read_bytes()[:4000]
    assert b"augment" not in without.read_bytes()[:4000]


def extract(path: Path) -> None:
    extract_features(TinyDomains(200), spec(views=1), path, CPU, resume=True)


def test_killed_at_several_moments_ends_with_the_same_file(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    extract(whole)
    folder = tmp_path / "parts.safetensors.part"
    finished: dict[str, int] = {}
    for kill in range(4):
        process = start(extract, parts)
        while process.is_alive() and len(list(folder.glob("*.safetensors"))) < 3 * (kill + 1):
            time.sleep(0.002)
        process.kill()
        process.join()
        assert not parts.exists()
        chunks = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
        assert finished.items() <= chunks.items()  # what was finished is not computed again
        finished = chunks
    extract(parts)
    assert parts.read_bytes() == whole.read_bytes()
    assert not folder.exists()


class StopError(Exception):
    """Ends an extraction from its report."""


def test_paths_that_are_taken_are_refused_and_unharmed(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    with pytest.raises(ValueError, match=r"out: .* must end in .safetensors"):
        extract_features(TinyDomains(), spec(), tmp_path / "f.pt", CPU)

    def stop(progress) -> None:
        if progress.done > 40:
            raise StopError

    with pytest.raises(StopError):
        extract_features(TinyDomains(), spec(), path, CPU, report=stop)
    before = {file: file.read_bytes() for file in path.with_name("f.safetensors.part").iterdir()}
    with pytest.raises(ValueError, match="is extracted in part; add --resume"):
        extract_features(TinyDomains(), spec(), path, CPU)
    with pytest.raises(ValueError, match="is extracted in part, but with other features; remove the folder"):
        extract_features(TinyDomains(), spec(views=1), path, CPU, resume=True)
    assert before == {file: file.read_bytes() for file in path.with_name("f.safetensors.part").iterdir()}
    about = extract_features(TinyDomains(), spec(), path, CPU, resume=True)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"out: .* exists; choose another name"):
        extract_features(TinyDomains(), spec(), path, CPU)
    with pytest.raises(ValueError, match=r"out: .* holds other features"):
        extract_features(
            TinyDomains(), spec(backbone=BackboneSpec(name="mnist_cnn"), seed=1), path, CPU, True
        )
    assert extract_features(TinyDomains(), spec(), path, CPU, resume=True) == about
    assert path.read_bytes() == content


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_one_sentence(tmp_path: Path, workers: int) -> None:
    folder = write_folder(tmp_path / "images", {"a": {"x": 2}, "b": {"x": 2}})
    (folder / "b" / "x" / "001.png").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"001\.png: the image cannot be read") as caught:
        extract_features(
            ImageFolderDomains(folder), spec(), tmp_path / "f.safetensors", Machine("cpu", workers=workers)
        )
    assert "\n" not in str(caught.value)


def test_what_a_killed_process_left_beside_a_finished_file_is_removed(tmp_path: Path) -> None:
    path, part = tmp_path / "f.safetensors", tmp_path / "f.safetensors.part"
    extract_features(TinyDomains(), spec(), path, CPU)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        extract_features(TinyDomains(), spec(), path, CPU, report=_interrupt)
    path.write_bytes(content)
    extract_features(TinyDomains(), spec(), path, CPU, resume=True)
    assert not part.exists()
    part.mkdir()
    (part / "about.json").write_text("another's")
    extract_features(TinyDomains(), spec(), path, CPU, resume=True)
    assert part.exists()


def _interrupt(progress) -> None:
    raise KeyboardInterrupt


def test_features_that_are_not_finite_are_named(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "in.safetensors")
    dataset.domains[1].plain.table[3] = 1e9
    identity = BackboneSpec(name="identity")
    with pytest.raises(
        ValueError, match="sample 3 of domain 'south' are NaN, or infinite in float16; float32"
    ):
        extract_features(dataset, spec(dtype="float16", backbone=identity), tmp_path / "f.safetensors", CPU)
    assert not (tmp_path / "f.safetensors").exists()


def test_batches_and_accuracies_in_memory_are_those_read_one_by_one(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")

    class OneByOne(torch.utils.data.Dataset):
        def __init__(self, samples) -> None:
            self.samples = samples

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, index: int):
            return self.samples[index]

    indices = list(range(5, 35))
    held = [Subset(domain.augmented, indices) for domain in dataset.domains[:2]]
    slow = [Subset(OneByOne(domain.augmented), indices) for domain in dataset.domains[:2]]
    for fast, other in zip(
        domain_batches(held, 8, 3, range(4)), domain_batches(slow, 8, 3, range(4)), strict=True
    ):
        for name in ("inputs", "targets", "domains"):
            assert torch.equal(getattr(fast, name), getattr(other, name))
    model = torch.nn.Linear(WIDTH, 3)
    fast, late = (outputs(model, samples, torch.device("cpu")) for samples in (held[0], slow[0]))
    assert fast.accuracy() == late.accuracy()


@pytest.mark.filterwarnings("ignore:.* never sets in:hessalign.exceptions.NoEffectWarning")
@pytest.mark.filterwarnings("ignore:.* depends on the features alone:hessalign.exceptions.NoEffectWarning")
@pytest.mark.filterwarnings("ignore:ib_weight:hessalign.exceptions.NoEffectWarning")
@pytest.mark.parametrize("backbone", ["identity", "adapter:linear", "adapter:mlp"])
@pytest.mark.parametrize("algorithm", algorithm_names())
def test_every_algorithm_runs_on_features_or_says_why_not(
    tmp_path: Path, algorithm: str, backbone: str
) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors", views=2)
    rank = None if backbone == "identity" else 2
    # The published weights of cma and iga swamp the loss of so small a head, and say so.
    weights = {"cma": {"alpha": 1.0, "beta": 1.0}, "iga": {"penalty_weight": 1.0}}.get(algorithm, {})
    run = feature_spec(algorithm, weights, backbone=BackboneSpec(name=backbone, rank=rank), steps=3)
    algorithm_class = get_algorithm(algorithm)
    problem = "works on images" if algorithm_class.needs_images else "trains the backbone"
    if algorithm_class.needs_images or (backbone == "identity" and algorithm_class.needs_trainable_backbone):
        with pytest.raises(ValueError, match=f"algorithm: {algorithm} {problem}"):
            train(run, dataset, tmp_path / "run", CPU)
        assert not (tmp_path / "run").exists()
    else:
        record = train(run, dataset, tmp_path / "run", CPU)
        assert record["step"] == 2
        assert torch.tensor(record["loss"]).isfinite()


def test_a_run_on_features_learns(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    record = train(feature_spec("hgp", steps=150), dataset, tmp_path / "run", CPU)
    assert record["accuracies"]["west"]["in"] > 0.9


def test_one_domain_leaves_none_to_train_on(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    dataset.domains = dataset.domains[:1]
    with pytest.raises(
        ValueError, match=r"target_domains: must be different indices .* leave one to train on"
    ):
        train(feature_spec(target_domains=(0,)), dataset, tmp_path / "run", CPU)


@pytest.mark.parametrize("algorithm", ["erm", "fishr", "hgp", "hutchinson", "exact_hessian"])
def test_a_class_may_be_missing_from_a_domain(tmp_path: Path, algorithm: str) -> None:
    whole = tiny_features(tmp_path / "whole.safetensors")
    kept = [
        domain.targets != 2 if domain.name == "north" else domain.targets >= 0 for domain in whole.domains
    ]
    save_features(
        tmp_path / "f.safetensors",
        torch.cat([one.plain.table[keep, 0] for one, keep in zip(whole.domains, kept, strict=True)]),
        torch.cat([one.targets[keep] for one, keep in zip(whole.domains, kept, strict=True)]),
        torch.arange(len(kept)).repeat_interleave(torch.tensor([int(keep.sum()) for keep in kept])),
        domain_names=[domain.name for domain in whole.domains],
    )
    dataset = FeaturesFile(tmp_path / "f.safetensors")
    assert 2 not in dataset.domains[0].targets
    assert len(dataset.class_names) == 3
    waits = {"anneal_steps": 75, "penalty_weight": 1.0} if algorithm == "fishr" else {}
    record = train(feature_spec(algorithm, waits, steps=150), dataset, tmp_path / "run", CPU)
    assert torch.tensor(record["loss"]).isfinite()
    assert record["accuracies"]["west"]["in"] > 0.8


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"dry": {"fern": 6, "moss": 5}, "wet": {"fern": 5, "moss": 6}, "cold": {"fern": 5, "moss": 5}}
    return write_folder(tmp_path_factory.mktemp("images"), counts)


def test_the_command_line_from_images_to_a_run(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    arguments = ["features", "--dataset", str(images), "--backbone", SMALL, "--weights", "none"]
    arguments += ["--views", "2", "--layers", "stages.0"]
    result = hessalign(*arguments, "--out", str(file), "--accelerator", "cpu", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    dataset = FeaturesFile(file)
    assert found["content_sha256"] == dataset.fingerprint
    assert found["samples"] == 32
    assert found["backbone"]["name"] == SMALL
    assert "RandomResizedCrop" in found["preprocessing"]["views"]
    assert "RandomResizedCrop" not in found["preprocessing"]["plain"]
    assert found["fingerprint"] == ImageFolderDomains(images).fingerprint
    assert found["columns"] == {"stages.0": [0, 24], "features": [24, 88]}
    assert dataset.input_shape == (88,)

    options = ["--algorithm", "fishr", "--target", "wet", "--set", "batch_size=4", "--steps", "5"]
    out = tmp_path / "run"
    result = hessalign("train", "--dataset", str(file), *options, "--out", str(out), "--json")
    assert result.returncode == 0, result.stderr
    assert list(json.loads(result.stdout)["accuracies"]) == ["cold", "dry", "wet"]
    ran = RunSpec.model_validate_json((out / "spec.json").read_text())
    assert (ran.dataset, ran.data, ran.backbone.name) == ("features_file", dataset.fingerprint, "identity")
    adapter = ["--backbone", "adapter:mlp", "--rank", "4", "--out", str(tmp_path / "adapter"), "--json"]
    assert hessalign("train", "--dataset", str(file), *options, *adapter).returncode == 0

    assert hessalign("datasets", "verify", "features_file", "--root", str(file)).returncode == 0
    file.write_bytes(file.read_bytes()[:-100])
    for command in (
        ["train", "--dataset", str(file), *options, "--out", str(tmp_path / "new")],
        ["datasets", "verify", "features_file", "--root", str(file)],
    ):
        result = hessalign(*command)
        assert result.returncode == 2
        message = words(result.stderr)
        assert "is not a whole features file: it is cut short" in message
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()


def test_views_in_other_styles_are_resumed_and_drawn_beside_the_plain_features(
    images: Path, tmp_path: Path
) -> None:
    data = ImageFolderDomains(images)
    choice = spec(backbone=BackboneSpec(name=SMALL), views=2, augment="style", batch_size=2)
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    about = extract_features(data, choice, whole, CPU)

    def stop(progress) -> None:
        if progress.done > 16:
            raise StopError

    with pytest.raises(StopError):
        extract_features(data, choice, parts, CPU, report=stop)
    extract_features(data, choice, parts, CPU, resume=True)
    assert parts.read_bytes() == whole.read_bytes()
    assert about.augment == "style"
    assert "edges" in about.preprocessing["views"]
    samples = FeaturesFile(whole).domains[0].augmented
    assert samples.views == 3
    indices = torch.tensor([4, 4, 4, 1])
    taken = samples.take(indices, torch.tensor([0, 1, 2, 5]))
    expected = torch.cat([samples.table, samples.also], dim=1)[indices, torch.tensor([0, 1, 2, 2])]
    assert torch.equal(taken, expected)
    assert torch.equal(samples.also[:, 0], FeaturesFile(whole).domains[0].plain.table[:, 0])
    seen = {samples[0][0].numpy().tobytes() for _ in range(60)}
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--backbone", "resnet19"], "name: 'resnet19' is not known"),
        (["--backbone", "identity"], "backbone: 'identity' does not take the dataset's inputs"),
        (["--dtype", "float8"], "'--dtype': 'float8' is not one of 'float16', 'float32'; did you mean"),
        (
            ["--augment", "stile", "--views", "1"],
            "'--augment': 'stile' is not one of 'domainbed', 'style', 'aug",
        ),
        (["--augment", "style"], "augment: 'style' is of views, and views is 0; ask for at least 1"),
        (["--layers", "layer7"], "layers: the backbone has no layer 'layer7'; did you mean"),
        (["--layers", ","], "layers: ',' names none; allowed are stages or names of modules"),
        (["--views", "-1"], "'--views': must be a whole number of at least 0, got -1"),
        (["--out", "features.pt"], "out: features.pt must end in .safetensors"),
        (["--dataset", "nowhere"], "dataset: 'nowhere' is not known"),
    ],
)
def test_bad_input_is_one_sentence(images: Path, tmp_path: Path, changes: list[str], message: str) -> None:
    arguments = ["--dataset", str(images), "--backbone", "resnet18", "--weights", "none"]
    result = hessalign("features", *arguments, "--out", str(tmp_path / "f.safetensors"), *changes)
    assert result.returncode == 2
    assert message in words(result.stderr)
    assert list(tmp_path.iterdir()) == []
