"""One reader for every image: what a viewer shows, or a refusal by name."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from hessalign.datasets.image_folder import ImageFolderDomains
from hessalign.datasets.image_reading import (
    IMAGE_EXTENSIONS,
    TORCHVISION_EXTENSIONS,
    is_image_name,
    plain_transform,
    read_image,
    training_transform,
)
from tests.datasets.images import write_image

RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (3, 1))
GREY = np.rint(RAMP / 257).astype(np.uint8)


def grey_png(path: Path, values: np.ndarray, bits: int, colour: int = 0, extra: bytes = b"") -> Path:
    """A PNG written here, for Pillow does not write every kind."""
    height = len(values)
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], height, bits, colour, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def pixels(path: Path) -> np.ndarray:
    image = read_image(str(path))
    assert image.mode == "RGB"
    return np.asarray(image)


def grey_of(path: Path) -> np.ndarray:
    found = pixels(path)
    assert (found[..., :1] == found).all()
    return found[..., 0]


def save_tiff(path: Path, values: np.ndarray, bits: int, kind: int) -> Path:
    """An uncompressed grey TIFF of any sample format, little-endian."""
    tags = {256: values.shape[1], 257: len(values), 258: bits, 259: 1, 262: 1, 273: 8, 277: 1}
    tags |= {278: len(values), 279: values.nbytes, 339: kind}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    content = values.tobytes()
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(content)) + content + directory)
    return path


def test_sixteen_bits_keep_their_order(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    Image.fromarray(RAMP).save(tmp_path / "a.tif")
    (tmp_path / "a.pgm").write_bytes(b"P5 64 3 65535\n" + RAMP.astype(">u2").tobytes())
    big_endian = io.BytesIO()
    Image.frombytes("I;16B", (64, 3), RAMP.astype(">u2").tobytes()).save(big_endian, "TIFF")
    (tmp_path / "b.tif").write_bytes(big_endian.getvalue())
    for name in ("a.png", "a.tif", "a.pgm", "b.tif"):
        np.testing.assert_array_equal(grey_of(tmp_path / name), GREY, err_msg=name)


def test_thirty_two_bits_and_floats_are_read_by_their_range(tmp_path: Path) -> None:
    wide = (RAMP.astype(np.uint64) * 65537).astype(np.uint32)
    np.testing.assert_array_equal(grey_of(save_tiff(tmp_path / "a.tif", wide, 32, 1)), GREY)
    unit = (RAMP / 65535).astype(np.float32)
    Image.fromarray(unit).save(tmp_path / "b.tif")
    np.testing.assert_array_equal(grey_of(tmp_path / "b.tif"), np.rint(unit * 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("values", "bits", "kind", "reason"),
    [
        (RAMP.astype(np.int32), 32, 2, "signed or 32-bit grey values"),
        (RAMP.astype(np.int16), 16, 2, "signed or 32-bit grey values"),
        (RAMP.astype(np.uint32), 32, 1, "reach 65535 of 4294967295, which would be black"),
        ((RAMP // 600).astype(np.uint16), 16, 1, "reach 109 of 65535, which would be black"),
        ((RAMP / 257).astype(np.float32), 32, 3, "floats from 0 to 255; allowed are 0 to 1"),
        (np.full((2, 2), -0.1, np.float32), 32, 3, "floats from -0.1 to -0.1"),
        (np.full((2, 2), np.nan, np.float32), 32, 3, "floats from nan to nan"),
    ],
)
def test_values_without_a_white_are_refused(
    tmp_path: Path, values: np.ndarray, bits: int, kind: int, reason: str
) -> None:
    path = save_tiff(tmp_path / "image.tif", values, bits, kind)
    with pytest.raises(OSError, match=rf"image.tif: the image cannot be read \(.*{reason}.*\); replace"):
        read_image(str(path))


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    alpha = np.array([[0, 64, 128, 255]], dtype=np.uint8)
    expected = 255 - alpha  # black, seen on white
    black = np.zeros((1, 4, 3), np.uint8)
    rgba = Image.fromarray(np.dstack([black, alpha]))
    rgba.save(tmp_path / "rgba.png")
    rgba.save(tmp_path / "rgba.webp", lossless=True, exact=True)
    Image.fromarray(np.dstack([black[..., 0], alpha])).convert("LA").save(tmp_path / "la.png")
    for name in ("rgba.png", "rgba.webp", "la.png"):
        np.testing.assert_allclose(grey_of(tmp_path / name), expected, atol=1, err_msg=name)
    sixteen = np.array([[7, 65535, 0]], np.uint16)  # 7 is named as transparent
    key = struct.pack(">I", 2) + b"tRNS" + b"\0\7" + struct.pack(">I", zlib.crc32(b"tRNS\0\7"))
    for bits, values in ((16, sixteen), (8, np.array([[7, 255, 0]]))):
        path = grey_png(tmp_path / f"{bits}.png", values, bits, extra=key)
        np.testing.assert_array_equal(grey_of(path), [[255, 255, 0]])


def test_palettes_and_their_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "one.gif", transparency=1)
    image.save(tmp_path / "graded.png", transparency=bytes([255, 0, 127]))
    red, green, blue, white = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]
    np.testing.assert_array_equal(pixels(tmp_path / "plain.png"), [[red, green, blue]])
    np.testing.assert_array_equal(pixels(tmp_path / "one.gif"), [[red, white, blue]])
    np.testing.assert_allclose(pixels(tmp_path / "graded.png"), [[red, white, [128, 128, 255]]], atol=1)


def test_other_colour_spaces_are_converted(tmp_path: Path) -> None:
    colours = np.array([[[200, 30, 30], [30, 200, 30], [250, 250, 250], [0, 0, 0]]], np.uint8)
    rgb = Image.fromarray(np.kron(colours, np.ones((16, 16, 1), np.uint8)))
    rgb.convert("CMYK").save(tmp_path / "cmyk.tif")
    rgb.convert("YCbCr").save(tmp_path / "ycbcr.jpg", quality=100, subsampling=0)
    for name in ("cmyk.tif", "ycbcr.jpg"):
        np.testing.assert_allclose(pixels(tmp_path / name)[8, 8::16], colours[0], atol=3, err_msg=name)
    bits = Image.fromarray(np.array([[0, 255, 255, 0]], np.uint8)).convert("1")
    bits.save(tmp_path / "bits.png")
    np.testing.assert_array_equal(grey_of(tmp_path / "bits.png"), [[0, 255, 255, 0]])
    # L* of 0, 50 and 100 without colour; the grey of L* = 50 in sRGB is 119.
    lab = Image.frombytes("LAB", (3, 1), bytes([0, 0, 0, 128, 0, 0, 255, 0, 0]))
    lab.save(tmp_path / "lab.tif")
    np.testing.assert_allclose(pixels(tmp_path / "lab.tif")[0, :, 1], [0, 119, 255], atol=2)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(tmp_path: Path, ending: str, orientation: int) -> None:
    """EXIF's number tells where row 0 and column 0 of what is stored belong in what is seen."""
    seen = np.zeros((20, 32), np.uint8)
    seen[:, :16], seen[:10, 16:], seen[10:, 16:] = 0, 120, 240
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.T,
        6: np.rot90(seen),
        7: seen[::-1, ::-1].T,
        8: np.rot90(seen, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"image.{ending}"
    options = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").save(path, exif=exif, **options)
    found = grey_of(path) if ending != "jpg" else pixels(path)[..., 0]
    assert found.shape == seen.shape
    np.testing.assert_allclose(found, seen, atol=12 if ending == "jpg" else 0)


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("image.gif", "image.png", "image.webp", "image.tif"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert read_image(str(tmp_path / name)).getpixel((0, 0)) == (255, 0, 0), name


def test_broken_exif_is_no_reason_to_refuse_an_image(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (4, 4), "red").save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read_image(str(path)).getpixel((0, 0)) == (255, 0, 0)


def test_kinds_that_pillow_cannot_convert_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hessalign.datasets.image_reading.OPAQUE", ())
    path = write_image(tmp_path / "image.png")
    with pytest.raises(OSError, match="there is no faithful conversion of the mode RGB to RGB"):
        read_image(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.png")
    with pytest.raises(OSError, match=r"image.png: the image cannot be read \(it is no file\)"):
        read_image(str(tmp_path / "image.png"))


def test_training_sees_what_the_reader_reads(tmp_path: Path) -> None:
    (tmp_path / "a" / "x").mkdir(parents=True)
    Image.fromarray(RAMP).resize((224, 224)).save(tmp_path / "a" / "x" / "0.png")
    image, _ = ImageFolderDomains(tmp_path).domains[0].plain[0]
    seen = image[0] * 0.229 + 0.485
    assert seen[0].diff().ge(0).all()
    torch.testing.assert_close(seen[:, [0, -1]].mean(0), torch.tensor([0.0, 1.0]), atol=0.01, rtol=0)


def test_names_of_images_are_those_of_torchvision_and_more() -> None:
    assert TORCHVISION_EXTENSIONS == IMG_EXTENSIONS
    assert set(IMG_EXTENSIONS) < set(IMAGE_EXTENSIONS)
    registered = Image.registered_extensions()
    assert all(ending in registered for ending in IMAGE_EXTENSIONS)
    assert is_image_name("A.GIF")
    assert is_image_name("a.jfif")
    assert not is_image_name(".a.png")
    assert not is_image_name("a.gif", TORCHVISION_EXTENSIONS)


def test_a_name_that_is_not_utf8_is_told_as_text(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9.png")
    Path(path).write_bytes(b"no image")
    with pytest.raises(OSError, match="caf") as caught:
        read_image(path)
    assert r"caf\xe9.png" in str(caught.value)
    str(caught.value).encode("utf-8")
    write_image(Path(path))
    assert read_image(path).size == (20, 14)


MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (180, 300, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_plain_resizes_and_normalises(photo: Image.Image) -> None:
    result = plain_transform()(photo)
    resized = np.array(photo.resize((224, 224), Image.Resampling.BILINEAR))
    expected = (torch.tensor(resized).permute(2, 0, 1).float() / 255 - MEAN) / STD
    assert type(result) is torch.Tensor
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)


def test_plain_draws_nothing(photo: Image.Image) -> None:
    transform = plain_transform()
    assert torch.equal(transform(photo), transform(photo))


def test_training_is_drawn_anew_from_torchs_generator(photo: Image.Image) -> None:
    transform = training_transform()
    torch.manual_seed(0)
    first, second = transform(photo), transform(photo)
    torch.manual_seed(0)
    again = transform(photo)
    assert type(first) is torch.Tensor
    assert first.shape == (3, 224, 224)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_training_crops_and_flips() -> None:
    """The image tells where a pixel came from: red grows with the column, green with the row.

    A jitter of brightness, contrast and saturation keeps the order of values along a row; a turned hue may
    not, so many draws are looked at together.
    """
    columns, rows = np.meshgrid(np.linspace(0, 255, 224), np.linspace(0, 255, 224))
    picture = Image.fromarray(np.stack([columns, rows, np.full_like(rows, 128)], 2).astype(np.uint8))
    transform = training_transform()
    torch.manual_seed(0)
    images = torch.stack([transform(picture) for _ in range(200)]) * STD + MEAN
    grey = ((images[:, 0] - images[:, 1]).abs().amax((1, 2)) < 0.01).double().mean()
    assert abs(float(grey) - 0.1) < 5 * (0.1 * 0.9 / 200) ** 0.5
    left, right = images[:, :, :, 0].mean(2), images[:, :, :, -1].mean(2)
    flipped = (left[:, 0] > right[:, 0]).double().mean()
    assert abs(float(flipped) - 0.5) < 5 * (0.25 / 200) ** 0.5
    assert images.min() >= -1e-6
    assert images.max() <= 1 + 1e-6


def test_crops_keep_most_of_the_area() -> None:
    """The squares of a chessboard that remain in sight tell the area of the crop, 70 to 100 %.

    No jitter turns black and white about.
    """
    squares = 56
    board = np.kron(np.indices((squares, squares)).sum(0) % 2, np.ones((4, 4))) * 255
    picture = Image.fromarray(board.astype(np.uint8)).convert("RGB")
    transform = training_transform()
    torch.manual_seed(0)
    areas = []
    for _ in range(100):
        image = (transform(picture) * STD + MEAN)[0]
        white = image > (image.min() + image.max()) / 2
        across, down = ((white.diff(dim=dim).sum(dim).max().item() + 1) / squares for dim in (1, 0))
        areas.append(across * down)
    assert 0.66 < min(areas) < 0.75
    assert 0.9 < max(areas) < 1.04
    # Uniform would be 0.85; a large crop whose shape does not fit is drawn again.
    assert 0.77 < np.mean(areas) < 0.88
