"""Terra Incognita."""

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

from hessalign.datasets.archives import Source
from hessalign.datasets.base import PublishedCounts
from hessalign.datasets.image_folder import PublishedFolder
from hessalign.datasets.registry import register
from hessalign.files import shown

SERVER = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"
CLASSES = ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")
ANNOTATION_KEYS = {"images", "annotations", "categories"}


@register("terra_incognita", reference_name="TerraIncognita")
class TerraIncognita(PublishedFolder):
    """Terra Incognita: animals in front of camera traps at four places, as DomainBed selects them.

    * Domains, in index order: location_100, location_38, location_43, location_46.
    * Classes: 10 (bird, bobcat, cat, coyote, dog, empty, opossum, rabbit, raccoon, squirrel).
    * Images: 24,788 in the papers; today's download makes 24,330. Both are accepted.
    * Source: Beery, Van Horn and Perona, "Recognition in Terra Incognita", ECCV 2018.
    * Licence: not part of this package; ask the authors' terms before you share images.
    """

    folder: ClassVar[str] = "terra_incognita"
    domain_names: ClassVar[tuple[str, ...]] = ("location_100", "location_38", "location_43", "location_46")
    class_count: ClassVar[int | None] = 10
    expected_counts: ClassVar[PublishedCounts | None] = PublishedCounts(totals=(24_788, 24_330))
    page: ClassVar[str] = "https://lila.science/datasets/caltech-camera-traps"
    sources: ClassVar[tuple[Source, ...]] = (
        Source("images", "tar.gz", f"{SERVER}/eccv_18_all_images_sm.tar.gz", bytes=6_492_615_601),
        Source("annotations", "tar.gz", f"{SERVER}/eccv_18_annotations.tar.gz", bytes=2_997_071),
    )

    @classmethod
    def arrange(cls, extracted: Path) -> Path:
        """Sort the images into location and class, as the annotations beside them say.

        Annotations are JSON files in COCO's format. An image with two classes goes into both folders, as in
        DomainBed; one that is annotated but not there is passed over, the counts will tell.

        Returns:
            The folder of the domain folders.

        Raises:
            ValueError: If there are neither sorted images nor images with annotations of the four locations.
        """
        files = {name: Path(place) / name for place, _, names in os.walk(extracted) for name in names}
        classes_by_image = _classes_by_image([path for path in files.values() if path.suffix == ".json"])
        sorted_images = extracted / "sorted"
        for (location, file_name), class_names in classes_by_image.items():
            if location not in cls.domain_names or file_name not in files:
                continue
            for class_name in class_names:
                folder = sorted_images / location / class_name
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(files[file_name], folder / file_name)
        return super().arrange(sorted_images if sorted_images.exists() else extracted)


def _classes_by_image(paths: list[Path]) -> dict[tuple[str, str], set[str]]:
    """Classes of each image, by its location's folder and its file's name.

    Returns:
        Sets of class names.

    Raises:
        ValueError: If a file is no JSON, or an entry lacks something; the message names the file.
    """
    classes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in sorted(paths):
        try:
            _read_annotations(path, classes)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"source: {shown(path.name)} in the archives holds no annotations "
                f"({type(error).__name__}: {' '.join(str(error).split())}); get the archive anew"
            ) from None
    return classes


def _read_annotations(path: Path, classes: dict[tuple[str, str], set[str]]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or not document.keys() >= ANNOTATION_KEYS:
        return
    names = {category["id"]: category["name"] for category in document["categories"]}
    images = {
        image["id"]: (f"location_{image['location']}", Path(image["file_name"]).name)
        for image in document["images"]
    }
    for annotation in document["annotations"]:
        class_name = names[annotation["category_id"]]
        if annotation["image_id"] in images and class_name in CLASSES:
            classes[images[annotation["image_id"]]].add(class_name)
