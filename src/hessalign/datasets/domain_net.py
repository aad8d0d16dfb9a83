"""DomainNet."""

from typing import ClassVar

from hessalign.datasets.base import Images, PublishedCounts
from hessalign.datasets.published_folder import PublishedFolder
from hessalign.datasets.registry import register


@register("domain_net")
class DomainNet(PublishedFolder):
    """DomainNet: many classes in six styles.

    * Domains, in index order: clipart, infograph, painting, quickdraw, real, sketch.
    * Classes: 345.
    * Images: 586,575 after DomainBed's download has removed the duplicates that the authors list. Nothing is
      removed here: a copy with the duplicates is read as it is.
    * Source: Peng, Bai, Xia, Huang, Saenko and Wang, "Moment Matching for Multi-Source Domain Adaptation",
      ICCV 2019.
    * Licence: not part of this package; ask the authors' terms before you share images.

    Args:
        root: Folder that holds ``domain_net/``, or the domain folders themselves.

    Raises:
        ValueError: If a domain folder is missing, or a domain or a class folder holds no image.
    """

    images: ClassVar[Images] = "domain_net"
    checkpoint_every: ClassVar[int] = 1000
    folder: ClassVar[str] = "domain_net"
    domain_names: ClassVar[tuple[str, ...]] = (
        "clipart",
        "infograph",
        "painting",
        "quickdraw",
        "real",
        "sketch",
    )
    class_count: ClassVar[int | None] = 345
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(totals=(586_575,))
