"""Models that leave parts of the published one out: what is missing, what is shared, what is not seen."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from smolrgpt_jax.checkpoint.config_json import config_to_torch
from smolrgpt_jax.config import PRESETS, DecoderConfig, VisionConfig
from smolrgpt_jax.errors import ConfigError
from smolrgpt_jax.models.smolrgpt import abstract_params, bind, init_params

SMALL = PRESETS["demo"].replace(
    vision=VisionConfig(width=32, mlp_width=64, heads=4, layers=1, patch_size=16, image_size=64),
    decoder=DecoderConfig(width=64, mlp_width=128, heads=4, kv_heads=2, layers=1, vocab_size=300),
)
PARTS = {"rgb_connector", "depth_connector", "rgb_refiner", "depth_refiner"}


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(2, 1, 1, 64, 64, 3)).astype(np.float32)
    masks = rng.random((1, 1, 3, SMALL.mask_grid, SMALL.mask_grid)).astype(np.float32)
    return (*pictures, masks)


def encode(config, params, inputs):
    out = jax.jit(lambda *given: bind(config, params).encode(*given))(*inputs)
    return {name: np.asarray(value) for name, value in out.items()}


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, set()),
        ({"depth_pathway": "shared_connector"}, {"depth_connector"}),
        ({"depth_pathway": "shared_refiner"}, {"depth_refiner"}),
        ({"depth_pathway": "none"}, {"depth_connector", "depth_refiner"}),
        ({"refiners": False}, {"rgb_refiner", "depth_refiner"}),
        ({"picture_tokens": False}, set()),
        ({"region_extent": True}, set()),
    ],
)
def test_parts_that_a_variant_has(changes, missing):
    names = {name.split("/")[0] for name in abstract_params(SMALL.replace(**changes))}
    assert names & PARTS == PARTS - missing


@pytest.mark.parametrize("part", ["connector", "refiner"])
def test_a_shared_part_is_that_of_rgb(inputs, part):
    params = init_params(SMALL, jax.random.key(0))
    tied = {name: params[name.replace(f"depth_{part}", f"rgb_{part}")] for name in params}
    expected = encode(SMALL, tied, inputs)
    config = SMALL.replace(depth_pathway=f"shared_{part}")
    shared = {name: tied[name] for name in abstract_params(config)}
    np.testing.assert_array_equal(encode(config, shared, inputs)["features"], expected["features"])


def test_without_its_pathway_depth_is_not_seen(inputs):
    images, depths, masks = inputs
    config = SMALL.replace(depth_pathway="none")
    params = init_params(config, jax.random.key(0))
    out = encode(config, params, inputs)
    assert not out["region_depth"].any() and out["region_rgb"].any()
    np.testing.assert_array_equal(out["features"], encode(config, params, (images, depths + 1, masks))["features"])


def test_without_refiners_regions_are_means_of_the_connectors_cells(inputs):
    config = SMALL.replace(refiners=False)
    out = encode(config, init_params(config, jax.random.key(0)), inputs)
    grid, times = config.token_grid, config.mask_grid // config.token_grid
    shares = inputs[2][0, 0].reshape(3, grid, times, grid, times).sum((2, 4)).reshape(3, -1)
    shares = shares / shares.sum(1, keepdims=True)
    np.testing.assert_allclose(out["region_rgb"][0], shares @ out["image_tokens"][0], atol=1e-5)
    np.testing.assert_allclose(out["region_depth"][0], shares @ out["depth_tokens"][0], atol=1e-5)


def test_without_picture_tokens_only_regions_are_seen(inputs):
    params = init_params(SMALL, jax.random.key(0))
    expected = encode(SMALL, params, inputs)
    out = encode(SMALL.replace(picture_tokens=False), params, inputs)
    tokens = SMALL.image_tokens
    assert expected["features"][:, :tokens].any() and not out["features"][:, :tokens].any()
    np.testing.assert_array_equal(out["features"][:, tokens:], expected["features"][:, tokens:])


def test_what_the_release_does_not_have_is_not_written_for_it():
    for changes in ({"depth_pathway": "none"}, {"refiners": False}, {"picture_tokens": False}, {"region_extent": True}):
        (name,) = changes
        with pytest.raises(ConfigError, match=f"the PyTorch release has no model with {name}"):
            config_to_torch(SMALL.replace(**changes))
    with pytest.raises(ConfigError, match="depth_pathway 'both' is not one of separate"):
        SMALL.replace(depth_pathway="both")
