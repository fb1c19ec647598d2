"""Counted operations against the published sizes."""

from __future__ import annotations

import pytest

from smolrgpt_jax import flops
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.flops import row_parts, train_flops


def test_forward_flops_of_the_published_model():
    parts = row_parts(PRESETS["smolrgpt"], 512, 1, 18)
    # Two per parameter and token, from the published sizes, and attention's two products per layer.
    assert parts["attention"].flops == 4 * 512 * 512 * 960 * 32
    norms = 960 * (2 * 32 + 1)
    embedding = 49155 * 960
    assert parts["blocks"].flops == 2 * 512 * (361_824_000 - embedding - norms)
    assert parts["head"].flops == 2 * 512 * 49280 * 960
    assert parts["rgb_connector"].flops == 2 * 64 * 2_949_120
    assert row_parts(PRESETS["smolrgpt"], 512, 1, 18, answers=256)["head"].flops == parts["head"].flops / 2
    assert row_parts(PRESETS["smolrgpt"], 512, 1, 18, answers=576) == parts
    kernels = 3 * 4 * 960 * 960
    assert kernels + 3 * 960 + 4 * 960 == 11_065_920
    assert parts["rgb_refiner"].flops == parts["depth_refiner"].flops == 2 * (64 + 256 + 1024) * 4 * 960 * 960
    assert not [name for name in row_parts(PRESETS["smolrgpt"], 512, 1, 0) if name.endswith("_refiner")]


def test_what_feeds_nothing_trained_has_no_backward():
    parts = row_parts(PRESETS["smolrgpt"], 512, 1, 18)
    forward = {name: part.flops for name, part in parts.items()}
    assert train_flops(parts, ()) == sum(forward.values())
    refiner = train_flops(parts, ("depth_refiner/up1/kernel",)) - sum(forward.values())
    after = forward["depth_pooling"] + forward["blocks"] + 2 * forward["attention"] + forward["head"]
    assert refiner == forward["depth_refiner"] + after


def test_the_speed_is_that_of_a_product_of_2048x2048(monkeypatch):
    monkeypatch.setattr(flops.timeit, "repeat", lambda product, number, repeat: [0.2, 0.1])
    assert flops.product_speed() == pytest.approx(171.8, abs=0.1)  # 2 * 2048^3 operations in 0.1 s
