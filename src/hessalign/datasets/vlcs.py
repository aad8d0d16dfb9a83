"""VLCS."""

from typing import ClassVar

from hessalign.datasets.archives import Checksum, Source, google_drive
from hessalign.datasets.base import PublishedCounts
from hessalign.datasets.image_folder import PublishedFolder
from hessalign.datasets.registry import register


@register("vlcs", reference_name="VLCS")
class VLCS(PublishedFolder):
    """VLCS: the classes that four collections of photographs share.

    * Domains, in index order: Caltech101, LabelMe, SUN09, VOC2007.
    * Classes: 5 (bird, car, chair, dog, person).
    * Images: 1,415, 2,656, 3,282 and 3,376, in all 10,729.
    * Source: Fang, Xu and Rockmore, "Unbiased Metric Learning: On the Utilization of Multiple Datasets and
      Web Images for Softening Bias", ICCV 2013.
    * Licence: not part of this package; each of the four collections has terms of its own.
    """

    folder: ClassVar[str] = "VLCS"
    domain_names: ClassVar[tuple[str, ...]] = ("Caltech101", "LabelMe", "SUN09", "VOC2007")
    class_count: ClassVar[int | None] = 5
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(
        totals=(10_729,), by_domain={"Caltech101": 1_415, "LabelMe": 2_656, "SUN09": 3_282, "VOC2007": 3_376}
    )
    page: ClassVar[str] = "https://github.com/facebookresearch/DomainBed/issues/165"
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "VLCS",
            "tar.gz",
            google_drive("1skwblH1_okBwxWxmRsp9_qi15hyPpxg8"),
            checksum=Checksum("md5", "8870171eba660927d9668f4e515928e4", "one public project"),
        ),
    )
