"""Images and embeddings in Parquet files."""

import hashlib
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from hessalign.datasets import make_dataset, verify
from hessalign.datasets.features_file import FeaturesFile, save_features
from hessalign.datasets.image_folder import ImageFolderDomains
from hessalign.datasets.parquet_features import ParquetFeatures
from hessalign.datasets.parquet_images import ParquetImages
from hessalign.datasets.registry import find_data
from hessalign.exceptions import HessalignWarning
from hessalign.training import Machine, train_together
from tests.cli.command import hessalign
from tests.datasets.images import write_folder
from tests.nasty_names import NASTY
from tests.training.tiny_features import feature_spec

COUNTS = {"north": {"cat": 2, "dog": 1}, "south": {"cat": 1, "dog": 2}}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """What a folder of images holds, as rows."""
    return [
        {
            "image": {"bytes": path.read_bytes(), "path": path.name},
            "label": path.parent.name,
            "domain": path.parents[1].name,
            "note": "of no use",
        }
        for path in sorted(folder.glob("*/*/*.png"))
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", COUNTS)


def write(path: Path, rows: list[dict[str, Any]], names: dict[str, list[str]] | None = None) -> Path:
    """A Parquet file; names of integers are written as Hugging Face's datasets does."""
    features = {name: {"names": known, "_type": "ClassLabel"} for name, known in (names or {}).items()}
    features |= {"image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    polars.DataFrame(rows).write_parquet(path, metadata=metadata)
    return path


def same_images(dataset: ParquetImages, folder: Path) -> bool:
    expected = ImageFolderDomains(folder)
    assert dataset.class_names == expected.class_names
    assert [domain.name for domain in dataset.domains] == [domain.name for domain in expected.domains]
    for found, there in zip(dataset.domains, expected.domains, strict=True):
        assert found.targets.tolist() == there.targets.tolist()
        assert found.plain.preprocessing == there.plain.preprocessing
        assert found.augmented.preprocessing == there.augmented.preprocessing
        for index in range(len(found)):
            torch.testing.assert_close(found.plain[index], there.plain[index], rtol=0, atol=0)
    return True


@pytest.mark.parametrize("form", ["struct", "bytes", "path", "absolute path"])
def test_images_are_those_of_the_files(folder: Path, form: str) -> None:
    rows = rows_of(folder)
    for row, path in zip(rows, sorted(folder.glob("*/*/*.png")), strict=True):
        if form != "struct":
            row["image"] = {
                "bytes": path.read_bytes(),
                "path": f"images/{path.relative_to(folder)}",
                "absolute path": str(path),
            }[form]
    assert same_images(ParquetImages(write(folder.parent / "a.parquet", rows)), folder)


def test_a_struct_may_have_bytes_in_some_rows_and_paths_in_others(folder: Path) -> None:
    rows = rows_of(folder)
    for row, path in list(zip(rows, sorted(folder.glob("*/*/*.png")), strict=True))[::2]:
        row["image"] = {"bytes": None, "path": f"images/{path.relative_to(folder)}"}
    dataset = ParquetImages(write(folder.parent / "a.parquet", rows))
    assert same_images(dataset, folder)
    plain = dataset.domains[0].plain
    assert [plain.file_of(index) is None for index in range(3)] == [False, True, False]


def test_several_files_are_one_table(folder: Path, tmp_path: Path) -> None:
    rows = rows_of(folder)
    place = tmp_path / "hub" / "data"
    place.mkdir(parents=True)
    for number, part in enumerate((rows[:1], rows[1:4], rows[4:])):
        write(place / f"train-{number:05}.parquet", part)
    (place / ".hidden.parquet").write_text("none")
    several = find_data(str(tmp_path / "hub")).open(0)
    assert isinstance(several, ParquetImages)
    assert same_images(several, folder)
    one = ParquetImages(write(tmp_path / "one.parquet", rows))
    assert one.fingerprint == several.fingerprint
    loaded = [
        batch for domain in several.domains for batch in DataLoader(domain.plain, batch_size=2, num_workers=1)
    ]
    torch.testing.assert_close(loaded[0][0][0], several.domains[0].plain[0][0])


@pytest.mark.parametrize("change", ["image", "label", "domain", "order"])
def test_another_content_has_another_fingerprint(folder: Path, tmp_path: Path, change: str) -> None:
    rows = rows_of(folder)
    first = ParquetImages(write(tmp_path / "a.parquet", rows)).fingerprint
    if change == "image":
        rows[0]["image"] = rows[1]["image"]
    elif change == "order":
        rows[:2] = rows[1::-1]
    else:
        rows[0][change] = rows[-1][change]
    assert ParquetImages(write(tmp_path / "b.parquet", rows)).fingerprint != first


def test_integers_have_the_names_that_hugging_face_gave_them(folder: Path, tmp_path: Path) -> None:
    rows = [row | {"label": ["dog", "cat"].index(row["label"])} for row in rows_of(folder)]
    named = ParquetImages(write(tmp_path / "a.parquet", rows, {"label": ["dog", "cat", "owl"]}))
    assert named.class_names == ("dog", "cat", "owl")
    assert named.domains[0].targets.tolist() == [1, 1, 0]
    plain = ParquetImages(write(tmp_path / "b.parquet", [row | {"label": 10 - row["label"]} for row in rows]))
    assert plain.class_names == ("9", "10")  # as numbers, not as texts
    assert plain.domains[0].targets.tolist() == [0, 0, 1]
    with pytest.raises(
        ValueError, match=r"label: .*a.parquet, row 2 \(from 0\): label 3 is not among the 3 nam"
    ):
        ParquetImages(
            write(
                tmp_path / "a.parquet", [*rows[:2], rows[2] | {"label": 3}], {"label": ["dog", "cat", "owl"]}
            )
        )


def test_columns_can_be_named(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"picture": row["image"], "breed": row["label"], "site": row["domain"]} for row in rows_of(folder)
    ]
    path = write(tmp_path / "a.parquet", rows)
    assert same_images(ParquetImages(path, image="picture", label="breed", domain="site"), folder)
    with pytest.raises(
        ValueError, match=r"image: .*lacks a column 'image' or 'path'; found are 'picture' \(Struct"
    ):
        ParquetImages(path)
    with pytest.raises(
        ValueError, match=r"domain: .*a.parquet lacks a column 'domain'; found are .*'site' \(String"
    ):
        ParquetImages(path, image="picture", label="breed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, r"label: .*a.parquet, row 1 \(from 0\): no label"),
        ({"domain": None}, r"domain: .*a.parquet, row 1 \(from 0\): no domain"),
        ({"image": None}, r"image: .*row 1 \(from 0\): no image"),
        ({"image": {"bytes": None, "path": None}}, r"image: .*row 1 \(from 0\): no image"),
        ({"image": {"bytes": b"", "path": "a.png"}}, r"image: .*row 1 \(from 0\): it has 0 bytes"),
        ({"image": {"bytes": None, "path": "x.png"}}, r"row 1 .*'x.png' is not there; relative paths start"),
        (
            {"image": {"bytes": None, "path": "../x.png"}},
            r"'../x.png' leads out of the file's folder; allowed",
        ),
        (
            {"image": {"bytes": None, "path": "a.txt"}},
            r"'a.txt' is no image; allowed are names ending in .jpg",
        ),
    ],
)
def test_the_first_bad_row_is_named(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    rows = rows_of(folder)
    rows[1] |= change
    with pytest.raises(ValueError, match=message):
        ParquetImages(write(tmp_path / "a.parquet", rows))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": [1.5], "label": ["x"], "domain": ["a"]},
            r"'image' of .* must hold bytes, paths, or a struct",
        ),
        (
            {"image": [b"x"], "label": [0.5], "domain": ["a"]},
            r"label: .*must hold integers or strings, got Float64",
        ),
        (
            {"image": [b"x"], "label": [True], "domain": ["a"]},
            r"label: .*must hold integers or strings, got Bool",
        ),
        (
            {"image": [b"x"], "domain": ["a"]},
            r"label: .*lacks a column 'label'; found are 'image' \(Binary\), 'do",
        ),
        (
            {"image": [], "label": [], "domain": []},
            r"a.parquet has no row; allowed is one row for each sample",
        ),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, columns: dict[str, list[Any]], message: str) -> None:
    polars.DataFrame(columns).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        ParquetImages(tmp_path / "a.parquet")


