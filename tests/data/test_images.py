from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFile

from smolrgpt_jax.data import images
from smolrgpt_jax.data.records import DataError


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
    processor = siglip.SiglipImageProcessorPil(
        size={"height": size, "width": size}, resample=Image.Resampling.BILINEAR
    )
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


def test_depth_with_three_equal_channels_is_the_same(depth, tmp_path):
    Image.open(depth).convert("RGB").save(tmp_path / "three.png")
    np.testing.assert_array_equal(images.load_depth(tmp_path / "three.png", 32), images.load_depth(depth, 32))


def test_depth_of_16_bits_is_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="8-bit"):
        images.load_depth(tmp_path / "deep.png", 4)


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
