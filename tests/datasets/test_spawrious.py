"""Spawrious: who stands where, and that a copy's order on disk means nothing."""

import os
import random
from pathlib import Path

import pytest

from hessalign.datasets import DomainDataset, get_dataset, make_dataset, spawrious

PLACES = ("beach", "desert", "dirt", "jungle", "mountain", "snow")
NAMES = [f"spawrious_{kind}_{level}" for kind in ("o2o", "m2m") for level in ("easy", "medium", "hard")]
SMALL = 16


def write_copy(root: Path, images: int = SMALL) -> Path:
    """A copy whose folders hold few images, made in another order than that of their names."""
    numbers = [*range(images)]
    random.Random(0).shuffle(numbers)
    for half in "01":
        for place in PLACES:
            for breed in spawrious.CLASSES:
                folder = root / "spawrious224" / half / place / breed
                folder.mkdir(parents=True)
                for number in numbers:
                    (folder / f"{place}_{breed}_{number:04}.png").touch()
                (folder / "notes.txt").touch()
    return root


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_copy(tmp_path_factory.mktemp("data"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawrious, "IN_FOLDER", SMALL)


def standing(dataset: DomainDataset) -> dict[str, dict[tuple[str, str, str], int]]:
    """Number of images by domain and (half, place, breed), with the class ids checked."""
    found: dict[str, dict[tuple[str, str, str], int]] = {}
    for domain in dataset.domains:
        counts = found.setdefault(domain.name, {})
        for index in range(len(domain)):
            half, place, breed, _ = Path(str(domain.plain.file_of(index))).parts[-4:]
            assert dataset.class_names[int(domain.targets[index])] == breed
            counts[half, place, breed] = counts.get((half, place, breed), 0) + 1
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_is_taken_is_what_is_published(name: str) -> None:
    dataset = get_dataset(name)
    assert issubclass(dataset, spawrious.Spawrious)
    assert dataset.expected_counts is not None
    taken = dataset.taken()
    assert tuple(taken) == dataset.domain_names == ("Test", "SC_group_1", "SC_group_2")
    counts = {
        domain: sum(each.first or spawrious.IN_FOLDER for each in parts) for domain, parts in taken.items()
    }
    assert counts == dict(dataset.expected_counts.by_domain)
    places = {domain: {(each.breed, each.place) for each in parts} for domain, parts in taken.items()}
    seen = places["SC_group_1"] | places["SC_group_2"]
    assert not places["Test"] & seen  # no breed is tested before a background that it was trained before
    assert {each.place for parts in taken.values() for each in parts} <= {*PLACES}
    if "o2o" in name:
        shares = [[each.first for each in taken[domain]] for domain in ("SC_group_1", "SC_group_2")]
        assert shares == [[3072] * 4 + [96] * 4, [2756] * 4 + [412] * 4]


def test_one_to_one_before_its_backgrounds(copy: Path, small: None) -> None:
    found = standing(make_dataset("spawrious_o2o_hard", copy))
    train = {"bulldog": "jungle", "dachshund": "mountain", "labrador": "snow", "corgi": "desert"}
    test = {"bulldog": "mountain", "dachshund": "snow", "labrador": "desert", "corgi": "jungle"}
    assert found["Test"] == {(half, place, dog): SMALL for half in "01" for dog, place in test.items()}
    for domain, half, own in (("SC_group_1", "0", 15), ("SC_group_2", "1", 13)):
        expected = {(half, place, dog): own for dog, place in train.items()}
        assert found[domain] == expected | {(half, "beach", dog): SMALL - own for dog in train}


def test_many_to_many_swaps_backgrounds(copy: Path, small: None) -> None:
    found = standing(make_dataset("spawrious_m2m_easy", copy / "spawrious224"))
    first = {"bulldog": "desert", "dachshund": "mountain", "labrador": "dirt", "corgi": "jungle"}
    second = {"bulldog": "mountain", "dachshund": "desert", "labrador": "jungle", "corgi": "dirt"}
    test = {
        "bulldog": ("dirt", "jungle"),
        "dachshund": ("jungle", "dirt"),
        "labrador": ("mountain", "desert"),
        "corgi": ("desert", "mountain"),
    }
    assert found["SC_group_1"] == {("0", place, dog): SMALL for dog, place in first.items()}
    assert found["SC_group_2"] == {("0", place, dog): SMALL for dog, place in second.items()}
    assert found["Test"] == {("0", place, dog): SMALL for dog, places in test.items() for place in places}


def test_the_first_are_so_by_name(copy: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset("spawrious_o2o_easy", copy)
    listed = [[domain.plain.file_of(index) for index in range(len(domain))] for domain in dataset.domains]
    filler = [Path(str(path)).name for path in listed[2] if "/beach/bulldog/" in str(path)]
    assert filler == [f"beach_bulldog_{number:04}.png" for number in range(3)]
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: sorted(listdir(folder), reverse=True))
    again = make_dataset("spawrious_o2o_easy", copy)
    assert [
        [domain.plain.file_of(index) for index in range(len(domain))] for domain in again.domains
    ] == listed
    assert again.fingerprint == dataset.fingerprint != ""  # few images are not the published ones


def test_training_images_are_not_cropped(copy: Path, small: None) -> None:
    domain = make_dataset("spawrious_m2m_hard", copy).domains[1]
    assert "Crop" not in domain.augmented.preprocessing
    assert domain.augmented.preprocessing.startswith("Compose( Resize(size=[224, 224]")
    assert "RandomHorizontalFlip" in domain.augmented.preprocessing


def test_a_copy_that_is_not_whole_is_refused(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 16 images, and 3,072 or more are needed"):
        make_dataset("spawrious_o2o_easy", copy)
    (tmp_path / "0").mkdir()
    with pytest.raises(ValueError, match=r"lacks the folder 0/dirt/bulldog; allowed is the layout"):
        make_dataset("spawrious_o2o_easy", tmp_path)
    with pytest.raises(ValueError, match=r"is not a folder; allowed is one that holds spawrious224/"):
        make_dataset("spawrious_o2o_easy", tmp_path / "none")