def test_what_is_no_parquet_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("path,label")
    with pytest.raises(ValueError, match=r"a.parquet cannot be read as Parquet \("):
        ParquetImages(tmp_path / "a.parquet")
    whole = write(tmp_path / "b.parquet", rows_of(folder)).read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"b.parquet cannot be read as Parquet \("):
        find_data(str(tmp_path / "b.parquet"))
    with pytest.raises(ValueError, match=r"is no file, and no folder that holds one"):
        ParquetImages(tmp_path / "none")
    write(tmp_path / "a.parquet", rows_of(folder))
    write(tmp_path / "b.parquet", [{"image": b"x", "label": 1}])
    with pytest.raises(ValueError, match=r"b.parquet has other columns than .*a.parquet"):
        ParquetImages(tmp_path)
    with pytest.raises(ValueError, match="root: parquet_images is read from disk and none was given"):
        make_dataset("parquet_images")
    with pytest.raises(ValueError, match="path: must be a path, got 3"):
        ParquetImages(3)


def test_an_unreadable_image_is_named_and_equal_ones_are_found(folder: Path, tmp_path: Path) -> None:
    rows = rows_of(folder)
    rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:40]
    rows[4]["image"] = rows[1]["image"]  # in another domain and another class
    path = write(tmp_path / "a.parquet", rows)
    dataset = ParquetImages(path)
    with pytest.raises(
        OSError, match=r"a.parquet, row 0: the image cannot be read \(.*\); replace or remove the row"
    ):
        dataset.domains[0].plain[0]
    report = verify.verify(dataset)
    assert len(report.unreadable) == 1
    assert report.unreadable[0].startswith(f"north: {path}, row 0: the image cannot be read")
    assert report.across_domains == ((f"{path}, row 1", f"{path}, row 4"),)
    assert "in several domains, so that a target domain is trained on" in report.problems[0]
    shown = hessalign("datasets", "verify", "parquet_images", "--root", str(path))
    assert (shown.returncode, "row 4" in shown.stdout) == (1, True)


