"""Whether a copy is whole, from Python and from the command line."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from subprocess import CompletedProcess
from typing import ClassVar

import pytest

from hessalign.datasets import PublishedCounts, dataset_names
from hessalign.datasets.colored_mnist import ColoredMNIST
from hessalign.datasets.csv_file import CSVDomains
from hessalign.datasets.image_folder import ImageFolderDomains
from hessalign.datasets.pacs import PACS
from hessalign.datasets.verify import verify
from hessalign.exceptions import HessalignWarning
from tests.cli.command import hessalign, words
from tests.datasets.images import PACS_MINI, truncate, write_folder, write_image

COUNTS = {"east": {"cat": 0, "dog": 1, "emu": 2}, "north": {"cat": 2, "dog": 3, "emu": 0}}


class Birds(ImageFolderDomains):
    name = "birds"
    class_count = 3
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts((8, 9), {"east": 3, "north": 5})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", COUNTS)


def datasets(*arguments: str) -> CompletedProcess[str]:
    return hessalign("datasets", *arguments)


def test_counts_are_those_on_disk(folder: Path) -> None:
    seen = []
    report = verify(ImageFolderDomains(folder), lambda: seen.append(1))
    assert report.counts == COUNTS
    assert report.total == len(seen) == 8
    assert report.empty_classes == ("east/cat", "north/emu")
    assert report.published_totals == ()
    assert report.ok


def test_a_whole_copy_is_well(folder: Path) -> None:
    report = verify(Birds(folder))
    assert report.ok
    assert report.published_counts == {"east": 3, "north": 5}


def test_every_difference_is_told(folder: Path) -> None:
    write_image(folder / "north" / "owl" / "0.png")
    write_image(folder / "north" / "owl" / "1.png")
    report = verify(Birds(folder))
    assert not report.ok
    assert report.problems == (
        "4 classes; published are 3",
        "north: 7 samples; published are 5",
        "10 samples in all; published are 8 or 9",
    )


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a": {"x": 2}, "b": {"x": 1}})
    first = write_image(folder / "a" / "x" / "large.jpg", size=(64, 64))
    second = folder / "b" / "x" / "000.png"
    truncate(first)
    second.write_bytes(b"")
    report = verify(ImageFolderDomains(folder))
    assert not report.ok
    assert report.problems == ()
    assert [message.split(":")[0] for message in report.unreadable] == [str(first), str(second)]


def test_equal_files_of_a_domain_are_named(folder: Path) -> None:
    north = folder / "north"
    shutil.copy(north / "cat" / "000.png", north / "dog" / "copy.png")
    shutil.copy(north / "cat" / "000.png", north / "cat" / "again.png")
    shutil.copy(north / "dog" / "002.png", folder / "east" / "dog" / "elsewhere.png")
    same_size = bytearray((north / "dog" / "001.png").read_bytes())
    same_size[-1] ^= 1
    (north / "dog" / "other.png").write_bytes(same_size)
    report = verify(ImageFolderDomains(folder))
    names = ("cat/000.png", "cat/again.png", "dog/copy.png")
    assert report.duplicates == (tuple(str(north / name) for name in names),)
    assert report.conflicting == report.duplicates
    elsewhere = (str(folder / "east" / "dog" / "elsewhere.png"), str(north / "dog" / "002.png"))
    assert report.across_domains == (elsewhere,)
    assert [problem.split(":")[0] for problem in report.problems] == [
        "1 image is in several domains, so that a target domain is trained on",
        "1 image is in several classes",
    ]
    assert elsewhere[0] in report.problems[0]
    assert f"{north / 'dog' / 'copy.png'}" not in report.problems[0]


def test_equal_files_of_published_data_are_named_only(folder: Path) -> None:
    shutil.copy(folder / "north" / "dog" / "002.png", folder / "east" / "dog" / "000.png")
    shutil.copy(folder / "north" / "cat" / "000.png", folder / "north" / "dog" / "000.png")
    report = verify(Birds(folder))
    assert report.ok
    assert len(report.across_domains) == len(report.conflicting) == 1


def test_verify_sees_what_training_would_see(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": {"Cat": 1, "dog": 1}, "b": {"cat ": 1, "train": 0, "nan": 1}})
    write_image(tmp_path / "b" / "train" / "dog" / "0.png", seed=9)
    (tmp_path / "b" / "nan" / "x.svg").write_text("<svg/>")
    with pytest.warns(HessalignWarning):
        report = verify(ImageFolderDomains(tmp_path))
    assert not report.ok
    assert report.left_out == {".svg": 1}
    assert [problem.split(",")[0] for problem in report.problems] == [
        "the class folders 'train' hold folders instead of images",
        "class names differ by capitals or blanks alone",
        "a class is called 'nan'",
    ]


def test_names_that_are_not_utf8_are_reported_as_text(tmp_path: Path) -> None:
    good = write_image(tmp_path / "a" / "x" / "0.png")
    for name in (b"\xe9.png", b"\xff.png"):
        shutil.copy(good, os.fsencode(good.parent) + b"/" + name)
    (good.parent / os.fsdecode(b"\xfe.png")).write_bytes(b"")
    report = verify(ImageFolderDomains(tmp_path))
    json.dumps(asdict(report), ensure_ascii=False).encode("utf-8")
    assert report.duplicates[0][1:] == (rf"{good.parent}/\xe9.png", rf"{good.parent}/\xff.png")
    assert report.unreadable[0].startswith(rf"{good.parent}/\xfe.png: the image cannot be read")


def test_a_row_that_is_there_twice_is_named(folder: Path) -> None:
    row = "north/cat/000.png,cat,north\n"
    (folder / "images.csv").write_text(f"path,label,domain\n{row}north/cat/001.png,cat,north\n{row}")
    path = str(folder / "north/cat/000.png")
    assert verify(CSVDomains(folder / "images.csv")).duplicates == ((path, path),)


def test_missing_files_are_unreadable_but_not_equal(folder: Path) -> None:
    dataset = ImageFolderDomains(folder)
    (folder / "north" / "cat" / "000.png").unlink()
    (folder / "north" / "cat" / "001.png").unlink()
    report = verify(dataset)
    assert len(report.unreadable) == 2
    assert report.duplicates == ()


def test_mnist_is_whole() -> None:
    report = verify(ColoredMNIST())
    assert report.ok
    assert report.total == 70_000


@pytest.mark.skipif(not PACS_MINI.exists(), reason="the images are not on this machine")
def test_a_part_of_pacs_is_not_pacs() -> None:
    report = verify(PACS(PACS_MINI))
    assert report.unreadable == ()
    assert report.problems[0] == "art_painting: 345 samples; published are 2048"
    assert report.problems[-1] == "1677 samples in all; published are 9991"


def test_command_lists_all_datasets() -> None:
    result = datasets("list", "--json")
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == dataset_names()
    assert rows["pacs"]["domains"] == ["art_painting", "cartoon", "photo", "sketch"]
    assert rows["domain_net"]["checkpoint_every"] == 1000
    table = datasets("list")
    assert table.returncode == 0
    assert all(name in table.stdout for name in rows)
    assert "586,575" in table.stdout


def test_command_verifies_a_good_folder(folder: Path) -> None:
    shutil.copy(folder / "north" / "dog" / "000.png", folder / "north" / "dog" / "002.png")
    result = datasets("verify", "image_folder", "--root", str(folder))
    assert result.returncode == 0, result.stderr
    assert "All 8 samples can be read; nothing is wrong (no published counts" in words(result.stdout)
    assert "Without a sample: east/cat, north/emu" in words(result.stdout)
    equal = f"Equal files: {folder}/north/dog/000.png, {folder}/north/dog/002.png"
    assert equal in result.stdout
    assert "8/8" in result.stderr


def test_command_tells_what_is_wrong(tmp_path: Path) -> None:
    names = ("art_painting", "cartoon", "photo", "sketch")
    folder = write_folder(tmp_path / "PACS", {name: {"dog": 1} for name in names})
    damaged = folder / "photo" / "dog" / "000.png"
    truncate(damaged)
    result = datasets("verify", "pacs", "--root", str(tmp_path))
    assert result.returncode == 1
    assert "Wrong: sketch: 1 samples; published are 3929" in result.stdout
    assert f"Unreadable: {damaged}: the image cannot be read" in result.stdout
    result = datasets("verify", "pacs", "--root", str(tmp_path), "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert report["total"] == 4
    assert report["counts"]["photo"] == {"dog": 1}
    assert len(report["unreadable"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "dataset: 'nothing' is not known; allowed are colored_mnist"),
        (("pacs",), "root: pacs is read from disk and none was given"),
        (("pacs", "--root", "nowhere"), "root: there is no file or folder nowhere"),
        (("csv_file", "--root", "nowhere.csv"), "root: there is no file or folder nowhere.csv"),
    ],
)
def test_command_refuses_bad_input(arguments: tuple[str, ...], message: str) -> None:
    result = datasets("verify", *arguments)
    assert result.returncode == 2
    assert message in words(result.stderr)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_help_teaches() -> None:
    result = datasets("verify", "--help")
    assert result.returncode == 0
    assert "hessalign datasets verify pacs --root data" in words(result.stdout)
    assert "verify" in datasets("--help").stdout
