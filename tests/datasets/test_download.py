"""Published datasets from a real server, from Python and from the command line."""

import hashlib
import io
import json
import re
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import ClassVar

import pytest
from filelock import FileLock

from hessalign.datasets import PublishedImages, dataset_names, get_dataset, make_dataset
from hessalign.datasets.archives import Checksum, Source, google_drive, google_drive_link
from hessalign.datasets.domain_net import DomainNet
from hessalign.datasets.download import download, downloadable
from hessalign.datasets.image_folder import PublishedFolder
from hessalign.datasets.pacs import PACS
from hessalign.datasets.terra_incognita import TerraIncognita
from tests.cli.command import hessalign, words
from tests.datasets.server import Server, serving

PUBLISHED = [name for name in dataset_names() if issubclass(get_dataset(name), PublishedImages)]
PAIR = {f"kfold/{domain}/{name}/{number}.jpg": f"{domain}{name}{number}".encode()
        for domain in ("dusk", "dawn") for name in ("cat", "dog") for number in range(2)}  # fmt: skip


class Pair(PublishedFolder):
    """Two small domains."""

    name = "pair"
    folder = "PAIR"
    page = "https://example.org/pair"
    domain_names = ("dawn", "dusk")
    sources: ClassVar[tuple[Source, ...]] = ()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def quietly(what: str, done: int, total: int | None) -> None:
    pass


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_datasets_have_archives(name: str) -> None:
    dataset = downloadable(get_dataset(name))
    assert dataset.page.startswith("https://")
    for source in dataset.sources:
        assert source.url.startswith("https://")
        if source.checksum is not None:
            lengths = {"md5": 32, "sha256": 64, "sha512": 128}
            assert re.fullmatch("[0-9a-f]+", source.checksum.digits)
            assert 32 <= len(source.checksum.digits) <= lengths[source.checksum.algorithm]
    assert len({source.file_name for source in dataset.sources}) == len(dataset.sources)


def test_a_dataset_is_laid_out_and_recorded(server: Server, tmp_path: Path) -> None:
    content = zipped({**PAIR, "__MACOSX/x": b"", "notes.txt": b""})
    url = server.add("pair.zip", content)
    seen = []
    done = download(Pair, tmp_path / "data", lambda *report: seen.append(report), [url])
    root = tmp_path / "data" / "PAIR"
    assert done.folder == root
    expected = {name.removeprefix("kfold/"): content for name, content in PAIR.items()}
    found = files_in(tmp_path / "data")
    record = json.loads(found.pop("PAIR/download.json"))
    assert found == {f"PAIR/{name}": content for name, content in expected.items()}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["PAIR"]
    (archive,) = record["archives"]
    assert archive == {"source": url, "bytes": len(content), "sha256": sha256(content), "checked": ""}
    assert [what.split()[0] for what, _, _ in seen][:: len(seen) - 1] == ["downloading", "extracting"]
    assert all(done <= total for _, done, total in seen)
    assert [len(domain) for domain in Pair(tmp_path / "data").domains] == [4, 4]


def test_published_archives_are_checked_by_what_others_reported(server: Server, tmp_path: Path) -> None:
    content = zipped(PAIR)
    url = server.add("pair.zip", content)
    md5 = hashlib.md5(content).hexdigest()

    class Reported(Pair):
        sources = (Source("pair", "zip", url, checksum=Checksum("md5", md5[:20], "somebody")),)

    done = download(Reported, tmp_path, quietly)
    assert done.archives[0].checked == f"md5 {md5[:20]} as given by somebody"

    class Changed(Pair):
        folder = "CHANGED"
        sources = (Source("pair", "zip", url, checksum=Checksum("md5", "0" * 32, "somebody")),)

    with pytest.raises(OSError, match=f"its md5 is {md5}, expected is 0+ .* --sha256 {sha256(content)}"):
        download(Changed, tmp_path, quietly)
    assert not (tmp_path / "CHANGED").exists()
    requests = server.files["/pair.zip"].requests
    before = len(requests)
    assert download(Changed, tmp_path, quietly, sha256=[sha256(content).upper()]).folder.exists()
    assert len(requests) == before  # the archive was still there


def test_an_interrupted_download_goes_on(server: Server, tmp_path: Path) -> None:
    url = server.add("pair.zip", zipped({**PAIR, "kfold/large.bin": bytes(1_000_000)}))

    def stop(what: str, done: int, total: int | None) -> None:
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(Pair, tmp_path, stop, [url])
    assert Pair.existing(tmp_path) is None
    server.files["/pair.zip"].requests.clear()
    download(Pair, tmp_path, quietly, [url])
    (request,) = server.files["/pair.zip"].requests
    assert request is not None
    assert int(request.removeprefix("bytes=").removesuffix("-")) > 500_000
    assert [path.name for path in tmp_path.iterdir()] == ["PAIR"]


