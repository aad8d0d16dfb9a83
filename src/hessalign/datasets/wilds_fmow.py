"""Functional Map of the World as WILDS has it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import polars
from typing_extensions import override

from hessalign.datasets.archives import Source
from hessalign.datasets.base import PublishedCounts
from hessalign.datasets.image_files import Listing
from hessalign.datasets.registry import register
from hessalign.datasets.wilds import WildsImages, refuse_row

METADATA, COUNTRIES = "rgb_metadata.csv", "country_code_mapping.csv"
SEQUESTERED = "seq"
OTHER = "Other"
NAMES = """
    airport airport_hangar airport_terminal amusement_park aquaculture archaeological_site barn
    border_checkpoint burial_site car_dealership construction_site crop_field dam debris_or_rubble
    educational_institution electric_substation factory_or_powerplant fire_station flooded_road
    fountain gas_station golf_course ground_transportation_station helipad hospital
    impoverished_settlement interchange lake_or_pond lighthouse military_facility
    multi-unit_residential nuclear_powerplant office_building oil_or_gas_facility park
    parking_lot_or_garage place_of_worship police_station port prison race_track railway_bridge
    recreational_facility road_bridge runway shipyard shopping_mall single-unit_residential
    smokestack solar_farm space_facility stadium storage_tank surface_mine swimming_pool toll_booth
    tower tunnel_opening waste_disposal water_treatment_facility wind_farm zoo
"""
CLASSES = tuple(NAMES.split())


@register("wilds_fmow", reference_name="WILDSFMoW")
class WILDSFMoW(WildsImages):
    """FMoW of WILDS: what is built on a piece of land, from satellites, by the region of the world.

    * Domains, in index order: Asia, Europe, Africa, Americas, Oceania, Other: the order in which regions
      first appear in WILDS' table, which is DomainBed's (region_0 to region_5). The region is looked up by
      the image's country; Other are countries that the list does not know. It is a domain like the others
      here and in DomainBed, while WILDS leaves it out of its worst region.
    * Classes: 62.
    * Images: 470,086 in all; those that the makers keep back (split ``seq``) are not read.
    * Layout: ``rgb_metadata.csv``, ``country_code_mapping.csv`` and ``images/`` in ``fmow_v1.1``.
    * Source: Koh, Sagawa et al., "WILDS: A Benchmark of in-the-Wild Distribution Shifts", ICML 2021, from
      Christie, Fendley, Wilson and Mukherjee, "Functional Map of the World", CVPR 2018.
    * Licence: the FMoW Challenge Public License, as WILDS says; not part of this package.
    """

    folder: ClassVar[str] = "fmow_v1.1"
    tables: ClassVar[Mapping[str, Sequence[str]]] = {
        METADATA: ("split", "category", "country_code"),
        COUNTRIES: ("alpha-3", "region"),
    }
    images_in: ClassVar[str] = "images"
    domain_names: ClassVar[tuple[str, ...]] = ("Asia", "Europe", "Africa", "Americas", "Oceania", OTHER)
    class_count: ClassVar[int | None] = len(CLASSES)
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(totals=(470_086,))
    page: ClassVar[str] = "https://wilds.stanford.edu/datasets/"
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "fmow_v1.1",
            "tar.gz",
            "https://worksheets.codalab.org/rest/bundles/0xaec91eb7c9d548ebb15e1b5e60f966ab/contents/blob/",
            bytes=53_893_324_800,
        ),
    )

    @override
    @classmethod
    def list_images(cls, place: Path, tables: Sequence[polars.DataFrame]) -> Listing:
        table, countries = tables
        regions = {code: region or OTHER for code, region in countries.iter_rows()}
        files: dict[str, list[tuple[str, str]]] = {name: [] for name in cls.domain_names}
        known = {*CLASSES}
        seen: dict[str, int] = {}
        for row, (split, category, country) in enumerate(table.iter_rows()):
            region = regions.get(country, OTHER)
            if region not in files:
                raise refuse_row(
                    place / COUNTRIES,
                    countries["alpha-3"].to_list().index(country),
                    "region",
                    region,
                    f"one of {', '.join(cls.domain_names)}",
                )
            seen.setdefault(region, row)
            if category not in known:
                raise refuse_row(place / METADATA, row, "category", category, "one of FMoW's 62")
            if split is None:
                raise refuse_row(place / METADATA, row, "split", split, "there")
            if split != SEQUESTERED:
                path = place / cls.images_in / f"rgb_img_{row}.png"
                files[region].append((str(path), category))
        return Listing(CLASSES, files, doubts=_order_doubts(tuple(seen), cls.domain_names))


def _order_doubts(found: tuple[str, ...], expected: tuple[str, ...]) -> tuple[str, ...]:
    if found == expected:
        return ()
    return (
        f"regions appear in the order {', '.join(found)} in {METADATA}, by which DomainBed would number "
        f"them; here they are in the order {', '.join(expected)}",
    )
