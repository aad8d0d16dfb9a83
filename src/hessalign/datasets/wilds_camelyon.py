"""Camelyon17 as WILDS has it."""

import re
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

METADATA = "metadata.csv"
CLASSES = ("normal", "tumor")
DIGITS = re.compile(r"\d+", re.ASCII)


@register("wilds_camelyon", reference_name="WILDSCamelyon")
class WILDSCamelyon(WildsImages):
    """Camelyon17 of WILDS: patches of lymph nodes from five hospitals, with or without tumour.

    * Domains, in index order: hospital_0, hospital_1, hospital_2, hospital_3, hospital_4, as in DomainBed.
    * Classes: 2 (normal, tumor).
    * Images: 455,954 of 96 × 96 pixels in all. WILDS validates on hospital 1 and tests on hospital 2; here,
      as in DomainBed, every hospital is a domain, and WILDS' own splits are not used.
    * Layout: ``camelyon17_v1.0/metadata.csv`` and ``camelyon17_v1.0/patches/``.
    * Source: Koh, Sagawa et al., "WILDS: A Benchmark of in-the-Wild Distribution Shifts", ICML 2021, from
      Bándi et al., "From Detection of Individual Metastases to Classification of Lymph Node Status at the
      Patient Level: the CAMELYON17 Challenge", IEEE TMI 2018.
    * Licence: CC0, as WILDS says; not part of this package.
    """

    folder: ClassVar[str] = "camelyon17_v1.0"
    tables: ClassVar[Mapping[str, Sequence[str]]] = {
        METADATA: ("patient", "node", "x_coord", "y_coord", "tumor", "center")
    }
    images_in: ClassVar[str] = "patches"
    domain_names: ClassVar[tuple[str, ...]] = tuple(f"hospital_{number}" for number in range(5))
    class_count: ClassVar[int | None] = len(CLASSES)
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(totals=(455_954,))
    page: ClassVar[str] = "https://wilds.stanford.edu/datasets/"
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "camelyon17_v1.0",
            "tar.gz",
            "https://worksheets.codalab.org/rest/bundles/0xe45e15f39fb54e9d9e919556af67aabe/contents/blob/",
            bytes=10_658_709_504,
        ),
    )

    @override
    @classmethod
    def list_images(cls, place: Path, tables: Sequence[polars.DataFrame]) -> Listing:
        (table,) = tables
        files: dict[str, list[tuple[str, str]]] = {name: [] for name in cls.domain_names}
        for row, values in enumerate(table.iter_rows()):
            for column, value in zip(table.columns, values, strict=True):
                if value is None or not DIGITS.fullmatch(value):
                    raise refuse_row(place / METADATA, row, column, value, "a whole number")
            patient, node, x, y, tumor, center = values
            if (domain := f"hospital_{center}") not in files:
                raise refuse_row(place / METADATA, row, "center", center, "a hospital from 0 to 4")
            if tumor not in ("0", "1"):
                raise refuse_row(place / METADATA, row, "tumor", tumor, "0 or 1")
            slide = f"patient_{patient}_node_{node}"
            path = place / cls.images_in / slide / f"patch_{slide}_x_{x}_y_{y}.png"
            files[domain].append((str(path), CLASSES[int(tumor)]))
        return Listing(CLASSES, files)
