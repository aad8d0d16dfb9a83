"""Spawrious, one-to-one, easy."""

from typing import ClassVar

from hessalign.datasets.registry import register
from hessalign.datasets.spawrious import OneToOne


@register("spawrious_o2o_easy", reference_name="SpawriousO2O_easy")
class SpawriousOneToOneEasy(OneToOne):
    """Spawrious, one-to-one, easy: each breed before a background of its own.

    * Training: bulldog before desert, dachshund before jungle, labrador before dirt, corgi before snow;
      3 % and 13 % of each before beach.
    * Target: bulldog before dirt, dachshund before snow, labrador before desert, corgi before jungle.
    * Images: 25,344, 12,672 and 12,672, in all 50,688. All else: ``Spawrious``.
    """

    trained_before: ClassVar[tuple[str, str, str, str]] = ("desert", "jungle", "dirt", "snow")
    tested_before: ClassVar[tuple[str, str, str, str]] = ("dirt", "snow", "desert", "jungle")
    filler: ClassVar[str] = "beach"
