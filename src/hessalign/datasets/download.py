"""Published datasets, from their archives to DomainBed's folders."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from hessalign import datasets
from hessalign.checks import require_path
from hessalign.datasets.archives import BadArchiveError, Checksum, OnBytes, extract, google_drive_link
from hessalign.datasets.http_download import DownloadError, fetch
from hessalign.files import shown

if TYPE_CHECKING:
    from hessalign.datasets.base import DomainDataset
    from hessalign.datasets.image_files import PublishedImages

RECORD = "download.json"
CACHE = ".downloads"
HEX_DIGITS = 64
LIST_BYTES = 16 << 20
"""A list of duplicates is text, of a megabyte or so."""
CHUNK_BYTES = 1 << 20

Report = Callable[[str, int, int | None], None]
"""Told what is being done, how many bytes of it are done, and of how many (None where nobody knows)."""


@dataclass(frozen=True)
class ArchiveRecord:
    """An archive that a dataset was made of.

    Attributes:
        source: URL, or path of the file.
        bytes: Size.
        sha256: What it was found to be.
        checked: What that was compared with; empty if with nothing.
    """

    source: str
    bytes: int
    sha256: str
    checked: str


@dataclass(frozen=True)
class Download:
    """A dataset that was downloaded.

    Attributes:
        folder: Where it lies.
        archives: What it was made of; also in ``download.json`` in the folder.
        duplicates_removed: Number of images left out because a list named them.
        notes: One sentence for each thing that did not go as it should, though the dataset is there.
    """

    folder: Path
    archives: tuple[ArchiveRecord, ...]
    duplicates_removed: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Wanted:
    """An archive to get: by URL, or a file that is there already."""

    source: str
    name: str
    checksum: Checksum | None

    @property
    def is_remote(self) -> bool:
        return _is_url(self.source)


def downloadable(dataset: "type[DomainDataset]") -> "type[PublishedImages]":
    """The dataset, if it has archives.

    Returns:
        The dataset's class.

    Raises:
        ValueError: If it has none.
    """
    if not issubclass(dataset, datasets.PublishedImages):
        raise ValueError(
            f"dataset: {dataset.name} has nothing to download, it ships with the package or is your own; "
            "allowed are the published image datasets"
        )
    return dataset


def check_sources(sources: Sequence[str]) -> None:
    """Refuse what can be no archive, before anything is done.

    Args:
        sources: URLs or paths of archives.

    Raises:
        ValueError: If one is neither a URL nor a file.
    """
    for source in sources:
        _given(source)


def download(
    dataset: "type[PublishedImages]",
    root: Path,
    report: Report,
    sources: Sequence[str] = (),
    sha256: Sequence[str] = (),
    duplicates: Path | None = None,
) -> Download:
    """Download a dataset, check and extract its archives, and lay its folders out as DomainBed does.

    Everything happens in ``root/.downloads``; the dataset's folder appears when it is whole. What an
    interrupted call has downloaded serves the next one, and is deleted when the dataset is there.

    Args:
        dataset: Which one.
        root: Folder that will hold the dataset's folder; made where missing.
        report: Called to show progress.
        sources: URLs or paths of archives, instead of the published URLs.
        sha256: What the archives must be, one for each, in order. Where it is empty, the published archives
            must be what others have reported, if anybody has.
        duplicates: List of images to leave out, one ``domain/class/image`` in each line; None for the
            published list, where there is one.

    Returns:
        Where the dataset lies now, and what it was made of.

    Raises:
        ValueError: If an argument is not allowed or the dataset is there already; nothing is done then.
        OSError: If an archive cannot be had, is not what it must be, damaged or unsafe, or the disk is full.
    """
    root = require_path("root", root)
    wanted = _wanted(dataset, sources, sha256)
    names = None if duplicates is None else _listed(dataset, duplicates)
    existing = dataset.existing(root)
    if existing is not None:
        raise ValueError(f"root: {existing} exists already; move it away, or choose another root")
    cache = root / CACHE / dataset.name
    with _locked(cache):
        files = [_obtain(archive, cache, dataset.page, report) for archive in wanted]
        records = tuple(_checked(archive, path, report) for archive, path in zip(wanted, files, strict=True))
        notes: tuple[str, ...] = ()
        if names is None:
            names, notes = _published_duplicates(dataset, cache)
        with _scratch(cache / "extracted") as extracted:
            for archive, path in zip(wanted, files, strict=True):
                _extract(archive, path, extracted, report)
            place = _arranged(dataset, extracted, wanted, cache)
            removed = remove_duplicates(place, names)
            _write_record(place, dataset.name, records, removed)
            place.rename(root / dataset.folder)
        shutil.rmtree(cache)
    return Download(root / dataset.folder, records, removed, notes)


def remove_listed(dataset: "type[PublishedImages]", root: Path, duplicates: Path | None) -> Download:
    """Delete listed images from a dataset that is there already, and nothing if there is no list.

    Args:
        dataset: Which one.
        root: Folder that holds the dataset's folder or the domain folders.
        duplicates: The list, one ``domain/class/image`` in each line, or None.

    Returns:
        Where the dataset lies, and how many images were deleted.

    Raises:
        ValueError: If the dataset is not there or the list is none; nothing is deleted then.
        OSError: If an image cannot be deleted.
    """
    root = require_path("root", root)
    folder = dataset.existing(root)
    if folder is None:
        raise ValueError(f"root: {root} does not hold {dataset.folder}; download it first")
    names = [] if duplicates is None else _listed(dataset, duplicates)
    removed = remove_duplicates(folder, names)
    note = f"{folder} was there already, nothing was downloaded."
    return Download(folder, (), removed, (note,))


def read_duplicates(path: Path, domain_names: Iterable[str]) -> list[PurePosixPath]:
    """The images that a list names for removal, one ``domain/class/image`` in each line.

    Args:
        path: The list, UTF-8.
        domain_names: The dataset's domains.

    Returns:
        Paths below the dataset's folder.

    Raises:
        ValueError: If it is no such list; the message names the first bad line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"duplicates: {shown(path)} cannot be read as text ({error})") from None
    allowed = set(domain_names)
    names = []
    for number, line in enumerate(lines, start=1):
        name = PurePosixPath(line.strip())
        if not line.strip():
            continue
        if len(name.parts) != 3 or name.parts[0] not in allowed or ".." in name.parts:
            raise ValueError(
                f"duplicates: {path}, line {number}: {line.strip()!r} is not domain/class/image of a domain "
                f"among {', '.join(sorted(allowed))}"
            )
        names.append(name)
    return names


