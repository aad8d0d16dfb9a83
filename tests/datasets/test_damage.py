"""Damaged files of every kind that datasets read: one sentence that names the file, and nothing else happens.

A few dozen mutations by default, hundreds where ``CI`` is set; always the same ones.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hessalign.datasets import archives, mnist
from hessalign.datasets.archives import extract
from hessalign.datasets.csv_file import CSVDomains
from hessalign.datasets.download import read_duplicates
from hessalign.datasets.features_file import FeaturesFile, save_features
from hessalign.datasets.features_format import read_metadata
from hessalign.datasets.image_reading import read_image
from tests.datasets.images import write_image

EACH = 40 if os.environ.get("CI") else 3
"""Mutations of each file."""
FILES = {"a/1.txt": b"one" * 50, "a/b/2.txt": b"two" * 90, "3.txt": b""}


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, cut off, doubled, moved, or set to what parsers like least."""
    kind, place = random.integers(7), int(random.integers(len(content) + 1))
    end = min(len(content), place + int(random.integers(1, 40)))
    changed = bytearray(content)
    if kind == 0:
        return content[:place]
    if kind == 1:
        changed[place:end] = random.bytes(end - place)
    elif kind == 2:
        for spot in random.integers(0, len(content), 3):
            changed[spot] ^= 1 << random.integers(8)
    elif kind == 3:
        changed[place:place] = changed[place:end]
    elif kind == 4:
        del changed[place:end]
    elif kind == 5:
        changed[place:end] = bytes([random.choice([0, 255, 127, 128])]) * (end - place)
    else:
        numbers = [
            b"-1",
            b"99999999999999999999",
            b"1e999",
            b"NaN",
            b'"',
            b"[",
            b"{",
            b"\n",
            b";",
            b"\0",
            b"../",
        ]
        changed[place:end] = numbers[random.integers(len(numbers))]
    return bytes(changed)


