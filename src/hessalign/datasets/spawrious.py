"""Spawrious: what its six datasets share."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from typing_extensions import override

from hessalign.datasets.archives import Source
from hessalign.datasets.base import PublishedCounts
from hessalign.datasets.image_files import Listing, PublishedImages
from hessalign.datasets.image_reading import RESIZE, is_image_name
from hessalign.files import shown

CLASSES = ("bulldog", "corgi", "dachshund", "labrador")
BREEDS = ("bulldog", "dachshund", "labrador", "corgi")
"""The same as domains list them: the first two share their backgrounds, and so do the others."""
PARTNERS = (1, 0, 3, 2)
ENDINGS = (".png", ".jpg", ".jpeg")
TARGET, SOURCES = "Test", ("SC_group_1", "SC_group_2")
HALVES = ("0", "1")
IN_FOLDER = 3_168
"""Images of one breed at one place in one half of the data."""
SHARES = (0.97, 0.87)
"""Of a breed's images, how many stand before its own background in either source domain (one to one)."""


class Taken(NamedTuple):
    """Images that belong to a domain.

    Attributes:
        half: Folder of the half of the data, ``"0"`` or ``"1"``.
        place: Background.
        breed: Class.
        first: So many, by the order of their names; None for all.
    """

    half: str
    place: str
    breed: str
    first: int | None


class Spawrious(PublishedImages):
    """Dogs before backgrounds that go with their breeds in training, and with other breeds in the target.

    * Domains, in index order: Test, SC_group_1, SC_group_2; the first is the target that the authors mean.
    * Classes: 4 (bulldog, corgi, dachshund, labrador).
    * Layout: ``spawrious224/0/PLACE/BREED/*`` and ``spawrious224/1/PLACE/BREED/*``.
    * Images: 3,168 of each breed at each place in either half, 152,064 in all, of which a dataset takes some.
      Where it takes the first of a folder, that is by the order of names. DomainBed, and the authors' own
      reader, take the first that the file system happens to list.
    * Training images are resized and not cropped, as DomainBed does it.
    * Source: Lynch, Dovonon, Kaddour and Silva, "Spawrious: A Benchmark for Fine Control of Spurious
      Correlation Biases", arXiv:2303.05470. Who stands where is as in the authors' code and in DomainBed.
    * Licence: MIT, as the authors' repository says; not part of this package.

    Args:
        root: Folder that holds ``spawrious224``, or that folder itself.

    Raises:
        ValueError: If a folder is missing or holds fewer images than are taken of it.

    Attributes:
        trained_before: Background of each breed, in the order of ``BREEDS``, in SC_group_1.
        tested_before: The same in the target.
    """

    folder: ClassVar[str] = "spawrious224"
    geometry: ClassVar[Sequence[torch.nn.Module]] = RESIZE
    checkpoint_every: ClassVar[int] = 100
    domain_names: ClassVar[tuple[str, ...]] = (TARGET, *SOURCES)
    class_count: ClassVar[int | None] = len(CLASSES)
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(
        totals=(16 * IN_FOLDER,),
        by_domain={TARGET: 8 * IN_FOLDER, SOURCES[0]: 4 * IN_FOLDER, SOURCES[1]: 4 * IN_FOLDER},
    )
    page: ClassVar[str] = "https://github.com/aengusl/spawrious"
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "spawrious224", "tar.gz", "https://www.dropbox.com/s/e40j553480h3f3s/spawrious224.tar.gz?dl=1"
        ),
    )
    trained_before: ClassVar[tuple[str, str, str, str]]
    tested_before: ClassVar[tuple[str, str, str, str]]

    @classmethod
    @abstractmethod
    def taken(cls) -> dict[str, list[Taken]]:
        """What each domain takes, in the order in which it lists its images."""

    @override
    def list_files(self, root: Path) -> Listing:
        place = self.base(root)
        if not place.is_dir():
            raise ValueError(f"root: {shown(root)} is not a folder; allowed is one that holds {self.folder}/")
        return Listing(CLASSES, {name: _files(place, taken) for name, taken in self.taken().items()})

    @override
    @classmethod
    def contents(cls) -> str:
        return "0/PLACE/BREED and 1/PLACE/BREED"

    @override
    @classmethod
    def is_whole(cls, place: Path) -> bool:
        taken = {each for domain in cls.taken().values() for each in domain}
        return all((place / each.half / each.place / each.breed).is_dir() for each in taken)


class OneToOne(Spawrious):
    """Each breed before one background in training, but for a few before one that all share.

    Attributes:
        filler: The background that they share.
    """

    filler: ClassVar[str]

    @override
    @classmethod
    def taken(cls) -> dict[str, list[Taken]]:
        target = [
            Taken(half, place, breed, None)
            for half in HALVES
            for breed, place in zip(BREEDS, cls.tested_before, strict=True)
        ]
        domains = {TARGET: target}
        for name, half, share in zip(SOURCES, HALVES, SHARES, strict=True):
            count = int(share * IN_FOLDER)
            own = zip(BREEDS, cls.trained_before, strict=True)
            domains[name] = [Taken(half, place, breed, count) for breed, place in own]
            domains[name] += [Taken(half, cls.filler, breed, IN_FOLDER - count) for breed in BREEDS]
        return domains


class ManyToMany(Spawrious):
    """Two breeds share two backgrounds, which they swap between the source domains."""

    @override
    @classmethod
    def taken(cls) -> dict[str, list[Taken]]:
        half = HALVES[0]
        orders = (range(len(BREEDS)), PARTNERS)
        target = [
            Taken(half, cls.tested_before[place], breed, None)
            for order in orders
            for breed, place in zip(BREEDS, order, strict=True)
        ]
        sources = {
            name: [
                Taken(half, cls.trained_before[place], breed, IN_FOLDER)
                for breed, place in zip(BREEDS, order, strict=True)
            ]
            for name, order in zip(SOURCES, orders, strict=True)
        }
        return {TARGET: target, **sources}


def _files(root: Path, taken: Sequence[Taken]) -> list[tuple[str, str]]:
    files = []
    for each in taken:
        folder = root / each.half / each.place / each.breed
        if not folder.is_dir():
            raise ValueError(
                f"root: {shown(root)} lacks the folder {each.half}/{each.place}/{each.breed}; allowed is the "
                "layout of the authors' archive"
            )
        names = sorted(name for name in os.listdir(folder) if is_image_name(name, ENDINGS))
        if len(names) < (each.first or 1):
            raise ValueError(
                f"root: {shown(folder)} holds {len(names):,} images, and {each.first or 1:,} or more are "
                "needed; get the archive anew"
            )
        files += [(os.path.join(folder, name), each.breed) for name in names[: each.first]]
    return files
