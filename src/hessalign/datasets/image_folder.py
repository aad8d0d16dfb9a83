"""Images laid out as ``root/domain/class/image``: your own, and published datasets in DomainBed's folders."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from hessalign.datasets.image_files import ImageFileDomains, Listing, PublishedImages
from hessalign.datasets.image_reading import IMAGE_EXTENSIONS, TORCHVISION_EXTENSIONS, is_image_name
from hessalign.datasets.registry import register
from hessalign.files import shown

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev"})
OUTSIDE = "images outside a class folder"


@register("image_folder", reference_name="ImageFolderDomains")
class ImageFolderDomains(ImageFileDomains):
    """Your own images: one folder for each domain, in it one for each class.

    Domains and classes are in the order of their sorted names, images in the order of their sorted paths, as
    in DomainBed, so that its splits fall the same. The classes are the union over the domains: a domain may
    lack the folder of a class, but a folder without an image is taken for a mistake. Images in folders below
    a class belong to it. Links to files and to folders are followed, but no folder is read twice. Hidden
    files and folders are ignored; other files that are no images are left out, which gives a warning.

    Args:
        root: Folder that holds the domain folders.

    Raises:
        ValueError: If the root is no folder or holds no domain, a domain or a class folder holds no image, or
            a link leads to a folder that is read in another way; the message names it.
        OSError: If a folder cannot be read.
    """

    extensions: ClassVar[Sequence[str]] = IMAGE_EXTENSIONS

    def list_files(self, root: Path) -> Listing:
        """The images below the root."""
        if not root.is_dir():
            raise ValueError(
                f"root: {shown(root)} is not a folder; "
                "allowed is a folder laid out as root/domain/class/image"
            )
        folders = {name: root / name for name in subfolders(root)}
        if not folders:
            raise ValueError(
                f"root: {shown(root)} holds no folder; "
                "allowed is a folder laid out as root/domain/class/image"
            )
        return list_domains(root, folders, self.extensions)


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def list_domains(root: Path, folders: Mapping[str, Path], extensions: Sequence[str]) -> Listing:
    """The images of each domain, from the folder of each.

    Args:
        root: Folder that holds the folders.
        folders: Folder of each domain, by its name.
        extensions: Endings of names that count as images.

    Returns:
        The images, by domain.

    Raises:
        ValueError: If a domain or a class folder holds no image, or a folder would be read twice.
        OSError: If a folder cannot be read.
    """
    finder = ImageFinder(root, extensions)
    finder.visit(os.fspath(root))
    finder.leave_out_images_of(root)
    files = {name: _list_domain(folder, finder) for name, folder in folders.items()}
    class_names = sorted({class_name for domain in files.values() for _, class_name in domain})
    left_out = dict(sorted(finder.left_out.items()))
    return Listing(tuple(class_names), files, left_out, _layout_doubts(folders, files))


class ImageFinder:
    """Finds images in folders, in each folder once.

    Args:
        root: What all folders lie in.
        extensions: Endings of names that count as images.

    Attributes:
        left_out: Number of files that were passed over, by what they are; hidden ones are not counted.
    """

    def __init__(self, root: Path, extensions: Sequence[str] = IMAGE_EXTENSIONS) -> None:
        self.extensions = extensions
        self.left_out: Counter[str] = Counter()
        self._above = [root.resolve(), *root.resolve().parents]
        self._read: dict[tuple[int, int], str] = {}

    def find(self, folder: Path) -> list[str]:
        """Paths of the images in a folder and in those below it, sorted.

        Sorted by whole paths, not level by level: the order in which torchvision's ImageFolder lists.

        Returns:
            Paths.

        Raises:
            ValueError: If a folder was read before, or leads back to one that holds it.
            OSError: If a folder cannot be read.
        """
        places = []
        for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
            self.visit(place)
            folders[:] = [name for name in folders if not name.startswith(".")]
            places.append((place, sorted(name for name in names if not name.startswith("."))))
        paths = []
        for place, names in sorted(places):
            for name in names:
                if is_image_name(name, self.extensions):
                    paths.append(os.path.join(place, name))
                else:
                    self.left_out[f"{Path(name).suffix.lower() or 'files without an ending'}"] += 1
        return paths

    def visit(self, place: str) -> None:
        """Note that a folder is read.

        Raises:
            ValueError: If it was read before, or it is a link to what holds the root.
        """
        status = os.stat(place)
        twin = self._read.get((status.st_dev, status.st_ino))
        if twin is None and os.path.islink(place) and Path(place).resolve() in self._above:
            twin = os.path.realpath(place)
        if twin is not None:
            raise ValueError(
                f"root: {shown(place)} leads to the same folder as {shown(twin)}, whose images would count "
                "more than once; remove one of the two"
            )
        self._read[status.st_dev, status.st_ino] = place

    def leave_out_images_of(self, folder: Path) -> None:
        """Count the images that lie in a folder itself, where none are read."""
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
        if count := sum(is_image_name(name, self.extensions) for name in names):
            self.left_out[OUTSIDE] += count


def _raise(error: OSError) -> None:
    raise error


def _list_domain(folder: Path, finder: ImageFinder) -> list[tuple[str, str]]:
    finder.visit(os.fspath(folder))
    finder.leave_out_images_of(folder)
    files = []
    for class_name in subfolders(folder):
        paths = finder.find(folder / class_name)
        if not paths:
            raise ValueError(
                f"root: the class folder {shown(folder / class_name)} holds no image; add images "
                f"({', '.join(finder.extensions)}), or remove the folder if the domain lacks the class"
            )
        files += [(path, class_name) for path in paths]
    if not files:
        raise ValueError(
            f"root: the domain folder {shown(folder)} holds no class folder with an image; allowed is the "
            "layout root/domain/class/image"
        )
    return files


def _layout_doubts(
    folders: Mapping[str, Path], files: Mapping[str, Sequence[tuple[str, str]]]
) -> tuple[str, ...]:
    """Whether classes seem to lie a level deeper than they should."""
    inside: dict[tuple[str, str], set[str]] = {}  # of each class folder, "" for an image itself
    for domain, images in files.items():
        start = len(folders[domain].parts) + 1
        for path, class_name in images:
            inner = Path(path).parts[start:]
            inside.setdefault((domain, class_name), set()).add(inner[0] if len(inner) > 1 else "")
    splits = {name for (_, name), found in inside.items() if name.lower() in SPLIT_NAMES and "" not in found}
    shared = set.intersection(*inside.values()) if len({name for _, name in inside}) > 1 else set()
    if splits:
        return (
            f"the class folders {', '.join(map(repr, sorted(splits)))} hold folders instead of images, like "
            "parts of a split; allowed is the layout root/domain/class/image",
        )
    if shared and "" not in set.union(*inside.values()):
        return (
            f"no class folder holds an image itself, and all of them hold a folder {min(shared)!r}, as if "
            "the classes lay a level deeper; allowed is the layout root/domain/class/image",
        )
    return ()


class PublishedFolder(PublishedImages):
    """A published dataset, found by the names of its domain folders.

    Capitals, spaces, hyphens and underscores in those names do not matter (there are copies with
    ``Real World`` and with ``RealWorld``); other folders beside them are ignored. Images are those that
    torchvision's ImageFolder takes for one, as in DomainBed.

    Args:
        root: Folder that holds the dataset's folder, or the domain folders themselves.

    Raises:
        ValueError: If a domain folder is missing, or a domain or a class folder holds no image.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from hessalign.datasets import PublishedFolder
        >>> class TwoCities(PublishedFolder):
        ...     folder, domain_names = "Cities", ("Real World", "sketch")
        ...     name, reference_name = "two_cities", "TwoCities"
        ...     class_count, expected_counts = None, None
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for domain in ("RealWorld", "sketch"):
        ...         for kind in ("house", "tower"):
        ...             place = Path(root) / "Cities" / domain / kind
        ...             place.mkdir(parents=True)
        ...             Image.new("RGB", (8, 8)).save(place / "1.png")
        ...     dataset = TwoCities(Path(root))
        >>> [(domain.name, len(domain)) for domain in dataset.domains], dataset.class_names
        ([('Real World', 2), ('sketch', 2)], ('house', 'tower'))
    """

    extensions: ClassVar[Sequence[str]] = TORCHVISION_EXTENSIONS

    def list_files(self, root: Path) -> Listing:
        """The images of the dataset's domains."""
        if not root.is_dir():
            raise ValueError(
                f"root: {shown(root)} is not a folder; "
                f"allowed is a folder that holds {self.folder}/ or its domain folders"
            )
        place = self.base(root)
        found = self._domain_folders(place)
        missing = [name for name in self.domain_names if name not in found]
        if missing:
            raise ValueError(
                f"root: {shown(place)} lacks the domain folders {', '.join(missing)}; "
                f"{self.folder} has {', '.join(self.domain_names)}"
            )
        return list_domains(place, found, self.extensions)

    @override
    @classmethod
    def contents(cls) -> str:
        return f"the domain folders {', '.join(cls.domain_names)}"

    @override
    @classmethod
    def is_whole(cls, place: Path) -> bool:
        return len(cls._domain_folders(place)) == len(cls.domain_names)

    @classmethod
    def _domain_folders(cls, place: Path) -> dict[str, Path]:
        """The folder of each domain that has one."""
        found: dict[str, Path] = {}
        wanted = {_plain_name(name) for name in cls.domain_names}
        for name in subfolders(place):
            plain = _plain_name(name)
            if plain in wanted and plain in found:
                raise ValueError(
                    f"root: {shown(found[plain])} and {shown(place / name)} are both a folder of one domain "
                    f"of {cls.folder}; remove one of the two"
                )
            found[plain] = place / name
        return {name: found[_plain_name(name)] for name in cls.domain_names if _plain_name(name) in found}


def _plain_name(name: str) -> str:
    return "".join(character for character in name.casefold() if character not in " -_")
