"""Spawrious, many-to-many, medium."""

from typing import ClassVar

from hessalign.datasets.registry import register
from hessalign.datasets.spawrious import ManyToMany


@register("spawrious_m2m_medium", reference_name="SpawriousM2M_medium")
class SpawriousManyToManyMedium(ManyToMany):
    """Spawrious, many-to-many, medium: pairs of breeds before pairs of backgrounds.

    * Training: bulldog and dachshund before beach and snow, labrador and corgi before mountain and
      desert; the second source domain swaps them.
    * Target: bulldog and dachshund before desert and mountain, labrador and corgi before beach and snow.
    * Images: 25,344, 12,672 and 12,672, in all 50,688. All else: ``Spawrious``.
    """

    trained_before: ClassVar[tuple[str, str, str, str]] = ("beach", "snow", "mountain", "desert")
    tested_before: ClassVar[tuple[str, str, str, str]] = ("desert", "mountain", "beach", "snow")
