"""Terra Incognita."""

from typing import ClassVar

from hessalign.datasets.base import PublishedCounts
from hessalign.datasets.published_folder import PublishedFolder
from hessalign.datasets.registry import register


@register("terra_incognita")
class TerraIncognita(PublishedFolder):
    """Terra Incognita: animals in front of camera traps at four places, as DomainBed selects them.

    * Domains, in index order: location_100, location_38, location_43, location_46.
    * Classes: 10 (bird, bobcat, cat, coyote, dog, empty, opossum, rabbit, raccoon, squirrel).
    * Images: 24,788 in the papers; today's download makes 24,330. Both are accepted.
    * Source: Beery, Van Horn and Perona, "Recognition in Terra Incognita", ECCV 2018.
    * Licence: not part of this package; ask the authors' terms before you share images.

    Args:
        root: Folder that holds ``terra_incognita/``, or the domain folders themselves.

    Raises:
        ValueError: If a domain folder is missing, or a domain or a class folder holds no image.
    """

    folder: ClassVar[str] = "terra_incognita"
    domain_names: ClassVar[tuple[str, ...]] = ("location_100", "location_38", "location_43", "location_46")
    class_count: ClassVar[int | None] = 10
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(totals=(24_788, 24_330))
