"""Features files: what is written is what is read, and nothing else is taken for one."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from hessalign.datasets import make_dataset
from hessalign.datasets.features_file import FeaturesFile, save_features
from hessalign.datasets.source import find_data
from hessalign.datasets.verify import verify

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
    about = FeaturesFile(whole).about.model_dump_json()
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
        ({"features": torch.zeros(30)}, "features: must be float16 or float32 of shape"),
        ({"features": torch.zeros(30, 5).double()}, "features: must be .* got torch.float64"),
        ({"labels": torch.zeros(29).long()}, "labels: must hold one integer id for each of the 30 samples"),
        ({"labels": torch.zeros(30)}, "labels: must hold one integer id"),
        ({"labels": torch.full((30,), 2)}, "labels: ids must lie between 0 and 1, got values from 2 to 2"),
        ({"labels": ["cat"] * 30}, "labels: must be a tensor .* got list; strings go to class_names"),
        ({"domains": torch.zeros(30).long()}, "domains: 'south' has no sample"),
        (
            {"domains": ["north"] * 30},
            "domains: .* integer ids, got list; strings go to domain_names",
        ),
        ({"domains": np.array(["north"] * 30)}, "domains: must be a tensor of integer ids, got ndarray"),
        ({"views": torch.zeros(30, 2, 4)}, "views: must be like features"),
    ],
)
def test_bad_features_are_never_written(tmp_path: Path, changes: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        write(tmp_path / "own.safetensors", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_value_that_is_not_finite_is_told_by_verify(tmp_path: Path) -> None:
    dataset = FeaturesFile(write(tmp_path / "own.safetensors"))
    dataset.domains[1].plain.table[2, 0, 0] = float("nan")
    report = verify(dataset)
    assert report.unreadable == ("south: sample 2: its features hold NaN or infinity; extract them again",)