def test_interrupted_extraction_leaves_no_half_dataset(tmp_path: Path) -> None:
    (tmp_path / "pair.zip").write_bytes(zipped(PAIR))

    def stop(what: str, done: int, total: int | None) -> None:
        if what.startswith("extracting"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(Pair, tmp_path / "data", stop, [str(tmp_path / "pair.zip")])
    assert files_in(tmp_path / "data") == {}
    download(Pair, tmp_path / "data", quietly, [str(tmp_path / "pair.zip")])


def test_a_damaged_download_is_had_anew(server: Server, tmp_path: Path) -> None:
    content = zipped(PAIR)
    url = server.add("pair.zip", content.replace(b"dawncat0", b"dawncat1"))
    with pytest.raises(OSError, match=r"damaged one .* what was downloaded is removed, start again"):
        download(Pair, tmp_path, quietly, [url])
    assert files_in(tmp_path) == {}
    server.add("pair.zip", content)
    download(Pair, tmp_path, quietly, [url])
    assert len(files_in(tmp_path)) == len(PAIR) + 1


def test_a_download_with_another_checksum_is_had_anew(server: Server, tmp_path: Path) -> None:
    content, other = zipped(PAIR), zipped({**PAIR, "more": b"more"})
    url = server.add("pair.zip", other, etag=None)
    for _ in range(2):
        with pytest.raises(OSError, match=r"its sha256 is .* start again to download it anew, get another"):
            download(Pair, tmp_path, quietly, [url], [sha256(content)])
    server.add("pair.zip", content, etag=None)
    download(Pair, tmp_path, quietly, [url], [sha256(content)])
    assert not (tmp_path / ".downloads").exists()


def test_archives_of_something_else_are_kept_and_that_is_said(server: Server, tmp_path: Path) -> None:
    url = server.add("pair.zip", zipped({"kfold/dawn/cat/1.jpg": b"x"}))
    with pytest.raises(ValueError, match=r"domain folders dawn, dusk; .* kept in .*pair, remove them to"):
        download(Pair, tmp_path, quietly, [url])


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (damaged(zipped(PAIR)), "no archive, or a damaged one"),
        (damaged(tarred(PAIR)), "no archive, or a damaged one"),
        (b"some text", "no archive, or a damaged one"),
        (zipped({**PAIR, "../outside": b"x"}), "'../outside' would leave the folder"),
        (zipped({"kfold/dawn/cat/1.jpg": b"x"}), "hold no folder with the domain folders dawn, dusk"),
    ],
)
def test_a_bad_archive_harms_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    root = tmp_path / "data"
    (root / "OTHER").mkdir(parents=True)
    (root / "OTHER" / "file").write_bytes(b"mine")
    archive = tmp_path / "archive.zip"
    archive.write_bytes(content)
    with pytest.raises((OSError, ValueError), match=message):
        download(Pair, root, quietly, [str(archive)])
    assert archive.read_bytes() == content
    assert files_in(tmp_path) == {"archive.zip": content, "data/OTHER/file": b"mine"}
    assert [path.name for path in root.iterdir()] == ["OTHER"]


