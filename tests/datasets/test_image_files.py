"""Datasets of image files: any folder, any CSV file, and the published ones in their folders."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from hessalign.datasets import Domain, DomainDataset, get_dataset, make_dataset
from hessalign.datasets.csv_file import CSVDomains
from hessalign.datasets.image_folder import ImageFolderDomains
from hessalign.datasets.pacs import PACS
from hessalign.exceptions import HessalignWarning
from tests.datasets.images import PACS_MINI, truncate, write_folder, write_image
from tests.processes import METHOD

COUNTS = {"north": {"cat": 2, "dog": 3}, "east": {"dog": 1, "emu": 2}}
needs_pacs_mini = pytest.mark.skipif(not PACS_MINI.exists(), reason="the images are not on this machine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", COUNTS)


def test_folder_is_listed_in_sorted_order(folder: Path) -> None:
    dataset = ImageFolderDomains(folder)
    assert [domain.name for domain in dataset.domains] == ["east", "north"]
    assert dataset.class_names == ("cat", "dog", "emu")
    assert [domain.targets.tolist() for domain in dataset.domains] == [[1, 2, 2], [0, 0, 1, 1, 1]]
    assert dataset.domains[0].targets.dtype == torch.int64
    assert [len(domain.plain) for domain in dataset.domains] == [3, 5]


def test_samples_are_the_images(folder: Path) -> None:
    domain = ImageFolderDomains(folder).domains[1]
    image, target = domain.plain[3]
    with Image.open(folder / "north" / "dog" / "001.png") as original:
        pixels = np.array(original.resize((224, 224), Image.Resampling.BILINEAR))
    expected = torch.tensor(pixels).permute(2, 0, 1).float() / 255 - torch.tensor([0.485, 0.456, 0.406]).view(
        3, 1, 1
    )
    torch.testing.assert_close(image, expected / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
    assert target == 1
    assert isinstance(target, int)
    augmented, target = domain.augmented[3]
    assert target == 1
    assert augmented.shape == (3, 224, 224)
    assert not torch.equal(augmented, domain.augmented[3][0])


def test_loader_with_workers_reads_the_same(folder: Path) -> None:
    domain = ImageFolderDomains(folder).domains[1]
    loader = DataLoader(domain.plain, batch_size=2, num_workers=1, multiprocessing_context=METHOD)
    images = torch.cat([images for images, _ in loader])
    assert torch.equal(images, torch.stack([domain.plain[index][0] for index in range(5)]))


def test_the_order_is_torchvisions_also_with_nested_folders(tmp_path: Path) -> None:
    """DomainBed lists by torchvision, so its splits fall on the same images."""
    names = ["b.png", "a/z.png", "a-b/c.jpg", "a/0/y.png", "B.JPG", "10.png", "9.png"]
    for seed, name in enumerate(names):
        write_image(tmp_path / "here" / "cat" / name, seed)
        write_image(tmp_path / "here" / "Ant" / name, seed)
    expected = ImageFolder(str(tmp_path / "here")).samples
    domain = ImageFolderDomains(tmp_path).domains[0]
    assert list(zip(domain.plain.paths, domain.targets.tolist(), strict=True)) == expected
    assert domain.plain.paths is domain.augmented.paths


def test_hidden_files_and_those_beside_the_classes_are_ignored(folder: Path) -> None:
    (folder / "notes.txt").write_text("notes")
    (folder / "north" / "list.csv").write_text("list")
    write_image(folder / "north" / "cat" / "._000.png")
    write_image(folder / "north" / "cat" / ".cache" / "000.png")
    write_image(folder / "north" / ".cache" / "000.png")
    write_image(folder / ".cache" / "cat" / "000.png")
    dataset = ImageFolderDomains(folder)
    assert [len(domain) for domain in dataset.domains] == [3, 5]
    assert dataset.class_names == ("cat", "dog", "emu")


def test_what_is_left_out_is_counted_and_said(folder: Path) -> None:
    (folder / "north" / "cat" / "notes.TXT").write_text("notes")
    (folder / "north" / "cat" / "more").mkdir()
    (folder / "north" / "cat" / "more" / "readme").write_text("notes")
    (folder / "east" / "emu" / "x.svg").write_text("<svg/>")
    (folder / "east" / "emu" / "y.svg").write_text("<svg/>")
    write_image(folder / "0.png")
    write_image(folder / "north" / "0.jpg")
    with pytest.warns(
        HessalignWarning, match=r"left out: 2 \.svg, 1 \.txt, 1 files without an ending, 2 images"
    ):
        dataset = ImageFolderDomains(folder)
    outside = "images outside a class folder"
    assert dataset.left_out == {".svg": 2, ".txt": 1, "files without an ending": 1, outside: 2}
    assert [len(domain) for domain in dataset.domains] == [3, 5]


def test_every_known_ending_is_read_in_any_capitals(tmp_path: Path) -> None:
    for name in ("a.gif", "b.GIF", "c.jfif", "d.JPG", "e.Png"):
        write_image(tmp_path / "all" / "x" / name)
    assert len(ImageFolderDomains(tmp_path).domains[0]) == 5
    for domain in PACS.domain_names:
        write_image(tmp_path / "PACS" / domain / "dog" / "0.jpg")
    write_image(tmp_path / "PACS" / "photo" / "dog" / "1.gif")
    with pytest.warns(HessalignWarning, match=r"left out: 1 \.gif"):  # DomainBed leaves it out
        assert [len(domain) for domain in PACS(tmp_path).domains] == [1, 1, 1, 1]


# Links


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("north/cat/up", ".."),
        ("north/cat/up", "../.."),
        ("north/cat/up", "../../.."),
        ("north/cat/up", "/"),
        ("north/cat/up", "."),
        ("north/cat/more", "../dog"),
        ("north/emu", "../east/emu"),
        ("west", "north"),
        ("west", "."),
    ],
)
def test_no_folder_is_read_twice(folder: Path, link: str, target: str) -> None:
    (folder / link).symlink_to(target)
    with pytest.raises(ValueError, match=r"root: .* leads to the same folder as .*; remove one of the two"):
        ImageFolderDomains(folder)


def test_links_out_of_the_root_are_followed_once(folder: Path) -> None:
    elsewhere = write_folder(folder.parent / "elsewhere", {"far": {"cat": 2}})
    (folder / "west").symlink_to(elsewhere / "far")
    (folder / "north" / "cat" / "copy.png").symlink_to("000.png")
    (folder / "north" / "cat" / "nothing").symlink_to("nowhere")
    (folder / "north" / "cat" / "itself").symlink_to("itself")
    with pytest.warns(HessalignWarning, match="left out: 2 files without an ending"):
        dataset = ImageFolderDomains(folder)
    assert [len(domain) for domain in dataset.domains] == [3, 6, 2]
    (folder / "south").symlink_to(elsewhere / "far")
    with pytest.raises(
        ValueError, match=r"south leads to the same folder as|leads to the same folder as .*south"
    ):
        ImageFolderDomains(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_read_is_an_error(folder: Path) -> None:
    (folder / "north" / "cat").chmod(0)
    with pytest.raises(OSError, match="Permission denied"):
        ImageFolderDomains(folder)


# Names


def test_a_level_too_many_is_told(tmp_path: Path) -> None:
    for domain in ("a", "b"):
        write_folder(
            tmp_path / "split" / domain, {"train": {"cat": 1, "dog": 1}, "val": {"cat": 1, "dog": 1}}
        )
        write_folder(tmp_path / "deep" / domain, {"p": {"cat": 1, "dog": 1}, "q": {"cat": 1}})
        write_folder(tmp_path / "fine" / domain, {"cat": {"subject_1": 1}, "dog": {"subject_2": 1}})
        write_image(tmp_path / "fine" / domain / "test" / "0.png")
    with pytest.warns(HessalignWarning, match="class folders 'train', 'val' hold folders instead of images"):
        ImageFolderDomains(tmp_path / "split")
    with pytest.warns(HessalignWarning, match="all of them hold a folder 'cat', as if"):
        ImageFolderDomains(tmp_path / "deep")
    assert ImageFolderDomains(tmp_path / "fine").doubts == ()


@pytest.mark.parametrize("names", [("Cat", "cat"), ("cat ", "cat"), ("b\u00e4r", "ba\u0308r"), ("a b", "ab")])
def test_classes_that_differ_by_next_to_nothing_are_told(tmp_path: Path, names: tuple[str, str]) -> None:
    for domain, name in zip("ab", names, strict=True):
        write_image(tmp_path / domain / name / "0.png")
    with pytest.warns(HessalignWarning, match="class names differ by capitals or blanks alone") as caught:
        dataset = ImageFolderDomains(tmp_path)
    assert [str(warning.message) for warning in caught] == list(dataset.doubts)
    assert all(repr(name) in dataset.doubts[0] for name in names)


def test_folders_that_are_not_utf8_give_no_names(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / os.fsdecode(b"caf\xe9") / "0.png")
    with pytest.raises(ValueError, match=r"class_names: caf\\xe9 is not UTF-8, and no record could hold it"):
        ImageFolderDomains(tmp_path)


def test_domains_of_one_name_are_refused(folder: Path) -> None:
    domain = ImageFolderDomains(folder).domains[0]

    class Own(ImageFolderDomains):
        def __init__(self, classes: tuple[str, ...], domains: tuple[Domain, ...]) -> None:
            DomainDataset.__init__(self, classes, domains)

    with pytest.raises(ValueError, match="domains: 'east' is there twice; every name must be another one"):
        Own(("cat",), (domain, domain))
    with pytest.raises(ValueError, match="class_names: 'cat' is there twice"):
        Own(("cat", "cat"), (domain,))
    with pytest.raises(ValueError, match="class_names: every name must be a text, got 3"):
        Own((3,), (domain,))


def test_two_folders_of_one_published_domain_are_refused(tmp_path: Path) -> None:
    write_folder(
        tmp_path, {name: {"a": 1} for name in ("Art", "Clipart", "Product", "RealWorld", "Real_World")}
    )
    with pytest.raises(ValueError, match=r"RealWorld and .*Real_World are both a folder of one domain"):
        make_dataset("office_home", tmp_path)


def test_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"root: {re.escape(str(tmp_path / 'nowhere'))} is not a folder"):
        ImageFolderDomains(tmp_path / "nowhere")


def test_root_without_domains_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"root: {re.escape(str(tmp_path))} holds no folder"):
        ImageFolderDomains(tmp_path)


def test_empty_class_folder_is_named(folder: Path) -> None:
    empty = folder / "east" / "cat"
    empty.mkdir()
    (empty / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=f"root: the class folder {re.escape(str(empty))} holds no image"):
        ImageFolderDomains(folder)


def test_domain_without_images_is_named(folder: Path) -> None:
    (folder / "west").mkdir()
    with pytest.raises(
        ValueError, match=f"root: the domain folder {re.escape(str(folder / 'west'))} holds no class"
    ):
        ImageFolderDomains(folder)


@pytest.mark.parametrize("extension", ["jpg", "png"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "no image", "removed"])
def test_an_unreadable_image_is_named_in_one_error(tmp_path: Path, extension: str, damage: str) -> None:
    path = write_image(tmp_path / "domain" / "class" / f"image.{extension}", size=(64, 64))
    dataset = ImageFolderDomains(tmp_path)
    if damage == "truncated":
        truncate(path)
    elif damage == "removed":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"some text")
    for read in (dataset.domains[0].plain.__getitem__, dataset.domains[0].plain.check):
        with pytest.raises(OSError, match=f"^{re.escape(str(path))}: the image cannot be read") as caught:
            read(0)
        assert str(caught.value).count(str(path)) == 1
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


# CSV


def write_csv(folder: Path, text: str) -> Path:
    path = folder / "images.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_is_read_in_the_order_of_its_rows(folder: Path) -> None:
    elsewhere = write_image(folder.parent / "elsewhere" / "emu, big.png", seed=9)
    table = write_csv(
        folder,
        "\ufeffpath,photographer,label,domain\n"
        "north/dog/002.png,A,dog,snow\n"
        "north/cat/000.png,B,cat,sand\n\n"
        '"../elsewhere/emu, big.png",C,emu,snow\n'
        f'"{elsewhere}",C,emu,snow\n',
    )
    dataset = CSVDomains(table)
    assert [domain.name for domain in dataset.domains] == ["sand", "snow"]
    assert dataset.class_names == ("cat", "dog", "emu")
    assert [domain.targets.tolist() for domain in dataset.domains] == [[0], [1, 2, 2]]
    folders = ImageFolderDomains(folder)
    assert torch.equal(dataset.domains[1].plain[0][0], folders.domains[1].plain[4][0])
    assert torch.equal(dataset.domains[1].plain[1][0], dataset.domains[1].plain[2][0])


def test_csv_labels_that_are_numbers_are_sorted_as_numbers(folder: Path) -> None:
    rows = [f"north/dog/000.png,{label},d" for label in (10, 2, 0)]
    dataset = CSVDomains(write_csv(folder, "\n".join(["path,label,domain", *rows])))
    assert dataset.class_names == ("0", "2", "10")
    assert dataset.domains[0].targets.tolist() == [2, 1, 0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_of_other_programs_is_read(folder: Path, delimiter: str) -> None:
    rows = [
        ("Domain", " PATH", "note, with; both", "Label"),
        ("snow", "north/dog/000.png", "a, b; c", "dog"),
        ("sand", "./north/../north/cat/000.png", "", "cat"),
    ]
    text = "\ufeff" + "\r\n".join(delimiter.join(f'"{value}"' for value in row) for row in rows)
    dataset = CSVDomains(write_csv(folder, text))
    assert [domain.name for domain in dataset.domains] == ["sand", "snow"]
    assert dataset.class_names == ("cat", "dog")


def test_missing_values_that_became_text_are_told(folder: Path) -> None:
    path = write_csv(folder, "path,label,domain\nnorth/dog/000.png,nan,a\nnorth/dog/001.png,dog,NaN\n")
    with pytest.warns(HessalignWarning) as caught:
        CSVDomains(path)
    assert sorted(str(warning.message).split(", ")[0] for warning in caught) == [
        "a class is called 'nan'",
        "a domain is called 'NaN'",
    ]


GOOD = "north/dog/000.png,dog,snow\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "lacks the column path; allowed is a header with .*; its first line is empty",
        ),
        ("path,label\nnorth/dog/000.png,dog\n", "lacks the column domain; .*; found are 'path', 'label'"),
        ("path;label;place\n", "lacks the column domain; .*; found are 'path', 'label', 'place'"),
        ("path|label|domain\n", r"lacks the column path; .*; found are 'path\|label\|domain'"),
        ("path,label,domain,label\n", "has the column label more than once"),
        (f"Path,label,domain,path\n{GOOD}", "has the column path more than once"),
        (f"path,label,domain\n{GOOD}path,label,domain\n{GOOD}", "line 3: the header is there again"),
        (f"path,label,domain\n{GOOD}a\0.png,dog,snow\n", "line 3: there is no file"),
        (f"path,label,domain\n{GOOD}{'a' * 999}.png,dog,snow\n", "line 3: there is no file"),
        ("path,label,domain\nnorth/dog/000.png\n", "line 2: no label"),
        ("path,label,domain\n", "has no row"),
        (f'path,label,domain\n{GOOD}"north/dog/000.png,dog,snow\n{GOOD}', "line 3: not CSV"),
        (f"path,label,domain\n{GOOD}north/dog/000.png,dog\n,,\n", "line 3: no domain"),
        (f"path,label,domain\n{GOOD}\nnorth/dog/000.png,  ,snow\n", "line 4: no label"),
        (f"path,label,domain\n{GOOD},dog,snow\n", "line 3: no path"),
        ("path,label,domain\nnorth/dog/000.png,dog,snow,hail\n", "line 2: more values than columns"),
        (
            f"path,label,domain\n{GOOD}north/dog/9.png,dog,snow\n",
            r"line 3: there is no file .*north/dog/9\.png",
        ),
        (
            "path,label,domain\nnotes.txt,dog,snow\n",
            r"line 2: 'notes\.txt' is no image; allowed are names ending",
        ),
    ],
)
def test_the_first_bad_row_is_named(folder: Path, text: str, message: str) -> None:
    path = write_csv(folder, text)
    with pytest.raises(ValueError, match=f"^path: {re.escape(str(path))}.*{message}"):
        CSVDomains(path)


def test_csv_that_is_no_text_is_named(folder: Path) -> None:
    path = folder / "images.csv"
    path.write_bytes(b"path,label,domain\n\xff\xfe,dog,snow\n")
    with pytest.raises(ValueError, match=r"images\.csv is not UTF-8 text"):
        CSVDomains(path)


def test_missing_csv_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: .*nowhere\.csv is not a file"):
        CSVDomains(tmp_path / "nowhere.csv")


# Published datasets


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("pacs", "PACS"),
        ("vlcs", "VLCS"),
        ("office_home", "office_home"),
        ("terra_incognita", "terra_incognita"),
        ("domain_net", "domain_net"),
    ],
)
def test_published_datasets_are_found_in_domain_beds_folders(tmp_path: Path, name: str, folder: str) -> None:
    names = get_dataset(name).domain_names
    write_folder(tmp_path / folder, {domain: {"a": 1, "b": 2} for domain in reversed(names)})
    write_image(tmp_path / folder / "__MACOSX" / "a" / "0.png")
    for root in (tmp_path, tmp_path / folder):
        dataset = make_dataset(name, root)
        assert tuple(domain.name for domain in dataset.domains) == names
        assert [domain.targets.tolist() for domain in dataset.domains] == [[0, 1, 1]] * len(names)
        for domain in dataset.domains:
            assert all(f"/{domain.name}/" in path for path in domain.plain.paths)


@pytest.mark.parametrize("spelling", ["RealWorld", "Real_World", "real world"])
def test_spellings_of_domain_folders(tmp_path: Path, spelling: str) -> None:
    write_folder(tmp_path, {name: {"a": 1} for name in ("Art", "Clipart", "Product", spelling)})
    assert make_dataset("office_home", tmp_path).domains[3].name == "Real World"


def test_missing_domain_folders_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "PACS", {"photo": {"dog": 1}, "cartoon": {"dog": 1}})
    with pytest.raises(
        ValueError, match=r"root: .*PACS lacks the domain folders art_painting, sketch; PACS has"
    ):
        PACS(tmp_path)
    with pytest.raises(
        ValueError, match=r"root: .*nowhere is not a folder; allowed is a folder that holds PACS/"
    ):
        PACS(tmp_path / "nowhere")


@needs_pacs_mini
def test_real_images_are_listed_as_they_lie_on_disk() -> None:
    for dataset in (ImageFolderDomains(PACS_MINI), PACS(PACS_MINI)):
        assert [domain.name for domain in dataset.domains] == ["art_painting", "cartoon", "photo", "sketch"]
        assert dataset.class_names == ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
        for domain in dataset.domains:
            for class_id, class_name in enumerate(dataset.class_names):
                files = list((PACS_MINI / domain.name / class_name).glob("*.*"))
                assert len(files) == int((domain.targets == class_id).sum())
        assert sum(map(len, dataset.domains)) == 1677


@needs_pacs_mini
def test_a_copy_of_real_images_reads_and_a_truncated_one_is_named(tmp_path: Path) -> None:
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        target = tmp_path / domain / "dog"
        target.mkdir(parents=True)
        for path in sorted((PACS_MINI / domain / "dog").iterdir())[:2]:
            shutil.copy(path, target)
    dataset = PACS(tmp_path)
    image, _ = dataset.domains[2].plain[0]
    assert image.shape == (3, 224, 224)
    truncate(Path(dataset.domains[2].plain.paths[0]))
    with pytest.raises(OSError, match=r"photo/dog/.*: the image cannot be read \(image file is truncated"):
        dataset.domains[2].plain[0]
