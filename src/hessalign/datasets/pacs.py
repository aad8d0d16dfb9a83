"""PACS."""

from typing import ClassVar

from hessalign.datasets.archives import Checksum, Source, google_drive
from hessalign.datasets.base import PublishedCounts
from hessalign.datasets.image_folder import PublishedFolder
from hessalign.datasets.registry import register


@register("pacs", reference_name="PACS")
class PACS(PublishedFolder):
    """PACS: the same objects painted, drawn, photographed and sketched.

    * Domains, in index order: art_painting, cartoon, photo, sketch.
    * Classes: 7 (dog, elephant, giraffe, guitar, horse, house, person).
    * Images: 2,048, 2,344, 1,670 and 3,929, in all 9,991.
    * Source: Li, Yang, Song and Hospedales, "Deeper, Broader and Artier Domain Generalization", ICCV 2017.
    * Licence: not part of this package; ask the authors' terms before you share images.
    """

    folder: ClassVar[str] = "PACS"
    domain_names: ClassVar[tuple[str, ...]] = ("art_painting", "cartoon", "photo", "sketch")
    class_count: ClassVar[int | None] = 7
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(
        totals=(9_991,), by_domain={"art_painting": 2_048, "cartoon": 2_344, "photo": 1_670, "sketch": 3_929}
    )
    page: ClassVar[str] = "https://dali-dl.github.io/project_iccv2017.html"
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "PACS",
            "zip",
            google_drive("1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd"),
            checksum=Checksum("md5", "fd5db817f7cdafeef3bfd525aaf9b42e", "one public project"),
        ),
    )