def remove_duplicates(folder: Path, names: Iterable[PurePosixPath]) -> int:
    """Delete the named images from a dataset's folder; those that are not there are passed over.

    Returns:
        How many were deleted.
    """
    removed = 0
    for name in names:
        path = folder / name
        if path.is_file():
            path.unlink()
            removed += 1
    return removed


def _listed(dataset: "type[PublishedImages]", duplicates: Path) -> list[PurePosixPath]:
    return read_duplicates(require_path("duplicates", duplicates), dataset.domain_names)


def _wanted(dataset: "type[PublishedImages]", sources: Sequence[str], sha256: Sequence[str]) -> list[_Wanted]:
    """What to get, the arguments checked."""
    for name, values in (("sources", sources), ("sha256", sha256)):
        if isinstance(values, str):
            raise ValueError(f"{name}: must be a list, one entry for each archive, got {values!r}")
    if not sources and not dataset.sources:
        raise ValueError(
            f"source: no public address of {dataset.name} is known; see {dataset.page}, and give the archive "
            "with --source FILE"
        )
    if sources:
        wanted = [_given(source) for source in sources]
    else:
        wanted = [_Wanted(source.url, source.file_name, source.checksum) for source in dataset.sources]
    if not sha256:
        return wanted
    if len(sha256) != len(wanted):
        raise ValueError(
            f"sha256: {len(sha256)} given for {len(wanted)} archives; allowed is one for each, in order"
        )
    return [
        _Wanted(archive.source, archive.name, _given_checksum(digits))
        for archive, digits in zip(wanted, sha256, strict=True)
    ]


def _given(source: str) -> _Wanted:
    if not _is_url(source):
        if not Path(source).is_file():
            raise ValueError(
                f"source: there is no file {source}; allowed is the path of an archive, "
                "or a URL that begins with http:// or https://"
            )
        return _Wanted(source, Path(source).name, None)
    url = google_drive_link(source)
    # Two URLs may end alike, and what is left of one must not be taken for the other.
    mark = hashlib.sha256(url.encode()).hexdigest()[:8]
    return _Wanted(url, f"{mark}-{PurePosixPath(urlsplit(url).path).name}", None)