@pytest.mark.parametrize("place", ["PAIR", "."])
def test_existing_data_is_not_touched(server: Server, tmp_path: Path, place: str) -> None:
    for domain in Pair.domain_names:
        (tmp_path / place / domain / "cat").mkdir(parents=True)
        (tmp_path / place / domain / "cat" / "1.jpg").write_bytes(b"mine")
    before = files_in(tmp_path)
    url = server.add("pair.zip", zipped(PAIR))
    with pytest.raises(ValueError, match=f"root: {re.escape(str(tmp_path / place))} exists already"):
        download(Pair, tmp_path, quietly, [url])
    assert files_in(tmp_path) == before
    assert server.files["/pair.zip"].requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": ["nowhere.zip"]}, r"source: there is no file nowhere\.zip; allowed is"),
        ({"sources": ["ftp://example.org/a.zip"]}, "source: there is no file ftp:"),
        ({"sha256": ["0" * 63]}, "sha256: '0+' is no SHA-256; allowed are 64 hexadecimal digits"),
        ({"sha256": ["x" * 64]}, "sha256: 'x+' is no SHA-256"),
        ({"sha256": ["0" * 64] * 2}, "sha256: 2 given for 1 archives; allowed is one for each"),
        ({"duplicates": Path("nowhere.txt")}, r"duplicates: nowhere\.txt cannot be read as text"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_done(
    tmp_path: Path, arguments: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        download(PACS, tmp_path / "data", quietly, **arguments)
    assert not (tmp_path / "data").exists()


def test_two_processes_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "pair.zip").write_bytes(zipped(PAIR))
    cache = tmp_path / ".downloads" / "pair"
    cache.mkdir(parents=True)
    with (
        FileLock(cache / "lock"),
        pytest.raises(ValueError, match="another process is downloading into"),
    ):
        download(Pair, tmp_path, quietly, [str(tmp_path / "pair.zip")])
    download(Pair, tmp_path, quietly, [str(tmp_path / "pair.zip")])


@pytest.mark.parametrize(
    "link",
    [
        "https://drive.google.com/uc?id=1a-B_2",
        "https://drive.google.com/open?id=1a-B_2",
        "https://drive.google.com/file/d/1a-B_2/view?usp=sharing",
        "https://docs.google.com/uc?export=download&id=1a-B_2",
    ],
)
def test_links_to_google_drive_become_the_file(link: str) -> None:
    assert google_drive_link(link) == google_drive("1a-B_2")
    assert google_drive_link("https://example.org/x?id=1") == "https://example.org/x?id=1"


# Terra Incognita


def annotations(images: list[tuple[int, str, object]], animals: list[tuple[int, int]]) -> bytes:
    return json.dumps(
        {
            "info": {},
            "categories": [{"id": 1, "name": "cat"}, {"id": 6, "name": "dog"}, {"id": 30, "name": "badger"}],
            "images": [{"id": id, "file_name": name, "location": place} for id, name, place in images],
            "annotations": [{"id": n, "image_id": id, "category_id": c} for n, (id, c) in enumerate(animals)],
        }
    ).encode()


def test_terra_incognita_is_sorted_by_its_annotations(tmp_path: Path) -> None:
    places = ("100", 38, 43, "46", 7)
    images = [(number, f"{place}-{number}.jpg", place) for place in places for number in range(3)]
    numbered = [(index, name, place) for index, (_, name, place) in enumerate(images)]
    animals = [(index, 1 if index % 2 else 6) for index, _, _ in numbered]
    animals += [(0, 1), (0, 1), (1, 30)]  # two classes; the same class twice; a class that is not asked for
    (tmp_path / "images.tar.gz").write_bytes(
        tarred({f"eccv_18_all_images_sm/{name}": name.encode() for _, name, _ in numbered[:-1]})
    )
    (tmp_path / "annotations.tar.gz").write_bytes(
        tarred(
            {
                "eccv_18_annotation_files/train.json": annotations(numbered[:5], animals),
                "eccv_18_annotation_files/test.json": annotations(numbered[5:], animals),
                "eccv_18_annotation_files/other.json": b"[]",
            }
        )
    )
    archives = [str(tmp_path / "images.tar.gz"), str(tmp_path / "annotations.tar.gz")]
    done = download(TerraIncognita, tmp_path / "data", quietly, archives)
    expected = {
        f"location_{place}/{'cat' if index % 2 else 'dog'}/{name}": name.encode()
        for index, name, place in numbered
        if place != 7
    }
    expected["location_100/cat/100-0.jpg"] = b"100-0.jpg"
    found = files_in(done.folder)
    found.pop("download.json")
    assert found == expected
    dataset = make_dataset("terra_incognita", tmp_path / "data")
    assert [len(domain) for domain in dataset.domains] == [4, 3, 3, 3]


@pytest.mark.parametrize(
    "document", [b"{", b"\xff", b'{"images": 3, "annotations": [], "categories": []}', b"[" * 100_000]
)
def test_annotations_that_are_none_are_named(tmp_path: Path, document: bytes) -> None:
    (tmp_path / "all.tar.gz").write_bytes(tarred({"train.json": document}))
    with pytest.raises(ValueError, match=r"source: train\.json in the archives holds no annotations \("):
        download(TerraIncognita, tmp_path / "data", quietly, [str(tmp_path / "all.tar.gz")])


# DomainNet


def domain_net(per_domain: int) -> dict[str, bytes]:
    return {
        f"{domain}/cup/{domain}_{number}.jpg": f"{domain} {number}".encode()
        for domain in DomainNet.domain_names
        for number in range(per_domain)
    }


def with_list(url: str) -> type[DomainNet]:
    class Listed(DomainNet):
        name = "domain_net"
        duplicates_url = url

    return Listed


LIST = "clipart/cup/clipart_0.jpg\nreal/cup/real_2.jpg\nreal/cup/not_there.jpg\n\n"


def test_duplicates_are_left_out_by_the_published_list(server: Server, tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(zipped(domain_net(3)))
    dataset = with_list(server.add("list.txt", LIST.encode(), kind="text/plain"))
    done = download(dataset, tmp_path / "data", quietly, [str(tmp_path / "all.zip")])
    assert done.duplicates_removed == 2
    assert done.notes == ()
    assert json.loads((done.folder / "download.json").read_text())["duplicates_removed"] == 2
    assert [len(domain) for domain in dataset(tmp_path / "data").domains] == [2, 3, 3, 3, 2, 3]


@pytest.mark.parametrize("content", [None, b"clipart/../../x.jpg\n"])
def test_without_the_list_the_duplicates_stay_and_that_is_said(
    server: Server, tmp_path: Path, content: bytes | None
) -> None:
    (tmp_path / "all.zip").write_bytes(zipped(domain_net(3)))
    url = server.add("list.txt", content or b"", kind="text/plain")
    dataset = with_list(url if content else f"{url}.gone")
    done = download(dataset, tmp_path / "data", quietly, [str(tmp_path / "all.zip")])
    assert done.duplicates_removed == 0
    (note,) = done.notes
    assert "list cannot be had" in note
    assert "--duplicates FILE" in note
    assert sum(map(len, dataset(tmp_path / "data").domains)) == 18


@pytest.mark.parametrize(
    "line", ["clipart/x.jpg", "../clipart/x.jpg", "clipart/../x.jpg", "/clipart/a/x.jpg", "photo/a/x.jpg"]
)
def test_a_list_that_points_elsewhere_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"clipart/cup/clipart_0.jpg\n{line}\n")
    with pytest.raises(ValueError, match=r"duplicates: .*list\.txt, line 2: .* is not domain/class/image"):
        download(DomainNet, tmp_path, quietly, duplicates=tmp_path / "list.txt")


# The command line


def run(*arguments: str) -> CompletedProcess[str]:
    return hessalign("datasets", "download", *arguments)


@pytest.fixture(scope="module")
def pacs() -> bytes:
    """As many files as PACS has images, in its folders."""
    classes = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    assert PACS.expected_counts is not None
    return zipped(
        {
            f"kfold/{domain}/{classes[number % 7]}/pic_{number:04}.jpg": b"not decoded"
            for domain, count in PACS.expected_counts.by_domain.items()
            for number in range(count)
        }
    )


def test_command_from_the_server_to_the_counts(server: Server, tmp_path: Path, pacs: bytes) -> None:
    url = server.add("pacs.zip", pacs, cut_after=len(pacs) - 1000)
    root = str(tmp_path)
    result = run("pacs", "--root", root, "--source", url, "--sha256", sha256(pacs))
    assert result.returncode == 0, result.stderr
    assert "The counts are the published ones." in result.stdout
    assert f"SHA-256 {sha256(pacs)} of {url}: as it must be" in result.stdout
    assert "3,929" in result.stdout
    assert server.files["/pacs.zip"].requests == [None, f"bytes={len(pacs) - 1000}-"]
    assert all(word in result.stderr for word in ("downloading", "checking", "extracting", "MB"))
    assert [path.name for path in tmp_path.iterdir()] == ["PACS"]

    again = run("pacs", "--root", root, "--source", url, "--json")
    assert again.returncode == 0
    assert len(server.files["/pacs.zip"].requests) == 2
    report = json.loads(again.stdout)
    assert "was there already" in report["notes"][0]
    assert report["counts"] == dict(PACS.expected_counts.by_domain)

    (tmp_path / "list.txt").write_text("photo/dog/pic_0000.jpg\n")
    fewer = run("pacs", "--root", root, "--duplicates", str(tmp_path / "list.txt"))
    assert fewer.returncode == 1
    assert "1 listed duplicates were deleted." in fewer.stdout
    assert "Wrong: photo: 1669 samples; published are 1670" in fewer.stdout


def test_command_names_what_cannot_be_reached_and_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/pacs.zip"
    result = run("pacs", "--root", str(tmp_path), "--source", url)
    assert result.returncode == 1
    text = words(result.stderr)
    assert f"{url} cannot be reached" in text
    assert "download the archive by hand" in text
    assert "--source FILE" in text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_command_refuses_a_wrong_checksum_and_a_web_page(server: Server, tmp_path: Path) -> None:
    content = zipped(PAIR)
    url = server.add("pacs.zip", content)
    result = run("pacs", "--root", str(tmp_path), "--source", url, "--sha256", "0" * 64)
    assert result.returncode == 1
    assert f"its sha256 is {sha256(content)}, expected is 000" in words(result.stderr)
    page = server.add("page", b"<html>", kind="text/html")
    result = run("pacs", "--root", str(tmp_path), "--source", page)
    assert result.returncode == 1
    assert f"{page} answers with a web page instead of the file" in words(result.stderr)
    assert PACS.existing(tmp_path) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "dataset: 'nothing' is not known"),
        (("colored_mnist",), "dataset: colored_mnist has nothing to download"),
        (("pacs", "--source", "nowhere.zip"), "source: there is no file nowhere.zip"),
    ],
)
def test_command_refuses_bad_input(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments, "--root", str(tmp_path))
    assert result.returncode == 2
    assert message in words(result.stderr)
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_teaches() -> None:
    assert "hessalign datasets download pacs --root data --source PACS.zip" in words(run("--help").stdout)
