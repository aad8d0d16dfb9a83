"""Spawrious, many-to-many, easy."""

from typing import ClassVar

from hessalign.datasets.registry import register
from hessalign.datasets.spawrious import ManyToMany


@register("spawrious_m2m_easy", reference_name="SpawriousM2M_easy")
class SpawriousManyToManyEasy(ManyToMany):
    """Spawrious, many-to-many, easy: pairs of breeds before pairs of backgrounds.

    * Training: bulldog and dachshund before desert and mountain, labrador and corgi before dirt and
      jungle; the second source domain swaps them.
    * Target: bulldog and dachshund before dirt and jungle, labrador and corgi before mountain and desert.
    * Images: 25,344, 12,672 and 12,672, in all 50,688. All else: ``Spawrious``.
    """

    trained_before: ClassVar[tuple[str, str, str, str]] = ("desert", "mountain", "dirt", "jungle")
    tested_before: ClassVar[tuple[str, str, str, str]] = ("dirt", "jungle", "mountain", "desert")
