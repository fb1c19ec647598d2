"""The varied look: where it comes from, what it may change and what not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from configs import demo
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.picture.shading import (
    MARGIN,
    TEXEL,
    TEXELS,
    floor_grain,
    grain,
    lamp_tone,
    light_map,
    look_up,
    print_marks,
    wall_tone,
)
from smolrgpt_jax.warehouse.picture.view import render
from smolrgpt_jax.warehouse.scene.clutter import FREE
from smolrgpt_jax.warehouse.scene.layout import make_scene
from smolrgpt_jax.warehouse.scene.look import WALLS, Lamp, Look, draw_look
from smolrgpt_jax.warehouse.scene.objects import Cuboid

PLAIN = WarehouseConfig(appearance_variety=0.0)


def plain_scene(seed: int = 0):
    return make_scene(np.random.default_rng(seed), PLAIN)


def test_the_demo_keeps_the_plain_look():
    config = WarehouseConfig(**demo.WAREHOUSE)
    for seed in range(5):
        assert make_scene(np.random.default_rng(seed), config).look == Look()


def test_the_plain_look_spawns_no_generator_and_the_varied_one_takes_nothing_from_the_stream():
    plain, varied = np.random.default_rng(3), np.random.default_rng(3)
    first = make_scene(plain, PLAIN)
    assert plain.bit_generator.seed_seq.n_children_spawned == 0
    second = make_scene(varied, WarehouseConfig(camera_variety=1.0))
    assert varied.bit_generator.seed_seq.n_children_spawned == 1
    # The room and the camera's place are drawn before anything depends on the view.
    assert first.room == second.room and first.camera.position[:2] == second.camera.position[:2]
    assert first.camera.yaw == second.camera.yaw and first.camera.pitch != second.camera.pitch


def test_the_look_alone_changes_neither_depth_nor_regions():
    scene = plain_scene(5)
    look = dataclasses.replace(draw_look(np.random.default_rng(1), scene.room, 1.0), line=Look().line)
    before, after = render(scene, 192, 108), render(dataclasses.replace(scene, look=look), 192, 108)
    np.testing.assert_array_equal(before.depth, after.depth)
    np.testing.assert_array_equal(before.ids, after.ids)
    assert np.abs(before.rgb.astype(int) - after.rgb).mean() > 8


@pytest.mark.parametrize("wall", WALLS)
def test_every_part_of_a_look_changes_the_picture_by_itself(wall):
    scene = plain_scene(5)
    plain = render(scene, 160, 90).rgb
    lamps = (Lamp((0.0, 8.0, 7.0), 1.0, 3.0),)
    for change in (
        {"lamps": lamps},
        {"lamps": lamps, "shadow": 0.7},
        {"slab": 1.5},
        {"grain": 0.2},
        {"line": 0.12},
        {"hazard": True},
        {"fill": 0.5},
        {"plates": True},
        {"wall": wall, "base": (1.0, 0.5)},
        {"stripe": (3.0, 0.3)},
        {"prints": 1.0},
        {"vignette": 0.4},
        {"gamma": 0.8},
    ):
        changed = render(dataclasses.replace(scene, look=dataclasses.replace(Look(), **change)), 160, 90).rgb
        assert not np.array_equal(plain, changed), change


def test_light_below_a_lamp_and_at_its_reach():
    look = Look(lamps=(Lamp((1.0, 5.0, 7.0), 0.8, 3.0),), even=0.5)
    scene = dataclasses.replace(plain_scene(), look=look)
    x, y = np.array([1.0, 4.0, 1.0, 1.0e3], np.float32), np.array([5.0, 5.0, 2.0, 5.0], np.float32)
    np.testing.assert_allclose(lamp_tone(scene, x, y), [1.3, 0.7, 0.7, 0.5], rtol=1e-4)


def test_shadow_below_a_box_and_beside_it():
    look = Look(lamps=(Lamp((0.0, 5.0, 7.0), 1.0, 1e6),), even=0.5, shadow=0.4, soft=0.5, lean=0.0)
    box = Cuboid((1.0, 6.0, 0.5), (1.0, 1.0, 1.0), 0.0, (0.5, 0.5, 0.5))
    beam = Cuboid((-3.0, 6.0, 3.0), (1.0, 1.0, 1.0), 0.0, (0.5, 0.5, 0.5))
    scene = dataclasses.replace(plain_scene(), look=look, cuboids=(box, beam))
    tone = light_map(scene, 0.05)
    x, y = np.array([1.0, 1.75, 2.5, -3.0], np.float32), np.full(4, 6.0, np.float32)
    found = look_up(tone, scene, 0.05, x, y)
    # Full below the box, half a quarter of a metre outside it, none a metre away; a beam has none.
    np.testing.assert_allclose(found, 1.5 * np.array([0.6, 0.8, 1.0, 1.0]), atol=0.03)


def test_shadows_lean_away_from_the_light():
    look = Look(lamps=(Lamp((0.0, 5.0, 7.0), 1.0, 1e6),), even=0.5, shadow=0.5, soft=0.3, lean=0.6)
    box = Cuboid((1.0, 6.0, 0.5), (1.0, 1.0, 1.0), 0.0, (0.5, 0.5, 0.5))
    scene = dataclasses.replace(plain_scene(), look=look, cuboids=(box,), light=(0.8, 0.0, 0.6))
    tone = light_map(scene, 0.05)
    y = np.array([6.0], np.float32)
    left, right = (look_up(tone, scene, 0.05, np.array([x], np.float32), y)[0] for x in (0.3, 1.7))
    assert left < right - 0.2


def test_lookups_are_exact_on_a_plane():
    scene, cell = plain_scene(), 0.25
    width, depth, _ = scene.room
    x0, y0 = -width / 2 - MARGIN, -MARGIN
    columns = x0 + cell * np.arange(math.ceil((width + 2 * MARGIN) / cell) + 1)
    rows = y0 + cell * np.arange(math.ceil((depth + 2 * MARGIN) / cell) + 1)
    plane = (2 * columns[None, :] - 3 * rows[:, None]).astype(np.float32)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-width / 2, width / 2, 500), rng.uniform(0, depth, 500)
    found = look_up(plane, scene, cell, x.astype(np.float32), y.astype(np.float32))
    np.testing.assert_allclose(found, 2 * x - 3 * y, atol=1e-3)


def test_grain_is_a_seamless_tile_without_a_mean():
    tile = grain(1)
    assert abs(tile.mean()) < 1e-3 and tile.std() == pytest.approx(1, abs=1e-3)
    # Neighbours differ less than pixels far apart, also across the tile's edge.
    inside, edge = np.abs(np.diff(tile, axis=1)).mean(), np.abs(tile[:, 0] - tile[:, -1]).mean()
    assert edge < 1.3 * inside < np.abs(tile - np.roll(tile, 100, 1)).mean()
    x = np.array([-3.21, 4.0], np.float32)
    period = np.float32(TEXELS * TEXEL)
    np.testing.assert_array_equal(floor_grain(1, x, x), floor_grain(9, x, x))
    assert floor_grain(1, x[1:], x[1:]) == floor_grain(1, x[1:] + period, x[1:])


@pytest.mark.parametrize("kind", WALLS)
def test_walls_are_darkened_at_most_a_little(kind):
    rng = np.random.default_rng(0)
    along, high = rng.uniform(-20, 20, 5000).astype(np.float32), rng.uniform(0, 9, 5000).astype(np.float32)
    tone = wall_tone(kind, along, high)
    assert tone.min() > 0.8 and tone.max() < 1.1 and (kind == "plaster") == (tone.std() == 0)


def test_prints_lie_on_as_many_cells_as_asked_for():
    rng = np.random.default_rng(0)
    which = np.repeat(np.arange(400, dtype=np.int32), 400)
    across, up = (rng.uniform(-0.3, 0.3, which.size).astype(np.float32) for _ in range(2))
    size = (np.full(which.size, 0.6, np.float32),) * 2
    shares = []
    for share in (0.0, 0.5, 1.0):
        tape, label, ink = print_marks(share, across, up, size, which)
        assert not (label & tape).any() and not (label & ink).any()
        shares.append(np.bincount(which, tape | label | ink).astype(bool).mean())
    assert shares[0] == 0 and 0.3 < shares[1] < 0.6 and 0.75 < shares[2] <= 1


def test_pictures_differ_more_than_with_the_plain_look():
    def spread(variety: float) -> float:
        means = []
        for seed in range(24):
            scene = make_scene(np.random.default_rng(seed), WarehouseConfig(appearance_variety=variety))
            means.append(render(scene, 64, 36).rgb.mean((0, 1)))
        return float(np.std(means, axis=0).mean())

    assert spread(1.0) > 1.5 * spread(0.0)


def test_pitch_differs_more_and_the_middle_of_the_view_stays_on_the_floor():
    varied, plain = (
        [make_scene(np.random.default_rng(seed), config) for seed in range(40)] for config in (WarehouseConfig(), PLAIN)
    )
    for scene in varied:
        x, y = scene.camera.floor_point(0.0, 0.0)
        assert abs(x) < scene.room[0] / 2 and 0 < y < 0.85 * scene.room[1]
        assert scene.camera.position[2] < scene.room[2] - 0.5
    assert np.std([s.camera.pitch for s in varied]) > np.std([s.camera.pitch for s in plain])


def test_more_stands_in_the_way_but_nothing_in_a_buffer():
    added, hidden = 0, []
    for seed in range(30):
        plain, varied = plain_scene(seed), make_scene(np.random.default_rng(seed))
        added += len(varied.cuboids) - len(plain.cuboids)
        for cuboid in varied.cuboids:
            if cuboid.owner == 0 and cuboid.center[2] - cuboid.size[2] / 2 < 0.1:
                for buffer in varied.of_kind("buffer"):
                    local = (complex(*cuboid.center[:2]) - complex(*buffer.position)) * np.exp(-1j * buffer.yaw)
                    inside = abs(local.real) < buffer.size[0] / 2 and abs(local.imag) < buffer.size[1] / 2
                    assert not inside
        without = dataclasses.replace(varied, cuboids=tuple(c for c in varied.cuboids if c.owner))
        areas = [np.bincount(render(s, 96, 54).ids.ravel(), minlength=30) for s in (varied, without)]
        pallets = [t.number for t in varied.of_kind("pallet") if areas[1][t.number] > 20]
        hidden += [1 - areas[0][n] / areas[1][n] for n in pallets]
    assert added > 10 * 30
    assert 0.02 < np.mean(np.array(hidden) > 0.15) < 0.3


def test_the_shares_of_clutter_add_up():
    assert sum(share for *_, share in FREE) == pytest.approx(1)