def packed(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind.startswith("zip"):
        method = {"zip": zipfile.ZIP_DEFLATED, "zip.lzma": zipfile.ZIP_LZMA, "zip.bz2": zipfile.ZIP_BZIP2}[
            kind
        ]
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)
        return stream.getvalue()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in {**FILES, "ü" * 60: b"long"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    pack = {"tar": bytes, "tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}[kind]
    return pack(stream.getvalue())


def repacked(kind: str, content: bytes) -> bytes:
    """A tar's own bytes, damaged before they are compressed: checksums of the compression notice nothing."""
    return {"tar.gz": gzip.compress, "tar.xz": lzma.compress}[kind](content)


def refused_or_read(act: Callable[[], object], path: Path) -> bool:
    """Whether the file was refused, and in one sentence that names it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of much that it can read
        try:
            act()
        except (ValueError, OSError) as error:
            message = str(error)
            assert path.name in message, message
            assert "\n" not in message, message
            message.encode("utf-8")
            return True
    return False


def below(folder: Path) -> set[str]:
    return {os.path.join(place, name) for place, _, names in os.walk(folder) for name in names}


@pytest.mark.parametrize(
    "kind",
    ["zip", "zip.lzma", "zip.bz2", "tar", "tar.gz", "tar.bz2", "tar.xz", "inner tar.gz", "inner tar.xz"],
)
def test_archives(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LEAST_LIMIT", 1 << 20)
    random = np.random.default_rng(len(kind))
    inner = kind.startswith("inner ")
    whole = packed("tar" if inner else kind)
    path = tmp_path / "deep" / "archive"
    refused = 0
    for number in range(2 * EACH):
        folder = tmp_path / "deep" / "er" / str(number)
        folder.mkdir(parents=True)
        changed = mutate(whole, random)
        path.write_bytes(repacked(kind.removeprefix("inner "), changed) if inner else changed)
        before = below(tmp_path)
        bad = refused_or_read(lambda folder=folder: extract(path, folder, lambda done, total: None), path)
        refused += bad
        new = below(tmp_path) - before
        assert all(Path(name).is_relative_to(folder) for name in new)
        assert sum(os.path.getsize(name) for name in new) <= 1 << 20
        shutil.rmtree(folder)
    assert refused > EACH // 2


def test_features_files(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "own.safetensors"
    views = torch.randn(9, 2, 4)
    save_features(path, torch.randn(9, 4), [0, 1, 2] * 3, ["a", "b", "c"] * 3, views=views)
    whole = path.read_bytes()
    original = FeaturesFile(path)
    start = 8 + int.from_bytes(whole[:8], "little")
    for number in range(6 * EACH):
        # Mostly the header: of the rest the hash notices every change.
        content = mutate(whole, random) if number % 3 == 0 else mutate(whole[:start], random) + whole[start:]
        path.write_bytes(content)
        refused_or_read(lambda: read_metadata(path), path)
        if not refused_or_read(lambda: FeaturesFile(path), path):
            read = FeaturesFile(path)  # what is not hashed is not data
            assert read.class_names == original.class_names
            for mine, theirs in zip(read.domains, original.domains, strict=True):
                assert mine.name == theirs.name
                assert torch.equal(mine.plain.table, theirs.plain.table)
                assert torch.equal(mine.targets, theirs.targets)
    assert below(tmp_path) == {str(path)}


@pytest.mark.parametrize("field", ["shape", "dtype", "data_offsets"])
def test_headers_of_features_files(tmp_path: Path, field: str) -> None:
    """Headers that are JSON, but say something else."""
    path = tmp_path / "own.safetensors"
    save_features(path, torch.randn(6, 4), [0, 1] * 3, [0, 1] * 3, views=torch.randn(6, 2, 4))
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    others = {
        "shape": [[], [24], [6, 2, 2], [1, 1, 6, 4], [0, 4], [-6, 4], [2**62, 4], "x", [6.0, 4]],
        "dtype": ["F16", "I32", "F8_E4M3", "BOOL", "C64", "U64", "F99", 3],
        "data_offsets": [[0, 0], [0, 1], [5, 2], [-1, 9], [0, 2**63], [0], "x", None],
    }[field]
    for name in ("labels", "domains", "features", "views"):
        for other in others:
            header = json.loads(whole[8 : 8 + size])
            header[name][field] = other
            text = json.dumps(header).encode()
            path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])
            if header != json.loads(whole[8 : 8 + size]):
                assert refused_or_read(lambda: FeaturesFile(path), path), (name, other)


def test_idx_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    name, sums = "t10k-labels-idx1-ubyte.gz", "SHA256SUMS"
    whole = {file.name: file.read_bytes() for file in mnist._FOLDER.iterdir() if file.name in (name, sums)}
    monkeypatch.setattr(mnist, "_FOLDER", tmp_path)
    for number in range(3 * EACH):
        damaged = (name, sums)[number % 2]
        for file, content in whole.items():
            (tmp_path / file).write_bytes(mutate(content, random) if file == damaged else content)
        refused = refused_or_read(lambda: mnist._read(name, header_bytes=8), tmp_path)
        assert refused or damaged == sums  # whose other lines do not matter
    (tmp_path / sums).unlink()
    assert refused_or_read(lambda: mnist._read(name, header_bytes=8), tmp_path / sums)


def test_csv_files(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(4):
        write_image(tmp_path / "images" / f"{number}.png", number)
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(("path", "label", "domain", "note"))
    for number in range(8):
        writer.writerow((f"images/{number % 4}.png", "cat" if number % 2 else "dog", number // 4, 'a "b", c'))
    path = tmp_path / "images.csv"
    before = below(tmp_path) | {str(path)}
    for _ in range(6 * EACH):
        path.write_bytes(mutate(stream.getvalue().encode(), random))
        refused_or_read(lambda: CSVDomains(path), path)
    assert below(tmp_path) == before


def test_lists_of_duplicates(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "list.txt"
    for _ in range(2 * EACH):
        path.write_bytes(mutate(b"clipart/cup/1.jpg\nreal/cup/2.jpg\n", random))
        refused_or_read(lambda: read_duplicates(path, ("clipart", "real")), path)


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "tif", "webp", "bmp", "ppm", "jp2"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16"])
def test_images(tmp_path: Path, ending: str, mode: str) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("I" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 2**16, (9, 11), dtype=np.uint16))
    path = tmp_path / f"image.{ending}"
    exif = Image.Exif()
    exif[274] = 6
    try:
        image.save(path, exif=exif)
    except (OSError, ValueError, KeyError):
        pytest.skip("Pillow does not write this kind")
    whole = path.read_bytes()
    for _ in range(EACH):
        path.write_bytes(mutate(whole, random))
        modes = []
        if not refused_or_read(lambda modes=modes: modes.append(read_image(str(path)).mode), path):
            assert modes == ["RGB"]
    assert below(tmp_path) == {str(path)}
