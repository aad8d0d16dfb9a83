"""Any folder of images, laid out as ``root/domain/class/image``."""

import os
from collections.abc import Mapping
from pathlib import Path

from hessalign.datasets.image_files import IMAGE_EXTENSIONS, ImageFileDomains, Listing, is_image_name
from hessalign.datasets.registry import register


@register("image_folder", reference_name="ImageFolderDomains")
class ImageFolderDomains(ImageFileDomains):
    """Your own images: one folder for each domain, in it one for each class.

    Domains and classes are in the order of their sorted names, images in the order of their sorted paths, as
    in DomainBed, so that its splits fall the same. The classes are the union over the domains: a domain may
    lack the folder of a class, but a folder without an image is taken for a mistake. Images in folders below
    a class belong to it. Hidden files and folders and files that are no images are ignored.

    Args:
        root: Folder that holds the domain folders.

    Raises:
        ValueError: If the root is no folder or holds no domain, or a domain or a class folder holds no image;
            the message names it.
    """

    def list_files(self, root: Path) -> Listing:
        """The images below the root."""
        if not root.is_dir():
            raise ValueError(
                f"root: {root} is not a folder; allowed is a folder laid out as root/domain/class/image"
            )
        folders = {name: root / name for name in subfolders(root)}
        if not folders:
            raise ValueError(
                f"root: {root} holds no folder; allowed is a folder laid out as root/domain/class/image"
            )
        return list_domains(folders)


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def list_domains(folders: Mapping[str, Path]) -> Listing:
    """The images of each domain, from the folder of each.

    Raises:
        ValueError: If a domain or a class folder holds no image.
    """
    files = {name: _list_domain(folder) for name, folder in folders.items()}
    class_names = sorted({class_name for domain in files.values() for _, class_name in domain})
    return Listing(tuple(class_names), files)


def _list_domain(folder: Path) -> list[tuple[str, str]]:
    files = []
    for class_name in subfolders(folder):
        paths = _list_class(folder / class_name)
        if not paths:
            raise ValueError(
                f"root: the class folder {folder / class_name} holds no image; add images "
                f"({', '.join(IMAGE_EXTENSIONS)}), or remove the folder if the domain lacks the class"
            )
        files += [(path, class_name) for path in paths]
    if not files:
        raise ValueError(
            f"root: the domain folder {folder} holds no image; allowed is the layout domain/class/image"
        )
    return files


def _list_class(folder: Path) -> list[str]:
    paths = []
    # Sorted by whole paths, not level by level: the order in which torchvision's ImageFolder lists.
    for place, _, names in sorted(os.walk(folder, followlinks=True)):
        if any(part.startswith(".") for part in Path(place).relative_to(folder).parts):
            continue
        paths += [os.path.join(place, name) for name in sorted(names) if is_image_name(name)]
    return paths
