"""Spawrious, one-to-one, hard."""

from typing import ClassVar

from hessalign.datasets.registry import register
from hessalign.datasets.spawrious import OneToOne


@register("spawrious_o2o_hard", reference_name="SpawriousO2O_hard")
class SpawriousOneToOneHard(OneToOne):
    """Spawrious, one-to-one, hard: each breed before a background of its own.

    * Training: bulldog before jungle, dachshund before mountain, labrador before snow, corgi before desert;
      3 % and 13 % of each before beach.
    * Target: bulldog before mountain, dachshund before snow, labrador before desert, corgi before jungle.
    * Images: 25,344, 12,672 and 12,672, in all 50,688. All else: ``Spawrious``.
    """

    trained_before: ClassVar[tuple[str, str, str, str]] = ("jungle", "mountain", "snow", "desert")
    tested_before: ClassVar[tuple[str, str, str, str]] = ("mountain", "snow", "desert", "jungle")
    filler: ClassVar[str] = "beach"
