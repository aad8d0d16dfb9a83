"""Spawrious, many-to-many, hard."""

from typing import ClassVar

from hessalign.datasets.registry import register
from hessalign.datasets.spawrious import ManyToMany


@register("spawrious_m2m_hard", reference_name="SpawriousM2M_hard")
class SpawriousManyToManyHard(ManyToMany):
    """Spawrious, many-to-many, hard: pairs of breeds before pairs of backgrounds.

    * Training: bulldog and dachshund before dirt and jungle, labrador and corgi before snow and
      beach; the second source domain swaps them.
    * Target: bulldog and dachshund before snow and beach, labrador and corgi before dirt and jungle.
    * The paper's table has other places (https://github.com/aengusl/spawrious/issues/2); these are those of
      the authors' code and of DomainBed.
    * Images: 25,344, 12,672 and 12,672, in all 50,688. All else: ``Spawrious``.
    """

    trained_before: ClassVar[tuple[str, str, str, str]] = ("dirt", "jungle", "snow", "beach")
    tested_before: ClassVar[tuple[str, str, str, str]] = ("snow", "beach", "dirt", "jungle")
