"""Configurations: choices that exist, and what checkpoints hold of them."""

from __future__ import annotations

import pytest

from smolrgpt_jax.config import PRESETS, Compute, SmolRGPTConfig
from smolrgpt_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"remat": "foo"}, "remat 'foo' is not one of none, dots, full"),
        ({"dtype": "float8"}, "dtype 'float8' is not one of float32, bfloat16"),
        ({"attention": "auto"}, "attention 'auto' is not one of xla, flat, cudnn"),
    ],
)
def test_ways_to_compute_that_do_not_exist_are_refused(choice, message):
    with pytest.raises(ConfigError, match=message):
        Compute(**choice)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_is_read_as_it_was_written(preset):
    assert SmolRGPTConfig.from_dict(PRESETS[preset].to_dict()) == PRESETS[preset]
    with pytest.raises(ConfigError, match="unknown or missing field"):
        SmolRGPTConfig.from_dict({"depth": 3})


@pytest.mark.parametrize("name", ["os.PathLike", "eval.studies.variants.Variant", "eval.nothing.Config"])
def test_a_class_that_is_no_configuration_of_ours_is_refused(name):
    with pytest.raises(ConfigError, match=f"is of class '{name}', which this project does not have"):
        SmolRGPTConfig.from_dict({"class": name})


def test_what_checkpoints_of_old_hold():
    written = PRESETS["demo"].to_dict() | {"compute_dtype": "bfloat16", "remat": "full", "scan_layers": False}
    published = {"depth_pathway": "separate", "refiners": True, "picture_tokens": True, "region_extent": False}
    assert SmolRGPTConfig.from_dict(written | published) == PRESETS["demo"]
    with pytest.raises(ConfigError, match="the model has refiners False, only True can still be read"):
        SmolRGPTConfig.from_dict(written | published | {"refiners": False})
