"""Camelyon17 and FMoW in WILDS' layout."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from hessalign.datasets import make_dataset
from hessalign.datasets.wilds_fmow import CLASSES
from hessalign.exceptions import HessalignWarning
from tests.cli.command import hessalign, words
from tests.datasets.images import write_image

CAMELYON = ("", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split")
FMOW = ("split", "img_filename", "category", "country_code", "timestamp")
COUNTRIES = {"CHN": "Asia", "FRA": "Europe", "KEN": "Africa", "BRA": "Americas", "AUS": "Oceania", "ATA": ""}
IN_ORDER = ("CHN", "FRA", "KEN", "BRA", "AUS", "XKX")


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_camelyon(root: Path, rows: Sequence[Sequence[object]] = (), images: bool = True) -> Path:
    """One patch of either class from each hospital, the hospitals in turn, and what else is asked for."""
    place = root / "camelyon17_v1.0"
    own = [
        (7 * number, f"{number:03}", 1, 3328, 21792 + number, number % 2, 0, number % 5, 0)
        for number in range(10)
    ]
    write_table(place / "metadata.csv", CAMELYON, [*own, *rows])
    for _, patient, node, x, y, *_ in own if images else []:
        slide = f"patient_{patient}_node_{node}"
        write_image(place / "patches" / slide / f"patch_{slide}_x_{x}_y_{y}.png", int(y), (96, 96))
    (place / "patches").mkdir(exist_ok=True)
    return root


def write_fmow(
    root: Path, rows: Sequence[Sequence[object]] = (), countries: Sequence[str] = IN_ORDER
) -> Path:
    """Two images from each region, and one that is kept back."""
    place = root / "fmow_v1.1"
    own = [("train", "a", "airport", code, "2016") for code in countries]
    own += [("seq", "b", "zoo", "CHN", "2016")]
    own += [("val", "c", "zoo", code, "2017") for code in (*countries[:-1], "ATA")]
    write_table(place / "rgb_metadata.csv", FMOW, [*own, *rows])
    write_table(place / "country_code_mapping.csv", ("alpha-3", "region"), [*COUNTRIES.items()])
    for number in range(len(own)):
        write_image(place / "images" / f"rgb_img_{number}.png", number)
    return root


def test_camelyon_has_a_domain_for_each_hospital(tmp_path: Path) -> None:
    dataset = make_dataset("wilds_camelyon", write_camelyon(tmp_path))
    assert [domain.name for domain in dataset.domains] == [f"hospital_{number}" for number in range(5)]
    assert dataset.class_names == ("normal", "tumor")
    files = [[str(domain.plain.file_of(index)) for index in range(2)] for domain in dataset.domains]
    assert [[Path(path).parent.name for path in paths] for paths in files] == [
        [f"patient_{number:03}_node_1", f"patient_{number + 5:03}_node_1"] for number in range(5)
    ]
    assert [domain.targets.tolist() for domain in dataset.domains] == [[0, 1], [1, 0], [0, 1], [1, 0], [0, 1]]
    inputs, target = dataset.domains[3].augmented[0]
    assert (tuple(inputs.shape), target) == ((3, 224, 224), 1)
    steps = dataset.domains[0].augmented.preprocessing
    assert steps.index("Resize(") < steps.index("RandomResizedCrop(") < steps.index("RandomHorizontalFlip(")
    inside = make_dataset("wilds_camelyon", tmp_path / "camelyon17_v1.0")
    assert inside.fingerprint == dataset.fingerprint != ""  # a few images are not the published ones


def test_fmow_has_a_domain_for_each_region_and_reads_nothing_kept_back(tmp_path: Path) -> None:
    dataset = make_dataset("wilds_fmow", write_fmow(tmp_path))
    assert [domain.name for domain in dataset.domains] == [*dataset.domain_names]
    assert (len(CLASSES), CLASSES) == (62, tuple(sorted(CLASSES)))
    zoo = CLASSES.index("zoo")
    for number, domain in enumerate(dataset.domains):
        names = [Path(str(domain.plain.file_of(index))).name for index in range(len(domain))]
        assert names == [
            f"rgb_img_{number}.png",
            f"rgb_img_{number + 7}.png",
        ]  # the number is that of the row
        assert domain.targets.tolist() == [0, zoo]
    assert dataset.doubts == ()


def test_other_numbers_of_regions_are_told(tmp_path: Path) -> None:
    copy = write_fmow(tmp_path, countries=("FRA", "CHN", "KEN", "BRA", "AUS", "XKX"))
    with pytest.warns(
        HessalignWarning, match=r"in the order Europe, Asia, .*by which DomainBed would number"
    ):
        dataset = make_dataset("wilds_fmow", copy)
    assert [domain.name for domain in dataset.domains] == [*dataset.domain_names]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            (1, "004", 4, 1, 2, 1, 0, 5, 0),
            r"metadata.csv, line 12: center must be a hospital from 0 to 4, got '5'",
        ),
        ((1, "004", 4, 1, 2, 2, 0, 1, 0), r"line 12: tumor must be 0 or 1, got '2'"),
        ((1, "../../x", 4, 1, 2, 1, 0, 1, 0), r"line 12: patient must be a whole number, got '../../x'"),
        ((1, "004", "", 1, 2, 1, 0, 1, 0), r"line 12: node must be a whole number, got nothing"),
        (
            (1, "004", 4, 1, 2, 1, 0, 1, 0),
            r"lacks 1 of the 11 images .*first is .*patient_004_node_4_x_1_y_2.png",
        ),
    ],
)
def test_a_bad_row_of_camelyon_is_named(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_dataset("wilds_camelyon", write_camelyon(tmp_path, [row]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ("train", "a", "castle", "CHN", "2016"),
            r"line 15: category must be one of FMoW's 62, got 'castle'",
        ),
        (("", "a", "zoo", "CHN", "2016"), r"line 15: split must be there, got nothing"),
        (
            ("train", "a", "zoo", "MRS", "2016"),
            r"country_code_mapping.csv, line 8: region must be .*got 'Mars'",
        ),
        (("train", "a", "zoo", "CHN", "2016"), r"lacks 1 of the 13 images .*rgb_img_13.png"),
    ],
)
def test_a_bad_row_of_fmow_is_named(
    tmp_path: Path, row: tuple[object, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COUNTRIES, "MRS", "Mars")
    with pytest.raises(ValueError, match=message):
        make_dataset("wilds_fmow", write_fmow(tmp_path, [row]))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks rgb_metadata.csv, country_code_mapping.csv and images/"):
        make_dataset("wilds_fmow", tmp_path)
    place = write_camelyon(tmp_path / "a") / "camelyon17_v1.0"
    write_table(place / "metadata.csv", [name for name in CAMELYON if name != "center"], [])
    with pytest.raises(ValueError, match=r"metadata.csv lacks the column center; allowed is WILDS' table"):
        make_dataset("wilds_camelyon", place)
    write_table(place / "metadata.csv", CAMELYON, [])
    with pytest.raises(ValueError, match=r"metadata.csv has no image of hospital_0"):
        make_dataset("wilds_camelyon", place)
    (place / "metadata.csv").write_bytes(b"")
    with pytest.raises(ValueError, match=r"metadata.csv is no table"):
        make_dataset("wilds_camelyon", place)


def test_verify_and_download_know_them(tmp_path: Path) -> None:
    write_camelyon(tmp_path)
    found = hessalign("datasets", "verify", "wilds_camelyon", "--root", str(tmp_path))
    assert found.returncode == 1
    assert "Wrong: 10 samples in all; published are 455954" in words(found.stdout)
    again = hessalign("datasets", "download", "wilds_camelyon", "--root", str(tmp_path))
    assert again.returncode == 1
    assert "was there already" in words(again.stdout)
