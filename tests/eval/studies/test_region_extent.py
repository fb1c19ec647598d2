"""What a region's extent holds, and where it goes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from eval.studies.variants import MEASURES, VariantConfig, region_measures
from smolrgpt_jax.config import DecoderConfig, VisionConfig
from smolrgpt_jax.models.smolrgpt import bind, init_params

CONFIG = VariantConfig(
    vision=VisionConfig(width=32, mlp_width=64, heads=4, layers=1, patch_size=16, image_size=64),
    decoder=DecoderConfig(width=64, mlp_width=128, heads=4, kv_heads=2, layers=1, vocab_size=300),
)
GRID = CONFIG.mask_grid  # 16


def mask_of(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((GRID, GRID), np.float32)
    mask[top:bottom, left:right] = 1
    return mask


def test_measures_of_a_rectangle():
    masks = np.stack([mask_of(4, 12, 2, 6), mask_of(0, 0, 0, 0)])[None]
    depths = np.zeros((1, 64, 64, 3), np.float32)
    depths[:, 16:48, 8:24] = 0.5  # just the rectangle, at four times the grid's resolution
    depths[:, :, 40:] = 7
    measures = np.asarray(region_measures(masks, depths))
    expected = dict(zip(MEASURES, (4 / 16, 8 / 16, 4 / 16, 8 / 16, 12 / 16)))
    np.testing.assert_allclose(measures[0, 0, :5], list(expected.values()), atol=1e-6)
    assert 0.35 < measures[0, 0, 5] <= 0.5  # the resizing takes a little from beyond the border
    assert not measures[0, 1].any()
    assert np.asarray(region_measures(masks, None))[0, 0, 5] == 0


@pytest.fixture(scope="module")
def encoded():
    config = CONFIG.replace(region_extent=True)
    params = init_params(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    images, depths = rng.normal(size=(2, 1, 1, 64, 64, 3)).astype(np.float32)
    # Two masks of one centre and of other sizes, and none.
    masks = np.stack([mask_of(4, 12, 4, 12), mask_of(6, 10, 2, 14), mask_of(0, 0, 0, 0)])[None, None]

    def encode(config, params, depths=depths):
        # Step by step: two whole programs may differ in the last bit.
        out = bind(config, params).encode(images, depths, masks)
        return {name: np.asarray(value) for name, value in out.items()}

    return config, params, depths, encode


def test_extent_goes_into_the_rgb_token_alone(encoded):
    config, params, _, encode = encoded
    extended = encode(config, params)
    plain_params = {name: value for name, value in params.items() if not name.startswith("region_extent/")}
    plain = encode(CONFIG, plain_params)
    for name, value in plain.items():
        if name not in ("region_rgb", "features"):
            np.testing.assert_array_equal(extended[name], value)
    added = extended["region_rgb"] - plain["region_rgb"]
    assert np.abs(added[0, :2]).max(1).min() > 0.01 and np.abs(added[0, 0] - added[0, 1]).max() > 0.01
    assert not added[0, 2].any()
    tokens = config.image_tokens
    np.testing.assert_array_equal(extended["features"][0, tokens : tokens + 3], extended["region_rgb"][0])


def test_without_a_depth_pathway_extent_does_not_see_depth(encoded):
    config, params, depths, encode = encoded
    config = config.replace(depth_pathway="none")
    kept = {name: value for name, value in params.items() if not name.startswith("depth_")}
    first, second = encode(config, kept), encode(config, kept, depths + 1)
    np.testing.assert_array_equal(first["features"], second["features"])
