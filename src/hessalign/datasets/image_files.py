"""Domains made of image files."""

import copy
import hashlib
import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.checks import require_path
from hessalign.datasets.archives import Source
from hessalign.datasets.base import Domain, DomainDataset, Samples, SearchSpace, require_root
from hessalign.datasets.image_reading import (
    CROP,
    IMAGE_SIZE,
    Transform,
    plain_transform,
    read_image,
    training_transform,
)
from hessalign.exceptions import HessalignWarning
from hessalign.files import shown


class ImageFiles(Samples):
    """Images decoded when they are asked for.

    Args:
        paths: Strings rather than paths, which take several times the memory.
        targets: Class ids, ``(n,)``, int64.
        transform: Makes an input of an RGB image.
    """

    def __init__(self, paths: Sequence[str], targets: Tensor, transform: Transform) -> None:
        self.paths = paths
        self.targets = targets
        self.transform = transform
        self.preprocessing = " ".join(str(transform).split())

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Input and class id of one image.

        Returns:
            Input ``(3, height, width)``, and class id.

        Raises:
            OSError: If it cannot be read; the message names the file.
        """
        return self.transform(read_image(self.paths[index])), int(self.targets[index])

    @override
    def with_transform(self, transform: Transform) -> Self:
        changed = copy.copy(self)
        changed.transform, changed.preprocessing = transform, " ".join(str(transform).split())
        return changed

    def check(self, index: int) -> None:
        """Decode an image and drop it.

        Raises:
            OSError: If it cannot be read; the message names the file.
        """
        read_image(self.paths[index])

    def file_of(self, index: int) -> str | None:
        """File of an image."""
        return self.paths[index]


@dataclass(frozen=True)
class Listing:
    """Which files make a dataset.

    Attributes:
        class_names: Name of each class, by class id.
        files: Path and class name of each image, by domain, the domains in index order.
        left_out: Number of files that lie among the images and are not read, by what they are.
        doubts: One sentence for each mistake that the layout looks like.
    """

    class_names: tuple[str, ...]
    files: Mapping[str, Sequence[tuple[str, str]]]
    left_out: Mapping[str, int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


class ImageFileDomains(DomainDataset):
    """A dataset of image files, listed once.

    Args:
        root: Where the data lies.

    Raises:
        ValueError: If what lies there is not such a dataset.
        OSError: If a folder cannot be read.

    Attributes:
        geometry: How training makes an image of 224 × 224 of any.
    """

    search_space: ClassVar[SearchSpace] = "large"
    input_shape: tuple[int, ...] = (3, IMAGE_SIZE, IMAGE_SIZE)
    checkpoint_every: ClassVar[int] = 300
    geometry: ClassVar[Sequence[torch.nn.Module]] = CROP

    def __init__(self, root: Path | str) -> None:
        root = require_path("root", root)
        listing = self.list_files(root)
        class_ids = {name: index for index, name in enumerate(listing.class_names)}
        plain, augmented = plain_transform(), training_transform(self.geometry)
        domains = []
        for name, files in listing.files.items():
            paths = [path for path, _ in files]
            targets = torch.tensor([class_ids[class_name] for _, class_name in files], dtype=torch.long)
            domains.append(
                Domain(
                    name, targets, ImageFiles(paths, targets, plain), ImageFiles(paths, targets, augmented)
                )
            )
        super().__init__(listing.class_names, tuple(domains), listing.doubts)
        self.left_out = dict(listing.left_out)
        if self.left_out:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.left_out.items())
            warnings.warn(
                f"root: {shown(root)} holds files that are left out: {kinds}", HessalignWarning, stacklevel=2
            )
        self._fingerprint = _fingerprint(listing, self.base(root))

    @property
    def fingerprint(self) -> str:
        """Short hash of the names of domains, classes and files; moving the data leaves it as it is."""
        return self._fingerprint

    def base(self, root: Path) -> Path:
        """The folder that the files' paths are told from."""
        return root

    @override
    @classmethod
    def make(cls, root: Path | None, seed: int) -> Self:
        return cls(require_root(cls.name, root, "the path of the data"))

    @abstractmethod
    def list_files(self, root: Path) -> Listing:
        """The files that make the dataset.

        Raises:
            ValueError: If they do not make one.
        """


class PublishedImages(ImageFileDomains):
    """A published dataset of image files, which can be downloaded as archives.

    Args:
        root: Folder that holds the dataset's folder, or what the dataset's folder holds.

    Raises:
        ValueError: If what lies there is not the dataset.

    Attributes:
        folder: Name of the dataset's folder.
        page: Where a person finds the archives.
        sources: The archives; none where no public address is known.
        duplicates_url: List of images that DomainBed deletes; None where it deletes none.

    Examples:
        >>> from hessalign.datasets import PublishedImages, dataset_names, get_dataset
        >>> classes = [get_dataset(name) for name in dataset_names()]
        >>> {kind.name: kind.folder for kind in classes if issubclass(kind, PublishedImages)}["pacs"]
        'PACS'
    """

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
        """The folder that holds the dataset's contents."""
        place = root / self.folder
        return place if place.is_dir() else root

    @classmethod
    def existing(cls, root: Path) -> Path | None:
        """What lies where the dataset would be downloaded to, or would be read from; None if nothing."""
        if (root / cls.folder).exists():
            return root / cls.folder
        return root if root.is_dir() and cls.is_whole(root) else None

    @classmethod
    def arrange(cls, extracted: Path) -> Path:
        """Find or make, among the files of the extracted archives, the dataset's folder.

        Returns:
            The folder of its contents.

        Raises:
            ValueError: If there is none.
        """
        for place, _, _ in os.walk(extracted):
            if cls.is_whole(Path(place)):
                return Path(place)
        raise ValueError(
            f"source: the archives hold no folder with {cls.contents()}; allowed are archives of {cls.folder}"
        )

    @classmethod
    @abstractmethod
    def contents(cls) -> str:
        """What the dataset's folder must hold, in words, for messages."""

    @classmethod
    @abstractmethod
    def is_whole(cls, place: Path) -> bool:
        """Whether a folder holds that."""


def _fingerprint(listing: Listing, base: Path) -> str:
    content = hashlib.sha256(repr(listing.class_names).encode())
    for domain, files in listing.files.items():
        content.update(repr(domain).encode())
        for path, class_name in files:
            name = path.removeprefix(f"{base}{os.sep}").replace(os.sep, "/")
            content.update(repr((name, class_name)).encode())
    return content.hexdigest()[:12]