def test_names_are_names(tmp_path: Path) -> None:
    pixel = BytesIO()
    Image.new("RGB", (2, 2)).save(pixel, "png")
    for name in ("[a-z]*?", "a=1", NASTY[0].replace("/", "")):
        place = tmp_path / hashlib.md5(name.encode()).hexdigest() / name
        place.mkdir(parents=True)
        rows = [{"image": pixel.getvalue(), "label": name, "domain": domain} for domain in (name, "other")]
        write(place / f"{name}.parquet", rows)
        for path in (place, place / f"{name}.parquet"):
            assert find_data(str(path)).open(0).class_names == (name,)


def vectors(dtype: Any = None, **changed: Any) -> polars.DataFrame:
    numbers = np.arange(18, dtype=np.float32).reshape(6, 3)
    columns = {
        "id": range(6),
        "features": polars.Series(numbers.tolist()).cast(dtype or polars.List(polars.Float32)),
        "label": ["b", "a"] * 3,
        "domain": [10, 9, 10, 9, 9, 10],
    }
    return polars.DataFrame(columns | changed)


@pytest.mark.parametrize(
    "dtype",
    [
        polars.List(polars.Float32),
        polars.Array(polars.Float32, 3),
        polars.List(polars.Float64),
        polars.Array(polars.Float16, 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["features", "embedding", "embeddings", "vector"])
def test_vectors_are_those_of_the_rows(tmp_path: Path, dtype: Any, name: str) -> None:
    path = tmp_path / "v.parquet"
    vectors(dtype).rename({"features": name}).write_parquet(path)
    source = find_data(str(path))
    assert source.name == "parquet_features"
    dataset = source.open(0)
    assert [domain.name for domain in dataset.domains] == ["9", "10"]
    assert (dataset.class_names, dataset.input_shape) == (("a", "b"), (3,))
    rows = [[1, 3, 4], [0, 2, 5]]
    expected = torch.arange(18.0).reshape(6, 3)
    for domain, own in zip(dataset.domains, rows, strict=True):
        assert torch.equal(torch.stack([domain.plain[index][0] for index in range(3)]), expected[own])
        assert domain.targets.tolist() == [1 - row % 2 for row in own]


def test_rounding_is_told_and_never_loses_a_number(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    kind = polars.List(polars.Float64)
    numbers = [[0.1, 1.0]] * 6
    vectors(features=polars.Series(numbers, dtype=kind)).write_parquet(path)
    with pytest.warns(
        HessalignWarning, match=r"float64 numbers of 'features' in .*v.parquet are rounded to float32"
    ):
        assert ParquetFeatures(path).domains[0].plain[0][0].tolist() == [np.float32(0.1), 1.0]
    vectors(features=polars.Series([*numbers[:5], [1e300, 0.0]], dtype=kind)).write_parquet(path)
    with pytest.raises(
        ValueError, match=r"vector: .*row 5 \(from 0\): a number of it is too large for float32"
    ):
        ParquetFeatures(path)


def replaced(row: int, value: Any) -> Callable[[], polars.DataFrame]:
    numbers: list[Any] = np.arange(18, dtype=np.float32).reshape(6, 3).tolist()
    numbers[row] = value
    return lambda: vectors(features=polars.Series(numbers, dtype=polars.List(polars.Float32)))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (replaced(2, [1.0, float("nan"), 2.0]), r"vector: .*row 2 \(from 0\): it holds NaN or infinity"),
        (replaced(5, [1.0, float("inf"), 2.0]), r"row 5 \(from 0\): it holds NaN or infinity"),
        (replaced(3, [1.0, 2.0]), r"row 3 \(from 0\): it has 2 numbers where the first row has 3"),
        (replaced(3, []), r"row 3 \(from 0\): it has 0 numbers where the first row has 3"),
        (replaced(0, None), r"row 0 \(from 0\): no features"),
        (replaced(4, [1.0, None, 2.0]), r"row 4 \(from 0\): a number of it is missing"),
        (
            lambda: vectors(polars.List(polars.Int64)),
            r"'features' of .* must hold lists or arrays of floats, got",
        ),
        (lambda: vectors(features=[1.0] * 6), r"must hold lists or arrays of floats, got Float64"),
        (lambda: vectors(features=[[]] * 6), r"must hold lists or arrays of floats, got List\(Null\)"),
        (lambda: vectors(label=[None, *"aaaaa"]), r"label: .*row 0 \(from 0\): no label"),
        (lambda: vectors().drop("domain"), r"domain: .*lacks a column 'domain'"),
        (lambda: vectors().drop("features"), r"vector: .*lacks a column 'features' or 'embedding' or"),
    ],
)
def test_wrong_vectors_are_named(tmp_path: Path, table: Callable[[], polars.DataFrame], message: str) -> None:
    table().write_parquet(tmp_path / "v.parquet")
    with pytest.raises(ValueError, match=message):
        ParquetFeatures(tmp_path / "v.parquet")


def test_runs_on_vectors_are_those_on_a_features_file(tmp_path: Path) -> None:
    table = polars.concat([vectors()] * 5)
    table.write_parquet(tmp_path / "v.parquet")
    file = tmp_path / "f.safetensors"
    numbers = np.array(table["features"].to_list(), dtype=np.float32)
    names = [str(domain) for domain in table["domain"]]
    save_features(file, numbers, table["label"], names, domain_names=("9", "10"))
    metrics = []
    for dataset in (ParquetFeatures(tmp_path / "v.parquet"), FeaturesFile(file)):
        changes = {"dataset": dataset.name, "target_domains": (0,), "steps": 2, "seed": 3}
        specs = [feature_spec("erm", {"lr": lr}, **changes) for lr in (0.1, 0.2)]
        folders = [tmp_path / f"{dataset.name}-{number}" for number in range(2)]
        records = train_together(specs, dataset, folders, Machine("cpu"))
        metrics.append([{name: record[name] for name in ("loss", "accuracies")} for record in records])
    assert metrics[0] == metrics[1]


def test_a_run_on_vectors_is_trained_again(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    polars.concat([vectors()] * 4).write_parquet(path)
    common = ("--dataset", path, "--device", "cpu")
    chosen = ("--algorithm", "erm", "--target", "9", "--steps", 2, "--set", "batch_size=4")
    run = hessalign("train", *common, *chosen, "--out", tmp_path / "run")
    assert run.returncode == 0, run.stderr
    again = hessalign("train", "--spec", tmp_path / "run", *common, "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    polars.concat([vectors()] * 5).write_parquet(path)
    other = hessalign("train", "--spec", tmp_path / "run", *common, "--out", tmp_path / "other")
    assert (other.returncode, "are not those of the run" in other.stderr) == (2, True)


@pytest.mark.slow
def test_vectors_are_inspected_as_a_features_file_is(tmp_path: Path) -> None:
    polars.concat([vectors()] * 5).write_parquet(tmp_path / "v.parquet")
    found = hessalign("inspect", tmp_path / "v.parquet", "--replicates", 20, "--json")
    assert found.returncode == 0, found.stderr
    assert {"9", "10"} <= {row["domain"] for row in json.loads(found.stdout)["v, logistic head"]["domains"]}
