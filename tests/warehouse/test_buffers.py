"""Nothing that is asked about lies half inside of a buffer."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from configs import demo
from smolrgpt_jax.warehouse.make_scene import draw_scene
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.scene.layout import make_scene
from smolrgpt_jax.warehouse.scene.objects import PALLET, Thing

BUFFER = Thing(1, "buffer", (0.0, 0.0), 0.0, (4.0, 2.0))


def share_inside(thing: Thing, buffer: Thing) -> float:
    """Share of a fine grid of points of a thing's footprint that lie in the buffer."""
    size = (max(thing.size[0], PALLET[0]), max(thing.size[1], PALLET[1])) if thing.carrying else thing.size
    steps = np.linspace(-0.5, 0.5, 41)
    x, y = (grid.ravel() for grid in np.meshgrid(steps * size[0], steps * size[1]))
    points = complex(*thing.position) + np.exp(1j * thing.yaw) * (x + 1j * y)
    local = (points - complex(*buffer.position)) * np.exp(-1j * buffer.yaw)
    inside = (np.abs(local.real) < buffer.size[0] / 2) & (np.abs(local.imag) < buffer.size[1] / 2)
    return float(inside.mean())


def test_pallets_transporters_and_shelves_are_wholly_in_or_out(samples):
    seen = set()
    for sample in samples:
        for buffer in sample.scene.of_kind("buffer"):
            for thing in sample.scene.things:
                if thing.kind != "buffer":
                    share = share_inside(thing, buffer)
                    assert share in (0.0, 1.0), thing
                    seen.add((thing.kind, share))
    assert {("pallet", 0.0), ("pallet", 1.0), ("transporter", 0.0), ("transporter", 1.0)} <= seen


def test_pallets_of_the_demo_are_wholly_in_or_out():
    config = WarehouseConfig(**{**demo.WAREHOUSE, "width": 96, "height": 54})
    for index in range(60):
        scene = draw_scene(config, "train", index)[0]
        for buffer in scene.of_kind("buffer"):
            assert all(share_inside(pallet, buffer) in (0.0, 1.0) for pallet in scene.of_kind("pallet"))


@pytest.mark.parametrize(
    ("place", "yaw", "size", "expected"),
    [
        ((0.0, 0.0), 0.0, (1.2, 1.0), False),
        ((1.5, 0.0), 0.0, (1.2, 1.0), True),
        ((2.5, 0.0), 0.0, (1.2, 1.0), True),
        ((2.7, 0.0), 0.0, (1.2, 1.0), False),
        ((0.0, 1.71), math.pi / 4, (1.0, 1.0), False),
        ((0.0, 1.70), math.pi / 4, (1.0, 1.0), True),
        # Lies across the whole buffer, with no corner of either in the other.
        ((0.0, 0.0), math.pi / 2, (6.0, 1.0), True),
        # Its own middle is far outside but it covers the buffer's corner.
        ((2.6, 1.6), math.pi / 4, (1.8, 1.8), True),
    ],
)
def test_half_inside_by_hand(place, yaw, size, expected):
    thing = Thing(2, "pallet", place, yaw, size)
    assert thing.is_half_inside(BUFFER) == expected


def test_half_inside_agrees_with_counting_points():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        buffer = dataclasses.replace(BUFFER, yaw=float(rng.uniform(0, 6.3)))
        thing = Thing(2, "pallet", tuple(rng.uniform(-3, 3, 2)), float(rng.uniform(0, 6.3)), (1.2, 1.0))
        share = share_inside(thing, buffer)
        # The grid misses slivers thinner than its step.
        if thing.is_half_inside(buffer) != (0 < share < 1):
            assert share < 0.002 or share > 0.998
        found.append(0 < share < 1)
    assert 50 < sum(found) < 350


def test_a_loaded_transporter_is_as_wide_as_its_load():
    thing = Thing(2, "transporter", (0.0, 0.56), 0.0, (1.15, 0.75))
    assert not thing.is_half_inside(BUFFER)
    assert dataclasses.replace(thing, carrying=True).is_half_inside(BUFFER)


def test_scenes_with_something_on_a_line_are_found_and_drawn_again():
    config = WarehouseConfig(width=64, height=36, seed=8)
    on_line = 0
    for index in range(50):
        first = make_scene(np.random.default_rng(np.random.SeedSequence([8, 0, index])), config)
        on_line += bool(first.half_inside(config.clear_lines))
        assert not draw_scene(config, "train", index)[0].half_inside(config.clear_lines)
    assert on_line > 0
