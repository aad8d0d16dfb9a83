"""Image files as RGB, whatever they hold, and on their way into a network: one reader for everybody."""

import os
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

from hessalign.files import shown

TORCHVISION_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's ImageFolder reads, and so DomainBed: the published datasets are listed by these."""
IMAGE_EXTENSIONS = (*TORCHVISION_EXTENSIONS, ".gif", ".jfif", ".jpe", ".jp2", ".pbm", ".pnm", ".apng")
"""What is read of folders, CSV files and by ``hessalign predict``, in any capitals."""

OPAQUE = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
GROUND = "white"
SIXTEEN_BITS = 2**16 - 1
ORIENTATION, BITS_PER_SAMPLE, SAMPLE_FORMAT = 274, 258, 339  # tags of EXIF and TIFF
UNSIGNED = 1
# What EXIF asks for, by its number; 1 is as stored.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_image_name(name: str, extensions: Sequence[str] = IMAGE_EXTENSIONS) -> bool:
    """Whether a file of this name counts as an image: a known ending, not hidden."""
    return name.lower().endswith(tuple(extensions)) and not name.startswith(".")


def read_image(path: str) -> Image.Image:
    """The decoded image of a file, RGB, upright.

    * Transparency is composited on white.
    * Grey values of 16 and of 32 bits (unsigned) become 8 bits by the full range of their type, floats by the
      range 0 to 1. Other floats and signed integers, whose white nobody knows, are refused; so is an image
      that would turn black by this rule though it is not.
    * CIE Lab is converted to sRGB; embedded colour profiles are not looked at.
    * The orientation that EXIF asks for is applied. Of several frames the first one is read.

    Returns:
        An image of mode RGB.

    Raises:
        OSError: If the file is missing, damaged, no image, or of a kind that has no faithful conversion; the
            message names it.
    """
    return _decoded(path, shown(path), "the file")


def decode_image(content: bytes, name: str) -> Image.Image:
    """The decoded image of a file's bytes, by the rules of ``read_image``.

    Args:
        content: What such a file would hold.
        name: What messages call the image.

    Returns:
        An image of mode RGB.

    Raises:
        OSError: If the bytes are damaged, no image, or of a kind that has no faithful conversion.
    """
    return _decoded(BytesIO(content), name, "the row")


def _decoded(source: str | BytesIO, name: str, removed: str) -> Image.Image:
    try:
        if isinstance(source, str):
            _require_no_pipe(source)
        with Image.open(source) as image:
            image.load()
            return _upright(_to_rgb(image), _orientation(image))
    except UnidentifiedImageError:
        reason = "its content is not an image"
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:  # decoders raise whatever their parser stumbled over
        reason = str(error) or type(error).__name__
    reason = " ".join(reason.split())
    raise OSError(f"{name}: the image cannot be read ({reason}); replace or remove {removed}")


class _RefusedError(Exception):
    """Why an image is not converted."""


def _require_no_pipe(path: str) -> None:
    if os.path.exists(path) and not os.path.isfile(path):
        raise _RefusedError("it is no file")  # opening a pipe would wait for ever


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "F":
        return _grey(_unit_floats(np.asarray(image)))
    if mode.startswith("I"):
        return _grey(_by_range(*_integers(image)), _transparent(image))
    if mode in TRANSPARENT or (mode in OPAQUE and "transparency" in image.info):
        # Pillow knows no way from premultiplied grey to RGBA but this one.
        whole = (image.convert("LA") if mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, GROUND), whole).convert("RGB")
    if mode in OPAQUE:
        return image.convert("RGB")
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
        assert converted is not None
        return converted
    raise _RefusedError(f"there is no faithful conversion of the mode {mode} to RGB")


def _integers(image: Image.Image) -> tuple[NDArray[np.unsignedinteger], int]:
    """Grey values and the largest that their type has."""
    values = np.asarray(image)
    if image.mode != "I" or image.format in ("PNG", "PPM"):  # which have 16 bits at most
        return values.astype(np.uint32), SIXTEEN_BITS
    tags = getattr(image, "tag_v2", {})
    bits, kind = (_first(tags.get(tag)) for tag in (BITS_PER_SAMPLE, SAMPLE_FORMAT))
    if image.format != "TIFF" or kind not in (None, UNSIGNED) or bits not in (16, 32):
        raise _RefusedError(
            "which of its signed or 32-bit grey values is white, nobody knows; save it with 8 or 16 bits"
        )
    return values.view(np.uint32), 2**bits - 1  # Pillow keeps them as signed


def _first(values: object) -> int | None:
    found = values[0] if isinstance(values, tuple) and values else values
    return found if isinstance(found, int) else None


def _by_range(values: NDArray[np.unsignedinteger], largest: int) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = np.rint(values * (255 / largest)).astype(np.uint8)
    if values.any() and not grey.any():
        raise _RefusedError(
            f"its grey values reach {int(values.max())} of {largest}, which would be black; save it with 8 "
            "bits, or over the whole range"
        )
    return grey


def _unit_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    least, most = float(values.min()), float(values.max())
    if not (least >= 0 and most <= 1):  # NaN among them
        raise _RefusedError(f"its values are floats from {least:g} to {most:g}; allowed are 0 to 1")
    return np.rint(values * 255).astype(np.uint8)


def _transparent(image: Image.Image) -> NDArray[np.bool_] | None:
    """Where an image of many bits is transparent: a PNG may name one grey value that is."""
    value = image.info.get("transparency")
    return np.asarray(image) == value if isinstance(value, int) else None


def _grey(values: NDArray[np.uint8], transparent: NDArray[np.bool_] | None = None) -> Image.Image:
    if transparent is not None:
        values = np.where(transparent, np.uint8(255), values)
    return Image.fromarray(values).convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # EXIF that cannot be read says nothing, as in other readers
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


Transform = Callable[[Image.Image], Tensor]

IMAGE_SIZE = 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CROP = (v2.RandomResizedCrop(IMAGE_SIZE, scale=(0.7, 1.0)),)
"""How training makes a square of an image: 70 to 100 % of its area at random."""
RESIZE = (v2.Resize((IMAGE_SIZE, IMAGE_SIZE)),)
"""The whole image, whatever its aspect ratio."""


def plain_transform() -> Transform:
    """Resize to 224 × 224 whatever the aspect ratio, and normalise; for validation and test.

    Returns:
        Maps an RGB image to ``(3, 224, 224)``, float32, always to the same one.
    """
    transform: Transform = v2.Compose([*RESIZE, *normalised_tensor()])
    return transform


def training_transform(geometry: Sequence[torch.nn.Module] = CROP) -> Transform:
    """A random crop of 70 to 100 % of the area, flip, jitter and greyscale, then as ``plain_transform``.

    Draws come from torch's global generator.

    Args:
        geometry: What makes an image of 224 × 224 of any, instead of the crop.

    Returns:
        Maps an RGB image to ``(3, 224, 224)``, float32, to another one at every call.
    """
    transform: Transform = v2.Compose(
        [
            *geometry,
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.3),
            v2.RandomGrayscale(),
            *normalised_tensor(),
        ]
    )
    return transform


def normalised_tensor() -> list[torch.nn.Module]:
    """From an image to a tensor that is normalised by ImageNet's mean and deviation.

    Returns:
        The steps, in order.
    """
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        v2.ToPureTensor(),
    ]
