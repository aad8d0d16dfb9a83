"""DomainNet."""

from typing import ClassVar

from hessalign.datasets.archives import Checksum, Source
from hessalign.datasets.base import PublishedCounts, SearchSpace
from hessalign.datasets.image_folder import PublishedFolder
from hessalign.datasets.registry import register

SERVER = "https://csr.bu.edu/ftp/visda/2019/multi-source"


@register("domain_net", reference_name="DomainNet")
class DomainNet(PublishedFolder):
    """DomainNet: many classes in six styles.

    * Domains, in index order: clipart, infograph, painting, quickdraw, real, sketch.
    * Classes: 345.
    * Images: 48,129, 51,605, 72,266, 172,500, 172,947 and 69,128, in all 586,575, without the duplicates that
      the authors list (596,010 with them). Reading removes nothing: a copy with them is read as it is.
    * Source: Peng, Bai, Xia, Huang, Saenko and Wang, "Moment Matching for Multi-Source Domain Adaptation",
      ICCV 2019.
    * Licence: not part of this package; ask the authors' terms before you share images.
    """

    search_space: ClassVar[SearchSpace] = "domain_net"
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
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(
        totals=(586_575,),
        by_domain={
            "clipart": 48_129,
            "infograph": 51_605,
            "painting": 72_266,
            "quickdraw": 172_500,
            "real": 172_947,
            "sketch": 69_128,
        },
    )
    page: ClassVar[str] = "https://ai.bu.edu/M3SDA/"
    sources: ClassVar[tuple[Source, ...]] = tuple(
        Source(name, "zip", f"{SERVER}/{path}.zip", checksum=Checksum("sha512", digits, "kwcoco"))
        for name, path, digits in (
            ("clipart", "groundtruth/clipart", "3bcfb9ec1b4061e8d5b0b887d4ebd4a708732787fc563c6dfc2d"),
            ("infograph", "infograph", "47841f0d1b8606e4b02d508b250484d54f5cf04ef6c4875c6c5a39c"),
            ("painting", "groundtruth/painting", "4c98b02563075948668a298c488660fda1d1a7ed85fd69caa7985fba"),
            ("quickdraw", "quickdraw", "127cce1dd57fc99992f8614de77d03ae8ed6af242973f7a013ec0a"),
            ("real", "real", "751713d4592d1278b50bf69787988cfae280cabdac80ee34ec4016e"),
            ("sketch", "sketch", "369b8b6d78ac61bfcc85f660d878ba5fc701524b82bbc2eb65ca9a"),
        )
    )
    duplicates_url: ClassVar[str | None] = (
        "https://raw.githubusercontent.com/facebookresearch/DomainBed/main/domainbed/misc/domain_net_duplicates.txt"
    )
