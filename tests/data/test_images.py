from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, ImageOps

from smolrgpt_jax.data import images
from smolrgpt_jax.errors import DataError


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (45, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def depth(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (45, 80), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "depth.png")
    return tmp_path / "depth.png"


@pytest.mark.parametrize("size", [16, 32, 100])
def test_rgb_equals_the_siglip_processor(photo, size):
    siglip = pytest.importorskip("transformers.models.siglip.image_processing_pil_siglip")
    processor = siglip.SiglipImageProcessorPil(size={"height": size, "width": size}, resample=Image.Resampling.BILINEAR)
    expected = processor(Image.open(photo), return_tensors="np")["pixel_values"][0]
    ours = images.load_rgb(photo, size)
    assert ours.dtype == np.float32 and ours.shape == (size, size, 3)
    np.testing.assert_array_equal(ours, expected.transpose(1, 2, 0))


def test_rgb_covers_minus_one_to_one():
    table = images.scale_rgb(np.array([0, 255], np.uint8))
    assert table.tolist() == [-1.0, 1.0]


def test_depth_of_training_is_nearest_in_zero_to_one(depth):
    ours = images.load_depth(depth, 32)
    pixels = np.array(Image.open(depth).resize((32, 32), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(ours, np.repeat((pixels / 255).astype(np.float32)[..., None], 3, -1))


def test_depth_of_submission_is_bilinear_in_minus_one_to_one(depth):
    ours = images.load_depth(depth, 32, mode="submission")
    pixels = np.array(Image.open(depth).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(ours[..., 1], pixels / 127.5 - 1, atol=1e-6)
    with pytest.raises(ValueError, match="depth mode"):
        images.load_depth(depth, 32, mode="other")


def test_depth_is_resized_and_scaled_as_worked_out_by_hand():
    """Half a pixel to the side, or a hundredth more, is another value."""
    row = np.array([0, 50, 100, 150, 200], np.uint8)
    plane = row // 2 + row[:, None] // 4
    assert images.read_depth(plane, 2).tolist() == [[37, 87], [62, 112]]  # the pixels at 1.25 and 3.75 of five
    steps = np.repeat(np.array([[0, 70, 140, 210]], np.uint8), 4, axis=0)
    # A triangle two pixels to each side of 1 and of 3: 3/7 of the two pixels beside it and 1/7 of the next.
    assert images.read_depth(steps, 2, "submission").tolist() == [[50, 160]] * 2
    assert images.read_depth(steps.T, 2, "submission").tolist() == [[50] * 2, [160] * 2]
    scaled = {mode: images.load_depth(steps, 2, mode)[0].tolist() for mode in images.DEPTH_MODES}
    assert scaled["training"] == pytest.approx(np.array([[70] * 3, [210] * 3]) / 255, rel=1e-6)
    assert scaled["submission"] == pytest.approx(np.array([[50] * 3, [160] * 3]) / 127.5 - 1, rel=1e-6)


@pytest.mark.parametrize(
    ("picture", "fitting", "others"),
    [
        # Half a pixel of either side is rounding.
        ((64, 48), [(64, 48), (7, 5), (7, 6), (1, 1)], [(7, 4), (8, 5), (48, 64)]),
        # 3 percent are the odd modes of cameras.
        ((1920, 1080), [(640, 360), (640, 350), (640, 371)], [(640, 349), (640, 372), (640, 480)]),
    ],
)
def test_a_depth_is_of_its_pictures_shape_up_to_rounding_and_three_percent(picture, fitting, others):
    assert [depth for depth in [*fitting, *others] if not images.other_view(depth, picture)] == fitting


def test_depth_with_three_equal_channels_is_the_same(depth, tmp_path):
    Image.open(depth).convert("RGB").save(tmp_path / "three.png")
    np.testing.assert_array_equal(images.load_depth(tmp_path / "three.png", 32), images.load_depth(depth, 32))


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint16, "png"), (np.int32, "tiff"), (np.float32, "tiff")])
def test_one_channel_of_more_than_8_bits_is_depth_scaled_within_the_picture_and_no_picture(tmp_path, dtype, suffix):
    file = tmp_path / f"deep.{suffix}"
    Image.fromarray(np.array([[300, 800], [1300, 820]], dtype)).save(file)
    assert images.read_depth(file, 2).tolist() == [[0, 128], [255, 133]]
    with pytest.raises(DataError, match=f"{file} is of mode .*, expected 8 bits per channel"):
        images.load_rgb(file, 2)


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint8, "png"), (np.uint16, "png"), (np.float32, "tiff")])
def test_stored_depth_is_the_files_own_numbers_upright(tmp_path, dtype, suffix):
    numbers = np.random.default_rng(2).integers(0, 200, (5, 8)).astype(dtype)
    exif = Image.Exif()
    if suffix == "png":  # Pillow turns TIFFs itself
        exif[ExifTags.Base.Orientation] = 3
    Image.fromarray(numbers).save(tmp_path / f"depth.{suffix}", exif=exif)
    found = images.stored_depth(tmp_path / f"depth.{suffix}")
    np.testing.assert_array_equal(found, numbers[::-1, ::-1] if suffix == "png" else numbers)
    assert (found.dtype == np.uint8) == (dtype is np.uint8)


