"""Features files: what is written is what is read, and nothing else is taken for one."""

import json
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from hessalign.datasets import make_dataset
from hessalign.datasets.features_file import FeaturesFile, feature_rows, save_features
from hessalign.datasets.registry import find_data
from hessalign.datasets.verify import verify
from hessalign.exceptions import HessalignWarning

CLASSES, PLACES = ("cat", "dog"), ("north", "south", "west")


def data(samples: int = 30, width: int = 5, views: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {
        "features": torch.randn(samples, width, generator=generator),
        "labels": torch.arange(samples) % 2,
        "domains": torch.randint(0, 3, (samples,), generator=generator),
    }
    found["domains"][:3] = torch.tensor([2, 0, 1])
    if views:
        found["views"] = torch.randn(samples, views, width, generator=generator)
    return found


def write(path: Path, **changes) -> Path:
    save_features(path, **{**data(), **changes}, class_names=CLASSES, domain_names=PLACES)
    return path


@given(
    samples=st.integers(3, 40),
    width=st.integers(1, 9),
    views=st.integers(0, 3),
    dtype=st.sampled_from([torch.float16, torch.float32]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, samples: int, width: int, views: int, dtype: torch.dtype
) -> None:
    given_data = data(samples, width, views)
    for name in ("features", "views"):
        if name in given_data:
            given_data[name] = given_data[name].to(dtype)
    path = tmp_path_factory.mktemp("features") / "own.safetensors"
    about = save_features(path, **given_data, domain_names=PLACES)
    dataset = FeaturesFile(path)
    assert dataset.input_shape == (width,)
    assert dataset.fingerprint == about.content_sha256
    for number, domain in enumerate(dataset.domains):
        mine = given_data["domains"] == number
        assert domain.name == PLACES[number]
        assert torch.equal(domain.targets, given_data["labels"][mine])
        inputs = torch.stack([domain.plain[index][0] for index in range(len(domain))])
        assert torch.equal(inputs, given_data["features"][mine].float())
        assert torch.equal(
            domain.plain.take(torch.arange(len(domain)), torch.zeros(len(domain)).long()), inputs
        )
        if views:
            seeds = torch.arange(len(domain)) * 7
            taken = domain.augmented.take(torch.arange(len(domain)), seeds)
            expected = given_data["views"][mine].float()[torch.arange(len(domain)), seeds % views]
            assert torch.equal(taken, expected)
        else:
            assert torch.equal(domain.augmented[0][0], inputs[0])
    # safetensors' own reader agrees with our writer
    assert torch.equal(load_file(path)["labels"].sort().values, given_data["labels"].sort().values)


def test_views_are_drawn_at_random_and_all_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "own.safetensors", **{"views": data(views=4)["views"]})
    domain = FeaturesFile(path).domains[0]
    torch.manual_seed(0)
    drawn = {tuple(domain.augmented[0][0].tolist()) for _ in range(100)}
    assert drawn == {tuple(view.tolist()) for view in domain.augmented.table[0]}
    assert len(drawn) == 4


def test_loading_maps_the_file_and_does_not_change_it(tmp_path: Path) -> None:
    path = write(tmp_path / "own.safetensors")
    before = path.read_bytes()
    dataset = FeaturesFile(path)
    dataset.domains[0].plain.table.zero_()
    assert path.read_bytes() == before
    storages = {domain.plain.table.untyped_storage().data_ptr() for domain in dataset.domains}
    assert len(storages) == 1  # one mapping, not a copy for each domain


def test_a_file_is_a_dataset_wherever_one_is_accepted(tmp_path: Path) -> None:
    path = write(tmp_path / "own.safetensors")
    source = find_data(str(path))
    assert source.name == "features_file"
    dataset = source.open(0)
    assert dataset.class_names == CLASSES
    assert verify(dataset).ok
    assert make_dataset("features_file", path).fingerprint == dataset.fingerprint
    with pytest.raises(ValueError, match="root: features_file is read from disk and none was given"):
        make_dataset("features_file")


def test_equal_content_has_an_equal_fingerprint_and_other_content_another(tmp_path: Path) -> None:
    first = FeaturesFile(write(tmp_path / "a.safetensors")).fingerprint
    assert FeaturesFile(write(tmp_path / "b.safetensors")).fingerprint == first
    changed = data()["features"]
    changed[3, 2] += 1e-3
    assert FeaturesFile(write(tmp_path / "c.safetensors", features=changed)).fingerprint != first


@pytest.mark.parametrize("keep", [0, 4, 200, -300, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "own.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"own.safetensors is not a whole features file: it is cut short"):
        FeaturesFile(path)


@given(place=st.integers(0, 30 * 16 + 30 * 5 * 4 - 1), flip=st.integers(1, 255))
def test_any_changed_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, flip: int) -> None:
    path = write(tmp_path_factory.mktemp("features") / "own.safetensors")
    content = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    content[start + place] ^= flip
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a whole features file: "):
        FeaturesFile(path)


def test_renamed_classes_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "own.safetensors")
    path.write_bytes(path.read_bytes().replace(b"dog", b"cow"))
    with pytest.raises(ValueError, match="its content was changed after it was written"):
        FeaturesFile(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    with pytest.raises(ValueError, match=r"path: .* is not a file"):
        FeaturesFile(path)
    save_file(data(), path)
    with pytest.raises(ValueError, match="it is a safetensors file of another program"):
        FeaturesFile(path)
    save_file(data(), path, {"hessalign": json.dumps({"format_version": 2})})
    with pytest.raises(ValueError, match="its description is of another version"):
        FeaturesFile(path)
    whole = write(tmp_path / "whole.safetensors")
    about = FeaturesFile(whole).metadata.model_dump_json()
    for tensors, problem in (
        ({"labels": data()["labels"]}, "it lacks the tensors domains, features"),
        ({**data(), "features": torch.zeros(30)}, "features are torch.float32 of shape"),
        ({**data(), "labels": torch.arange(30)}, "labels lie outside 0 to 1"),
        (data(), "its rows are not sorted by domain"),
        ({**data(), "domains": torch.zeros(30, dtype=torch.long)}, "it has a domain without a sample"),
    ):
        save_file(tensors, path, {"hessalign": about})
        with pytest.raises(ValueError, match=problem):
            FeaturesFile(path)


def not_finite(value: float) -> Tensor:
    features = data()["features"]
    features[7, 1] = value
    return features


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"features": not_finite(float("nan"))}, "features: all values must be finite, .* in row 7"),
        ({"features": not_finite(float("inf"))}, "features: all values must be finite, .* in row 7"),
        (
            {"features": torch.zeros(30)},
            r"features: must be of shape \(n, d\), none of them 0, got shape \(30",
        ),
        (
            {"features": torch.zeros(30, 5).double()},
            "features: must be float16 or float32, got float64; conv",
        ),
        ({"features": np.zeros((30, 5))}, "features: must be float16 or float32, got float64; convert it"),
        ({"features": torch.zeros(30, 5, dtype=torch.bfloat16)}, "features: must be .* got bfloat16"),
        ({"features": [[1.0], [1.0, 2.0]]}, "features: cannot be read as an array"),
        ({"features": None}, "features: must be an array"),
        ({"features": [[1e39]] * 30}, "features: all values must be finite, got NaN or infinity in row 0"),
        ({"labels": torch.zeros(29).long()}, "labels: must hold one class id for each of the 30 samples"),
        ({"labels": torch.zeros(30)}, "labels: class ids must be integers or strings, got dtype float32"),
        ({"labels": [True] * 30}, "labels: class ids must be integers or strings, got booleans"),
        ({"labels": None}, "labels: must be an array"),
        ({"domains": None}, "domains: must be an array"),
        ({"domains": [0, "a"] * 15}, "domains: domain ids must be all integers or all strings"),
        ({"labels": torch.full((30,), 2)}, "labels: ids must lie between 0 and 1, got values from 2 to 2"),
        ({"labels": ["cow"] * 30}, "labels: 'cow' is not among the class_names cat, dog"),
        ({"domains": torch.zeros(30).long()}, "domains: 'south' has no sample"),
        ({"domains": ["north"] * 30}, "domains: 'south' has no sample"),
        ({"domains": ["east"] * 30}, "domains: 'east' is not among the domain_names north, south, west"),
        ({"views": torch.zeros(30, 2, 4)}, "views: must be like features"),
    ],
)
def test_bad_features_are_never_written(tmp_path: Path, changes: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        write(tmp_path / "own.safetensors", **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("as_string", [False, True])
@pytest.mark.parametrize(
    "kind", ["tensor", "numpy", "float16", "big-endian", "pandas", "polars", "lists", "strided"]
)
def test_whatever_holds_numbers_is_taken(tmp_path: Path, kind: str, as_string: bool) -> None:
    given_data = {name: value.numpy() for name, value in data().items()}
    dtype = np.float16 if kind == "float16" else np.float32
    features = given_data["features"].astype(dtype)
    names = (np.array(CLASSES)[given_data["labels"]], np.array(PLACES)[given_data["domains"]])
    labels, domains = names if as_string else (given_data["labels"], given_data["domains"])
    taken: list = [features, labels, domains]
    if kind == "tensor":
        taken[0] = torch.from_numpy(features).requires_grad_()
        taken[1:] = taken[1:] if as_string else map(torch.from_numpy, taken[1:])
    elif kind == "big-endian":
        taken[0] = features.astype(">f4")
    elif kind == "strided":
        taken[0] = np.repeat(features, 2, axis=1)[:, ::2]
    elif kind == "lists":
        taken = [values.tolist() for values in taken]
    elif kind == "pandas":
        pandas = pytest.importorskip("pandas")
        taken = [pandas.DataFrame(features), pandas.Series(labels), pandas.Series(domains)]
    elif kind == "polars":
        taken = [pl.DataFrame(features), pl.Series(labels), pl.Series(domains)]
    path = str(tmp_path / "own.safetensors")
    save_features(path, *taken, **({} if as_string else {"class_names": CLASSES, "domain_names": PLACES}))
    dataset = FeaturesFile(path)
    assert dataset.class_names == CLASSES
    for number, domain in enumerate(dataset.domains):
        mine = given_data["domains"] == number
        assert domain.name == PLACES[number]
        assert domain.targets.tolist() == given_data["labels"][mine].tolist()
        np.testing.assert_array_equal(domain.plain.table[:, 0].numpy(), features[mine])


def test_ids_without_names_are_their_own(tmp_path: Path) -> None:
    numbers = torch.tensor([7, 3, 40])[data()["domains"]]
    about = save_features(tmp_path / "own.safetensors", data()["features"], data()["labels"] * 2, numbers)
    assert about.domain_names == ("3", "7", "40")
    assert about.class_names == ("0", "1", "2")  # a class may be missing


def test_names_give_the_order_of_strings(tmp_path: Path) -> None:
    names = np.array(PLACES)[data()["domains"].numpy()]
    path = tmp_path / "own.safetensors"
    save_features(path, data()["features"], data()["labels"], names, domain_names=PLACES[::-1])
    assert [domain.name for domain in FeaturesFile(path).domains] == list(PLACES[::-1])
    assert len(FeaturesFile(path).domains[0]) == int((data()["domains"] == 2).sum())


def test_paths_and_names_are_checked(tmp_path: Path) -> None:
    for path, problem in ((tmp_path / "own.bin", "must end in .safetensors"), (3, "must be a path, got 3")):
        with pytest.raises(ValueError, match=f"path: .*{problem}"):
            save_features(path, **data())
    path = tmp_path / "own.safetensors"
    for names, problem in (
        (("a", "a", "b"), "domain_names: 'a' is there twice"),
        (("a", 1, "b"), "domain_names: every name must be a text, got 1"),
        ("abc", "domain_names: must be a list of names"),
        (("a", "\ud800", "b"), r"domain_names: \\ud800 is not UTF-8"),
    ):
        with pytest.raises(ValueError, match=problem):
            save_features(path, **data(), domain_names=names)
    with pytest.raises(ValueError, match="labels: ids must lie between 0 and 999999, got 1000000000001"):
        save_features(path, **{**data(), "labels": data()["labels"] + 10**12})
    with pytest.warns(HessalignWarning, match="class names differ by capitals"):
        save_features(path, **data(), class_names=("Cat", "cat "))
    with pytest.warns(HessalignWarning, match="class names differ by capitals"):
        FeaturesFile(path)


def test_a_changed_value_that_is_not_finite_is_told_by_verify(tmp_path: Path) -> None:
    dataset = FeaturesFile(write(tmp_path / "own.safetensors"))
    dataset.domains[1].plain.table[2, 0, 0] = float("nan")
    report = verify(dataset)
    assert report.unreadable == ("south: sample 2: its features hold NaN or infinity; extract them again",)


def test_rows_of_a_sample_stand_together_with_the_plain_one_first(tmp_path: Path) -> None:
    given = data(views=2)
    path = write(tmp_path / "own.safetensors", views=given["views"])
    dataset = FeaturesFile(path)
    rows = feature_rows(path)
    assert rows.X.shape == (90, 5)
    assert rows.sample_id.tolist() == [sample for sample in range(30) for _ in range(3)]
    plain = torch.cat([domain.plain.table[:, 0] for domain in dataset.domains]).numpy()
    assert np.array_equal(rows.X[::3], plain)
    views = torch.cat([domain.augmented.table for domain in dataset.domains]).numpy()
    assert np.array_equal(rows.X.reshape(30, 3, 5)[:, 1:], views)
    names = [domain.name for domain in dataset.domains for _ in range(3 * len(domain))]
    assert rows.sample_domain.tolist() == names
    labels = torch.cat([domain.targets for domain in dataset.domains]).repeat_interleave(3)
    assert rows.y.tolist() == [dataset.class_names[label] for label in labels]
    some = feature_rows(path, domains=[dataset.domains[2].name, dataset.domains[0].name], views=False)
    chosen = np.isin(rows.sample_domain[::3], [dataset.domains[0].name, dataset.domains[2].name])
    assert np.array_equal(some.X, plain[chosen])
    assert np.array_equal(some.sample_id, np.arange(30)[chosen])


def test_rows_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=r"domains: the file has .*, got 'nowhere'"):
        feature_rows(path, domains=["nowhere"])
    with pytest.raises(ValueError, match="layers: the file has 'features', got 'layer3'"):
        feature_rows(path, layers=["layer3"])
    with pytest.raises(ValueError, match=r"domains: the file has .*, got none"):
        feature_rows(path, domains=[])
