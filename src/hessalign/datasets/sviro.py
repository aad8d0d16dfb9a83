"""SVIRO."""

from typing import ClassVar

from hessalign.datasets.archives import Source
from hessalign.datasets.image_folder import PublishedFolder
from hessalign.datasets.registry import register


@register("sviro", reference_name="SVIRO")
class SVIRO(PublishedFolder):
    """SVIRO: what lies or sits on the rear seats of ten cars, rendered; the grey images that DomainBed uses.

    * Domains, in index order: aclass, escape, hilux, i3, lexus, tesla, tiguan, tucson, x5, zoe.
    * Classes: 7, of seats: empty, with an infant in a seat, a child in a seat, an adult, a thing, or an empty
      seat of an infant or a child. The names are those of the folders.
    * Images: the authors tell of 25,000 scenes, of which each seat is an image; how many images each domain
      of DomainBed's copy has is published nowhere that we know of.
    * Source: Dias Da Cruz, Wasenmüller, Beise, Stifter and Stricker, "SVIRO: Synthetic Vehicle Interior Rear
      Seat Occupancy Dataset and Benchmark", WACV 2020.
    * Licence: not part of this package; see the authors' page before you use or share images.
    """

    folder: ClassVar[str] = "sviro"
    domain_names: ClassVar[tuple[str, ...]] = (
        "aclass",
        "escape",
        "hilux",
        "i3",
        "lexus",
        "tesla",
        "tiguan",
        "tucson",
        "x5",
        "zoe",
    )
    class_count: ClassVar[int | None] = 7
    page: ClassVar[str] = "https://sviro.kl.dfki.de"
    sources: ClassVar[tuple[Source, ...]] = (
        Source("sviro_grayscale_rectangle_classification", "zip", "https://sviro.kl.dfki.de/?wpdmdl=1731"),
    )
