"""Spawrious, one-to-one, medium."""

from typing import ClassVar

from hessalign.datasets.registry import register
from hessalign.datasets.spawrious import OneToOne


@register("spawrious_o2o_medium", reference_name="SpawriousO2O_medium")
class SpawriousOneToOneMedium(OneToOne):
    """Spawrious, one-to-one, medium: each breed before a background of its own.

    * Training: bulldog before mountain, dachshund before beach, labrador before dirt, corgi before jungle;
      3 % and 13 % of each before desert.
    * Target: bulldog before jungle, dachshund before dirt, labrador before beach, corgi before snow.
    * Images: 25,344, 12,672 and 12,672, in all 50,688. All else: ``Spawrious``.
    """

    trained_before: ClassVar[tuple[str, str, str, str]] = ("mountain", "beach", "dirt", "jungle")
    tested_before: ClassVar[tuple[str, str, str, str]] = ("jungle", "dirt", "beach", "snow")
    filler: ClassVar[str] = "desert"
