"""Archives that nobody vouches for."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessalign.datasets import archives
from hessalign.datasets.archives import BadArchiveError, extract

FILES = {"a/b/1.bin": b"one", "a/2.bin": np.random.default_rng(0).bytes(50_000), "3.bin": b""}
Pack = Callable[[Path, dict[str, bytes]], Path]


def pack_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def pack_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def pack_tar_member(path: Path, name: str, kind: bytes, target: str = "") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "inner" / "folder"
    path.mkdir(parents=True)
    return path


def quietly(done: int, total: int | None) -> None:
    pass


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuse(archive: Path, folder: Path, reason: str) -> None:
    """Refused, and nothing written beside the folder."""
    before = {path for path in archive.parent.rglob("*") if folder not in path.parents}
    with pytest.raises(OSError, match=f"{archive.name}: refused, because its member .* {reason}"):
        extract(archive, folder, quietly)
    assert {path for path in archive.parent.rglob("*") if folder not in path.parents} == before


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_a_good_archive_is_extracted_whatever_its_name(tmp_path: Path, folder: Path, pack: Pack) -> None:
    seen = []
    extract(pack(tmp_path / "archive", FILES), folder, lambda done, total: seen.append((done, total)))
    assert contents(folder) == FILES
    done, total = seen[-1]
    assert 0 < done <= total


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "..\\x", "C:\\x", "\\x"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, folder: Path, pack: Pack, name: str) -> None:
    refuse(pack(tmp_path / "archive", {"good": b"good", name: b"bad"}), folder, "would leave the folder")


@given(parts=st.lists(st.sampled_from(["..", ".", "a", "", "b c"]), min_size=1, max_size=5))
def test_whatever_the_path_nothing_appears_outside(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    outer = tmp_path_factory.mktemp("outer")
    folder = outer / "1" / "2" / "folder"
    folder.mkdir(parents=True)
    name = "/".join([*parts, "x"])
    for pack in (pack_zip, pack_tar):
        archive = pack(outer / "archive", {name: b"x"})
        if ".." in parts or name.startswith("/"):
            with pytest.raises(OSError, match="refused"):
                extract(archive, folder, quietly)
        else:
            extract(archive, folder, quietly)
            assert len(list(folder.rglob("x"))) == 1
        outside = [path for path in outer.rglob("x") if folder not in path.parents]
        assert outside == []


def test_tar_links_and_devices_are_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    for kind, target in [
        (tarfile.SYMTYPE, "../../secret"),
        (tarfile.SYMTYPE, str(tmp_path / "secret")),
        (tarfile.SYMTYPE, "harmless"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
    ]:
        archive = pack_tar_member(tmp_path / "archive", "link", kind, target)
        refuse(archive, folder, "is neither a file nor a folder")
    refuse(pack_tar_member(tmp_path / "archive", "link", tarfile.LNKTYPE, "../../secret"), folder, "")


def test_zip_links_are_refused(tmp_path: Path, folder: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "../../secret")
    refuse(tmp_path / "archive", folder, "is neither a file nor a folder")


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_cut_archive_is_refused(tmp_path: Path, folder: Path, pack: Pack, share: float) -> None:
    archive = pack(tmp_path / "archive", FILES)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(OSError, match="archive: no archive, or a damaged one"):
        extract(archive, folder, quietly)


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_a_changed_byte_is_noticed(tmp_path: Path, folder: Path, pack: Pack) -> None:
    archive = pack(tmp_path / "archive", FILES)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(OSError, match="archive: no archive, or a damaged one"):
        extract(archive, folder, quietly)


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_more_than_the_disk_has_is_refused(
    tmp_path: Path, folder: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = pack(tmp_path / "archive", {f"{index}": bytes(1_000_000) for index in range(3)})
    assert bomb.stat().st_size < 20_000
    usage = archives.shutil.disk_usage(folder)._replace(free=2_500_000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"it holds 3,000,000 bytes or more, .* make room"):
        extract(bomb, folder, quietly)


def pack(path: Path, mode: str, files: dict[str, bytes]) -> Path:
    if mode.startswith("zip"):
        kind = {"zip": zipfile.ZIP_STORED, "zip-lzma": zipfile.ZIP_LZMA, "zip-bz2": zipfile.ZIP_BZIP2}[mode]
        with zipfile.ZipFile(path, "w", kind) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, f"w:{mode.removeprefix('tar')}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


KINDS = ["zip", "zip-lzma", "zip-bz2", "tar", "targz", "tarbz2", "tarxz"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_compression_is_read_and_its_damage_noticed(tmp_path: Path, folder: Path, kind: str) -> None:
    archive = pack(tmp_path / "archive", kind, FILES)
    extract(archive, folder, quietly)
    assert contents(folder) == FILES
    content = archive.read_bytes()
    damaged = bytearray(content)
    # Of a plain tar only the headers have checksums.
    damaged[len(content) // 2 if kind != "tar" else 1024] ^= 1
    for bad in (bytes(damaged), content[: len(content) // 2]):
        archive.write_bytes(bad)
        with pytest.raises(BadArchiveError, match="archive: no archive, or a damaged one"):
            extract(archive, folder, quietly)


def test_a_tar_without_its_end_is_not_taken_for_whole(tmp_path: Path, folder: Path) -> None:
    """tarfile itself takes a cut between two members, and a damaged header, for the end."""
    content = pack(tmp_path / "archive", "tar", {"1": b"one", "2": b"two"}).read_bytes()
    for bad in (content[:1024], content[:1024] + b"x" * 512 + content[1536:], content + b"x" * 512):
        (tmp_path / "archive").write_bytes(bad)
        with pytest.raises(BadArchiveError, match=r"damaged one \((it has no end|it goes on behind its end)"):
            extract(tmp_path / "archive", folder, quietly)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_gigabytes_is_not_read(tmp_path: Path, folder: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = kind, 6_000_000_000
    (tmp_path / "archive").write_bytes(gzip.compress(header.tobuf() + bytes(3_000_000)))
    with pytest.raises(
        BadArchiveError, match=r"archive: refused, because a header in it is 6,000,\d+,\d+ bytes"
    ):
        extract(tmp_path / "archive", folder, quietly)


@pytest.mark.parametrize("kind", ["zip-lzma", "targz", "tarxz"])
def test_an_archive_that_swells_is_refused(
    tmp_path: Path, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "LEAST_LIMIT", 1_000_000)
    bomb = pack(tmp_path / "archive", kind, {str(number): bytes(500_000) for number in range(4)})
    limit = max(1_000_000, 100 * bomb.stat().st_size)
    with pytest.raises(BadArchiveError, match="more than 100 times its size; get the archive elsewhere"):
        extract(bomb, folder, quietly)
    assert sum(len(content) for content in contents(folder).values()) <= limit


def test_a_million_empty_files_are_too_many(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "LEAST_LIMIT", 100_000)
    bomb = pack(tmp_path / "archive", "tarxz", {f"{number:04}": b"" for number in range(400)})
    with pytest.raises(BadArchiveError, match="more than 100 times its size"):
        extract(bomb, folder, quietly)
    assert len(contents(folder)) <= 200


def test_a_link_to_what_is_not_there_is_refused(tmp_path: Path, folder: Path) -> None:
    for target in ("nowhere", "/etc/passwd", "../x"):
        refuse(pack_tar_member(tmp_path / "archive", "link", tarfile.LNKTYPE, target), folder, "")
    with tarfile.open(tmp_path / "archive", "w:gz") as archive:
        member = tarfile.TarInfo("file")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"one"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.LNKTYPE, "file"
        archive.addfile(link)
    extract(tmp_path / "archive", folder, quietly)
    assert contents(folder) == {"file": b"one", "link": b"one"}


def test_files_that_cannot_be_written_name_the_archive(tmp_path: Path, folder: Path) -> None:
    for files in ({"a": b"", "a/b": b""}, {"x" * 300: b""}):
        for kind in ("zip", "tar"):
            with pytest.raises(OSError, match=r"archive: it cannot be extracted \("):
                extract(pack(tmp_path / "archive", kind, files), folder, quietly)
