"""Models of studies: what is missing, what is shared, what is not seen, what they cost, how they are kept."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from eval.studies.variants import STAGE, VariantConfig
from launch.tpu_report import costs, hlo
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint.orbax import Meta, save
from smolrgpt_jax.checkpoint.torch import config_to_torch
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.rows import RowShape, empty_batch
from smolrgpt_jax.errors import ConfigError
from smolrgpt_jax.flops import row_parts, train_flops
from smolrgpt_jax.models.smolrgpt import abstract_params, bind, init_params
from smolrgpt_jax.training.step import gradients

SMALL = VariantConfig(
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


def test_without_changes_it_is_the_published_model(inputs):
    published = SmolRGPTConfig(SMALL.vision, SMALL.decoder)
    params = init_params(published, jax.random.key(0))
    ours = encode(SMALL, params, inputs)
    assert {name: value.shape for name, value in params.items()} == {
        name: value.shape for name, value in init_params(SMALL, jax.random.key(0)).items()
    }
    for name, value in encode(published, params, inputs).items():
        np.testing.assert_array_equal(ours[name], value)


def test_what_the_release_does_not_have_is_not_written_for_it():
    with pytest.raises(ConfigError, match="the PyTorch release has no model of VariantConfig"):
        config_to_torch(SMALL)
    with pytest.raises(ConfigError, match="depth_pathway 'both' is not one of separate"):
        SMALL.replace(depth_pathway="both")


def test_a_checkpoint_says_which_variant_it_is(tmp_path):
    config = SMALL.replace(depth_pathway="none", region_extent=True)
    save(tmp_path / "checkpoint", init_params(config, jax.random.key(0)), Meta(config))
    assert load(tmp_path / "checkpoint").config == config


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"depth_pathway": "shared_connector"},
        {"depth_pathway": "shared_refiner"},
        {"picture_tokens": False},
        {"region_extent": True, "depth_pathway": "none", "refiners": False},
    ],
    ids=str,
)
def test_analytic_training_flops_are_those_of_the_compiled_step(changes):
    config = SMALL.replace(**changes)
    shape = RowShape(64, 1, 3, config.image_tokens, config.vision.image_size, config.mask_grid)
    params = abstract_params(config)
    trained = {name: params[name] for name in STAGE.trained(params)}
    frozen = {name: value for name, value in params.items() if name not in trained}
    batch = {name: jax.ShapeDtypeStruct((2, *v.shape[1:]), v.dtype) for name, v in empty_batch(1, shape, 0).items()}
    compiled = jax.jit(lambda *given: gradients(config, *given)).lower(trained, frozen, batch).compile()
    found = costs.program_flops(hlo.parse(compiled.as_text()))
    # Rotation is done by a product, forward and back, which is none of the model's.
    d = config.decoder
    turning = 2 * (2 * 2 * 64) * d.layers * (d.heads + d.kv_heads) * d.head_dim**2
    assert found - turning == pytest.approx(2 * train_flops(row_parts(config, 64, 1, 3), trained), rel=0.01)