def test_gaps_of_a_depth_camera_take_the_depth_beside_them():
    depth = np.array([[0, 0, 0, 0], [0, 500, 0, 1000], [700, 0, 65535, 0], [0, 0, 0, 0]], np.uint16)
    expected = [[0, 0, 0, 255], [0, 0, 0, 255], [102, 102, 255, 255], [102, 102, 255, 255]]
    assert np.asarray(images.upright_depth(depth)).tolist() == expected
    floats = np.where(depth == 65535, np.inf, depth / 1000.0)
    for hole in (0.0, -0.0, -0.2, -700.0, -np.inf, np.nan):
        floats[depth == 0] = hole
        assert np.asarray(images.upright_depth(floats)).tolist() == expected, hole


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_every_orientation_is_set_upright_once(photo, tmp_path, orientation, suffix):
    file, exif = tmp_path / f"turned.{suffix}", Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.open(photo).save(file, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    upright = images.upright_rgb(file)
    np.testing.assert_array_equal(np.asarray(upright), expected)
    np.testing.assert_array_equal(np.asarray(images.upright_rgb(upright)), expected)
    assert images.picture_size(file) == images.picture_size(upright) == expected.shape[:2]


# What lies on the disk of an upright array, by EXIF's orientation.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.T,
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].T,
    8: lambda upright: np.rot90(upright, -1),
}


def with_exif_first(content):
    """The PNG file with its EXIF block before all but the header."""
    chunks, at = [], 8
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4])
        chunks.append(content[at:end])
        at = end
    assert [chunk[4:8] for chunk in chunks].index(b"tRNS") < [chunk[4:8] for chunk in chunks].index(b"eXIf")
    chunks[1:] = sorted(chunks[1:], key=lambda chunk: chunk[4:8] != b"eXIf")
    return content[:8] + b"".join(chunks)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
@pytest.mark.parametrize("exif_first", [False, True])
def test_a_mask_with_a_transparent_colour_is_set_upright_with_it(tmp_path, mode, orientation, exif_first):
    """White outside, which is transparent, and grey inside: only the opacity tells them apart."""
    region = np.zeros((5, 9), np.uint8)
    region[1:3, 2:8], region[3, 2] = 1, 1
    picture = Image.fromarray(np.ascontiguousarray(np.where(STORED[orientation](region), 200, 255).astype(np.uint8)))
    transparent = {"P": 255, "L": 255, "RGB": (255, 255, 255)}[mode]
    picture = picture.convert(mode)
    exif, file = Image.Exif(), tmp_path / "mask.png"
    exif[ExifTags.Base.Orientation] = orientation
    picture.save(file, exif=exif, transparency=transparent)
    if exif_first:
        file.write_bytes(with_exif_first(file.read_bytes()))
    np.testing.assert_array_equal(images.read_mask(file), region)
    assert images.picture_size(file) == region.shape