def _given_checksum(digits: str) -> Checksum:
    if len(digits) != HEX_DIGITS or not set(digits.lower()) <= set("0123456789abcdef"):
        raise ValueError(f"sha256: {digits!r} is no SHA-256; allowed are {HEX_DIGITS} hexadecimal digits")
    return Checksum("sha256", digits.lower(), "you")


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _obtain(archive: _Wanted, cache: Path, page: str, report: Report) -> Path:
    """The archive as a file."""
    if not archive.is_remote:
        return Path(archive.source)
    path = cache / archive.name
    _take_back(_rejected(path), path, archive.checksum)
    if not path.exists():
        try:
            fetch(archive.source, path, _named(f"downloading {path.name}", report))
        except DownloadError as error:
            raise OSError(
                f"{error}; start again to go on from there, or download the archive by hand (see {page}) "
                "and give it with --source FILE"
            ) from None
    return path


def _rejected(path: Path) -> Path:
    """Where a download is kept that is not what it must be, for the case that it is trusted after all."""
    return path.with_name(f"{path.name}.rejected")


def _take_back(rejected: Path, path: Path, checksum: Checksum | None) -> None:
    """Use a rejected download if it is what is asked for now, and remove it otherwise."""
    if not rejected.exists():
        return
    if checksum is not None and not path.exists():
        with rejected.open("rb") as file:
            found = hashlib.file_digest(file, checksum.algorithm).hexdigest()
        if found.startswith(checksum.digits):
            rejected.replace(path)
            return
    rejected.unlink()


def _extract(archive: _Wanted, path: Path, extracted: Path, report: Report) -> None:
    try:
        extract(path, extracted, _named(f"extracting {path.name}", report))
    except BadArchiveError as error:
        if not archive.is_remote:
            raise
        path.unlink()  # or every further try would fail at it
        raise OSError(f"{error}; what was downloaded is removed, start again to download it anew") from None


def _arranged(
    dataset: "type[PublishedImages]", extracted: Path, wanted: Sequence[_Wanted], cache: Path
) -> Path:
    try:
        return dataset.arrange(extracted)
    except ValueError as error:
        if not any(archive.is_remote for archive in wanted):
            raise
        raise ValueError(
            f"{error}; the downloads are kept in {shown(cache)}, remove them to download anew"
        ) from None


def _checked(archive: _Wanted, path: Path, report: Report) -> ArchiveRecord:
    """Hash an archive and compare."""
    expected = archive.checksum
    hashes = {name: hashlib.new(name) for name in {"sha256", expected.algorithm if expected else "sha256"}}
    done, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            for running in hashes.values():
                running.update(chunk)
            done += len(chunk)
            report(f"checking {path.name}", done, size)
    sha256 = hashes["sha256"].hexdigest()
    if expected is None:
        return ArchiveRecord(archive.source, size, sha256, "")
    found = hashes[expected.algorithm].hexdigest()
    if not found.startswith(expected.digits):
        again = ""
        if archive.is_remote:
            path.replace(_rejected(path))
            again = "start again to download it anew, "
        raise OSError(
            f"{shown(path)}: its {expected.algorithm} is {found}, expected is {expected.digits} as given by "
            f"{expected.reported_by}; {again}get another archive, or trust this one with --sha256 {sha256}"
        )
    return ArchiveRecord(
        archive.source,
        size,
        sha256,
        f"{expected.algorithm} {expected.digits} as given by {expected.reported_by}",
    )


def _published_duplicates(
    dataset: "type[PublishedImages]", cache: Path
) -> tuple[list[PurePosixPath], tuple[str, ...]]:
    """The images that DomainBed deletes, and what went wrong where they are not known."""
    if dataset.duplicates_url is None:
        return [], ()
    path = cache / "duplicates.txt"
    try:
        fetch(dataset.duplicates_url, path, lambda done, total: None, LIST_BYTES)
        return read_duplicates(path, dataset.domain_names), ()
    except (DownloadError, ValueError) as error:
        return [], (
            f"The duplicates are still there, since their list cannot be had ({error}); "
            "get it by hand and start again with --duplicates FILE.",
        )


def _write_record(place: Path, name: str, records: Sequence[ArchiveRecord], removed: int) -> None:
    document = {
        "dataset": name,
        "archives": [asdict(record) for record in records],
        "duplicates_removed": removed,
    }
    (place / RECORD).write_text(json.dumps(document, indent=1), encoding="utf-8")


def _named(name: str, report: Report) -> OnBytes:
    return lambda done, total: report(name, done, total)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """The folder of downloads, for this process alone; left behind only with something in it."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / "lock"
    try:
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout:
        raise ValueError(
            f"root: another process is downloading into {cache}; wait until it has ended"
        ) from None
    finally:
        for folder in (cache, cache.parent):
            with suppress(OSError):
                folder.rmdir()
