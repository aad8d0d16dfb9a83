"""Datasets by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from hessalign.datasets import DomainDataset, dataset_names, get_dataset, make_dataset, register
from hessalign.datasets.registry import DataSource, find_data
from tests.datasets.images import write_folder

PUBLISHED = {
    # name: (domains, classes, search space, steps between checkpoints, input, totals)
    "colored_mnist": (3, 2, "small", 100, (2, 28, 28), (70_000,)),
    "rotated_mnist": (6, 10, "small", 100, (1, 28, 28), (70_000,)),
    "pacs": (4, 7, "large", 300, (3, 224, 224), (9_991,)),
    "vlcs": (4, 5, "large", 300, (3, 224, 224), (10_729,)),
    "office_home": (4, 65, "large", 300, (3, 224, 224), (15_588,)),
    "terra_incognita": (4, 10, "large", 300, (3, 224, 224), (24_788, 24_330)),
    "domain_net": (6, 345, "domain_net", 1000, (3, 224, 224), (586_575,)),
    "sviro": (10, 7, "large", 300, (3, 224, 224), None),
    "wilds_camelyon": (5, 2, "large", 100, (3, 224, 224), (455_954,)),
    "wilds_fmow": (6, 62, "large", 100, (3, 224, 224), (470_086,)),
    **{
        f"spawrious_{kind}_{level}": (3, 4, "large", 100, (3, 224, 224), (50_688,))
        for kind in ("o2o", "m2m")
        for level in ("easy", "medium", "hard")
    },
}
FOLDERS = ("pacs", "vlcs", "office_home", "terra_incognita", "domain_net", "sviro")
USERS_OWN = ("image_folder", "csv_file", "features_file", "parquet_images", "parquet_features")


def test_all_datasets_are_known() -> None:
    assert dataset_names() == sorted([*PUBLISHED, *USERS_OWN])


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_benchmark_must_know(name: str) -> None:
    dataset = get_dataset(name)
    domains, classes, images, checkpoint_every, input_shape, totals = PUBLISHED[name]
    assert dataset.name == name
    assert len(dataset.domain_names) == domains
    assert dataset.class_count == classes
    assert dataset.search_space == images
    assert dataset.steps == 5001
    assert dataset.checkpoint_every == checkpoint_every
    assert dataset.input_shape == input_shape
    assert (dataset.expected_counts.totals if dataset.expected_counts else None) == totals


@pytest.mark.parametrize("name", ["pacs", "vlcs", "office_home", "domain_net", "spawrious_m2m_hard"])
def test_published_counts_of_the_domains_add_up(name: str) -> None:
    dataset = get_dataset(name)
    counts = dataset.expected_counts
    assert counts is not None
    assert tuple(counts.by_domain) == dataset.domain_names
    assert counts.totals == (sum(counts.by_domain.values()),)


@pytest.mark.parametrize("name", FOLDERS)
def test_domains_on_disk_are_in_sorted_order(name: str) -> None:
    names = get_dataset(name).domain_names
    assert list(names) == sorted(names)


def test_unknown_name_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"dataset: 'pac' is not known; allowed are colored_mnist, csv_file, .*pacs"
    ):
        get_dataset("pac")


@pytest.mark.parametrize("name", ["pacs", "colored_mnist"])
def test_a_taken_name_is_refused(name: str) -> None:
    class Other(DomainDataset):
        pass

    with pytest.raises(ValueError, match=f"name: '{name}' is taken"):
        register(name)(Other)


def test_a_dataset_on_disk_needs_a_root() -> None:
    with pytest.raises(ValueError, match="root: pacs is read from disk and none was given"):
        make_dataset("pacs")


def test_a_third_party_adds_a_dataset(tmp_path: Path) -> None:
    """A module and an entry point, as an installed package has them."""
    (tmp_path / "flowers.py").write_text(
        "from hessalign.datasets import register\n"
        "from hessalign.datasets.image_folder import ImageFolderDomains\n"
        "@register('flowers')\n"
        "class Flowers(ImageFolderDomains): checkpoint_every, images = 50, 'domain_net'\n"
    )
    metadata = tmp_path / "flowers-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: flowers\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[hessalign.datasets]\nflowers = flowers\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from hessalign.datasets import dataset_names, get_dataset\n"
        "assert 'flowers' in dataset_names()\n"
        "assert get_dataset('flowers').checkpoint_every == 50\n"
        # The attribute's name in the first version, which plug-ins may still use.
        "assert get_dataset('flowers').search_space == 'domain_net'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_paths_may_be_text_and_nothing_else(tmp_path: Path) -> None:
    root = str(write_folder(tmp_path / "images", {"a": {"x": 1}, "b": {"x": 1}}))
    assert len(make_dataset("image_folder", root).domains) == 2
    assert find_data(root).open(0).fingerprint == make_dataset("image_folder", Path(root)).fingerprint
    assert find_data("pacs", root).root == Path(root)
    for wrong in (3, b"x", "a\0b"):
        with pytest.raises(ValueError, match="root: must be a path"):
            make_dataset("image_folder", wrong)
        with pytest.raises(ValueError, match="dataset: must be a path"):
            find_data(wrong)
    with pytest.raises(ValueError, match="dataset: '' is not known"):
        find_data("")


def test_a_table_in_capitals_is_one(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": {"x": 1}})
    (tmp_path / "IMAGES.CSV").write_text("path,label,domain\na/x/000.png,x,a\n")
    assert find_data(str(tmp_path / "IMAGES.CSV")).name == "csv_file"


def test_domainbeds_names_are_understood_but_a_path_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_data("ColoredMNIST").name == "colored_mnist"
    assert find_data("OfficeHome", tmp_path) == DataSource("office_home", tmp_path)
    write_folder(tmp_path / "PACS", {"a": {"x": 1}})
    assert find_data("PACS") == DataSource("image_folder", tmp_path / "PACS")
    assert find_data("PACS", tmp_path) == DataSource("pacs", tmp_path)
    assert find_data("pacs").name == "pacs"
