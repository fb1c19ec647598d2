"""Start checkpoints with parts drawn anew."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from configs import demo
from convert.__main__ import make_parser
from smolrgpt_jax.checkpoint.load import BETWEEN, draw, read_checkpoint, write_start
from smolrgpt_jax.checkpoint.orbax import Meta, save
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.models.smolrgpt import abstract_params, init_params
from tests.training.test_run import TINY


def test_parts_are_drawn_from_the_seed_and_nothing_else_is():
    config = TINY
    drawn, random = draw(config, ("rgb_connector", "depth_refiner"), 4), init_params(config, jax.random.key(4))
    assert {name.split("/")[0] for name in drawn} == {"rgb_connector", "depth_refiner"}
    for name, value in drawn.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, random[name], rtol=1e-6, atol=1e-7)


def test_a_start_is_its_source_but_for_the_fresh_parts(tmp_path, capsys):
    arguments = make_parser().parse_args(["fresh", demo.BACKBONE, str(tmp_path / "start"), "--seed", "3"])
    arguments.run(arguments)
    source, start = read_checkpoint(demo.BACKBONE), read_checkpoint(tmp_path / "start")
    fresh = draw(source.config, BETWEEN, 3)
    assert start.params.keys() == source.params.keys()
    for name, value in start.params.items():
        np.testing.assert_array_equal(value, fresh[name] if name in fresh else source.params[name], err_msg=name)
    assert start.layout == source.layout and start.stage is None
    assert start.answer_tokens == source.answer_tokens == demo.LONGEST_ANSWER


def test_the_source_tells_the_stage(tmp_path):
    config = PRESETS["demo"]
    params = {name: np.zeros(s.shape, s.dtype) for name, s in abstract_params(config).items()}
    save(tmp_path / "source", params, Meta(config, run={"stage": "refiner_alignment"}))
    write_start(tmp_path / "source", tmp_path / "start", ["rgb_refiner"])
    assert read_checkpoint(tmp_path / "start").stage == "refiner_alignment"


def test_a_part_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="the model has no part refiners"):
        write_start(demo.BACKBONE, tmp_path / "start", ["refiners", "rgb_connector"])
    assert not (tmp_path / "start").exists()