def test_an_exif_block_that_nobody_can_read_turns_nothing(photo, tmp_path):
    Image.open(photo).save(tmp_path / "odd.jpg", exif=b"Exif\0\0no exif at all")
    assert images.picture_size(tmp_path / "odd.jpg") == (45, 80)
    assert images.upright_rgb(tmp_path / "odd.jpg").size == (80, 45)


@pytest.mark.parametrize("reader", [images.read_rgb, images.read_depth])
def test_colours_of_16_bits_keep_their_upper_8(tmp_path, reader):
    grey = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4096 + 77
    (tmp_path / "deep.png").write_bytes(png_16_bit(np.repeat(grey[..., None], 3, axis=-1)))
    pixels = reader(tmp_path / "deep.png", 4)
    np.testing.assert_array_equal(pixels if pixels.ndim == 2 else pixels[..., 1], grey >> 8)


def png_16_bit(pixels):
    """Bytes of a PNG file, which Pillow does not write; pixels uint16[H, W, 3]."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def test_coloured_depth_is_refused(depth, tmp_path):
    grey = Image.open(depth)
    Image.merge("RGB", [grey, grey, Image.new("L", grey.size)]).save(tmp_path / "mixed.png")
    with pytest.raises(DataError, match="mixed.png is coloured, expected grey"):
        images.load_depth(tmp_path / "mixed.png", 32)
    colour_map = grey.copy()
    colour_map.putpalette([value for i in range(256) for value in (i, 255 - i, 0)])
    colour_map.save(tmp_path / "map.png")
    with pytest.raises(DataError, match="map.png is coloured, expected grey"):
        images.load_depth(tmp_path / "map.png", 32)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_grey_depth_of_any_8_bit_mode_is_the_same(depth, tmp_path, mode):
    Image.open(depth).convert(mode).save(tmp_path / "other.png")
    np.testing.assert_array_equal(images.read_depth(tmp_path / "other.png", 32), images.read_depth(depth, 32))


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "text"])
def test_damaged_pictures_are_one_sentence(photo, damage, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = bytearray(photo.read_bytes())
    if damage == "cut":
        photo.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[len(content) // 2] ^= 0xFF
        photo.write_bytes(content)
    elif damage == "missing":
        photo.unlink()
    else:
        photo.write_text("not a picture")
    with pytest.raises(DataError, match="photo.png") as caught:
        images.load_rgb(photo, 16)
    assert "\n" not in str(caught.value)


def test_picture_size_is_height_and_width(photo):
    assert images.picture_size(photo) == (45, 80)


def test_an_opened_picture_reads_as_its_file(photo, depth):
    with Image.open(photo) as picture, Image.open(depth) as grey:
        np.testing.assert_array_equal(images.read_rgb(picture, 16), images.read_rgb(photo, 16))
        np.testing.assert_array_equal(images.read_depth(grey, 16), images.read_depth(depth, 16))
        assert images.picture_size(picture) == (45, 80)
        assert np.asarray(picture).shape == (45, 80, 3)  # still open


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(photo, monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS", 45 * 80)
    assert images.read_rgb(photo, 16).shape == (16, 16, 3)
    monkeypatch.setattr(images, "MOST_PIXELS", 45 * 80 - 1)
    for read in (images.picture_size, lambda path: images.read_rgb(path, 16), images.open_picture):
        with pytest.raises(DataError, match="photo.png has more than 3,599 pixels"):
            read(photo)


def test_a_message_about_pixels_in_memory_has_the_given_name(photo):
    cut = io.BytesIO(photo.read_bytes()[:2000])
    with pytest.raises(DataError, match="picture upload.png is truncated"):
        images.read_rgb(images.open_picture(cut, "upload.png"), 16)
