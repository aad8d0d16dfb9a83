"""Office-Home."""

from typing import ClassVar

from hessalign.datasets.archives import Checksum, Source, google_drive
from hessalign.datasets.base import PublishedCounts
from hessalign.datasets.image_folder import PublishedFolder
from hessalign.datasets.registry import register


@register("office_home", reference_name="OfficeHome")
class OfficeHome(PublishedFolder):
    """Office-Home: things of office and home in four styles.

    * Domains, in index order: Art, Clipart, Product, Real World.
    * Classes: 65.
    * Images: 2,427, 4,365, 4,439 and 4,357, in all 15,588.
    * Source: Venkateswara, Eusebio, Chakraborty and Panchanathan, "Deep Hashing Network for Unsupervised
      Domain Adaptation", CVPR 2017.
    * Licence: not part of this package; ask the authors' terms before you share images.
    """

    folder: ClassVar[str] = "office_home"
    domain_names: ClassVar[tuple[str, ...]] = ("Art", "Clipart", "Product", "Real World")
    class_count: ClassVar[int | None] = 65
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(
        totals=(15_588,), by_domain={"Art": 2_427, "Clipart": 4_365, "Product": 4_439, "Real World": 4_357}
    )
    page: ClassVar[str] = "https://www.hemanthdv.org/officeHomeDataset.html"
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "OfficeHomeDataset_10072016",
            "zip",
            google_drive("1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC"),
            checksum=Checksum("md5", "b1c14819770c4448fd5b6d931031c91c", "four public projects"),
        ),
    )
