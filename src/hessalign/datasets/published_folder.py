"""Published datasets in the folders that DomainBed's download makes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from hessalign.datasets.image_files import Listing
from hessalign.datasets.image_folder import ImageFolderDomains, list_domains, subfolders
from hessalign.datasets.image_reading import TORCHVISION_EXTENSIONS
from hessalign.datasets.sources import Source
from hessalign.files import shown


class PublishedFolder(ImageFolderDomains):
    """A published dataset, found by the names of its domain folders.

    Capitals, spaces, hyphens and underscores in those names do not matter (there are copies with
    ``Real World`` and with ``RealWorld``); other folders beside them are ignored. Images are those that
    torchvision's ImageFolder takes for one, as in DomainBed.

    Args:
        root: Folder that holds the dataset's folder, or the domain folders themselves.

    Raises:
        ValueError: If a domain folder is missing, or a domain or a class folder holds no image.

    Attributes:
        folder: Name of the dataset's folder in DomainBed's layout.
        page: Where a person finds the archives.
        sources: The archives.
        duplicates_url: List of images that DomainBed deletes; None where it deletes none.
    """

    extensions: ClassVar[Sequence[str]] = TORCHVISION_EXTENSIONS
    folder: ClassVar[str]
    page: ClassVar[str]
    sources: ClassVar[tuple[Source, ...]]
    duplicates_url: ClassVar[str | None] = None

    @property
    def fingerprint(self) -> str:
        """Empty for a copy with the published number of images, which the name settles."""
        total = sum(map(len, self.domains))
        whole = self.expected_counts is not None and total in self.expected_counts.totals
        return "" if whole else super().fingerprint

    def base(self, root: Path) -> Path:
        """The folder that holds the domain folders."""
        place = root / self.folder
        return place if place.is_dir() else root

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

    @classmethod
    def existing(cls, root: Path) -> Path | None:
        """What lies where the dataset would be downloaded to, or would be read from; None if nothing."""
        if (root / cls.folder).exists():
            return root / cls.folder
        return root if root.is_dir() and cls._is_whole(root) else None

    @classmethod
    def arrange(cls, extracted: Path) -> Path:
        """Find or make, among the files of the extracted archives, the folder of the domain folders.

        Raises:
            ValueError: If there is none.
        """
        for place, _, _ in os.walk(extracted):
            if cls._is_whole(Path(place)):
                return Path(place)
        raise ValueError(
            f"source: the archives hold no folder with the domain folders {', '.join(cls.domain_names)}; "
            f"allowed are archives of {cls.folder}"
        )

    @classmethod
    def _is_whole(cls, place: Path) -> bool:
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
