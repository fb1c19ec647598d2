"""The z-buffer against geometry worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from smolrgpt_jax.data.images import depth_to_grey
from smolrgpt_jax.warehouse.picture.view import render
from smolrgpt_jax.warehouse.scene.geometry import Camera
from smolrgpt_jax.warehouse.scene.layout import Scene, make_scene
from smolrgpt_jax.warehouse.scene.look import Colors, Look
from smolrgpt_jax.warehouse.scene.objects import Cuboid, Thing

LINE = Look().line
# Level, looking along y, a metre from the front wall; a focal length of one picture width.
CAMERA = Camera((0.0, 1.0, 2.0), yaw=0.0, pitch=0.0, focal=1.0)
EMPTY = Scene(
    things=(),
    cuboids=(),
    camera=CAMERA,
    room=(20.0, 13.0, 8.0),
    colors=Colors(floor=(0.4, 0.4, 0.4), wall=(0.8, 0.8, 0.8), stripe=(0.1, 0.2, 0.6), paint=(0.9, 0.7, 0.1)),
    light=(0.0, 0.0, 1.0),
    ambient=0.5,
    tint=(1.0, 1.0, 1.0),
    texture_seed=0,
    counted=0,
)


def with_cuboids(*cuboids: Cuboid) -> Scene:
    things = tuple(Thing(box.owner, "pallet", box.center[:2], box.yaw, box.size[:2]) for box in cuboids)
    return dataclasses.replace(EMPTY, cuboids=cuboids, things=things)


def cube(ahead: float, owner: int, size: float = 2.0, yaw: float = 0.0) -> Cuboid:
    """``ahead`` metres in front of the camera, at its height."""
    return Cuboid((0.0, 1.0 + ahead, 2.0), (size, size, size), yaw, (0.5, 0.5, 0.5), owner)


def test_depth_of_the_back_wall_and_the_floor():
    depth = render(EMPTY, 160, 160).depth
    assert depth[80, 80] == pytest.approx(12.0, rel=1e-5)
    # A ray that falls 79.5/160 m per metre meets the floor, 2 m down, after 4.03 m.
    assert depth[159, 80] == pytest.approx(2.0 / (79.5 / 160), rel=1e-5)


def test_depth_is_metric_for_a_camera_that_looks_down():
    camera = Camera((1.0, 3.0, 5.0), yaw=0.4, pitch=math.radians(50), focal=0.7)
    depth = render(dataclasses.replace(EMPTY, camera=camera), 161, 91).depth
    assert depth[45, 80] == pytest.approx(5.0 / math.sin(math.radians(50)), rel=1e-5)
    assert np.isfinite(depth).all() and depth.min() > 0


def test_a_cube_has_the_size_and_depth_of_perspective():
    rendering = render(with_cuboids(cube(5.0, 1)), 400, 400)
    # The front face is 2 m wide and 4 m away: 200 of 400 pixels, and hides all other faces.
    assert (rendering.ids == 1).sum() == 200 * 200
    np.testing.assert_allclose(rendering.depth[rendering.ids == 1], 4.0, rtol=1e-5)


def test_a_turned_cube_shows_its_edge():
    rendering = render(with_cuboids(cube(5.0, 1, yaw=math.pi / 4)), 401, 401)
    # Its nearest edge is sqrt(2) m in front of its centre.
    assert rendering.depth[200, 200] == pytest.approx(5.0 - math.sqrt(2.0), rel=1e-3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_cube_hides_the_farther_one_in_either_order(order):
    cubes = [cube(4.0, 1, size=1.0), cube(8.0, 2, size=4.0)]
    ids = render(with_cuboids(*(cubes[i] for i in order)), 200, 200).ids
    assert ids[100, 100] == 1
    # Front faces of 1 m at 3.5 m and of 4 m at 6 m, 200 pixels per unit of slope.
    near, far = (200 / 3.5) ** 2, (200 * 4 / 6) ** 2
    assert (ids == 1).sum() == pytest.approx(near, rel=0.04)
    assert (ids == 2).sum() == pytest.approx(far - near, rel=0.04)


def test_a_buffer_is_the_floor_within_its_line_minus_what_stands_in_front():
    buffer = Thing(1, "buffer", (0.0, 7.0), 0.0, size=(4.0, 2.0))
    empty = render(dataclasses.replace(EMPTY, things=(buffer,)), 400, 400)
    rows, columns = np.nonzero(empty.ids == 1)
    depth = empty.depth[rows, columns]
    assert depth.min() == pytest.approx(5.0 - LINE, abs=0.05)
    assert depth.max() == pytest.approx(7.0 + LINE, abs=0.05)
    across = (columns + 0.5 - 200) / 400 * depth
    assert np.abs(across).max() == pytest.approx(2.0 + LINE, abs=0.03)
    box = Cuboid((0.0, 7.0, 0.5), (1.0, 1.0, 1.0), 0.0, (0.5, 0.5, 0.5), 2)
    pallet = Thing(2, "pallet", (0.0, 7.0), 0.0, (1.0, 1.0))
    full = render(dataclasses.replace(EMPTY, things=(buffer, pallet), cuboids=(box,)), 400, 400)
    assert (full.ids == 2).sum() > 0
    np.testing.assert_array_equal(full.ids == 1, (empty.ids == 1) & (full.ids != 2))


def test_masks_agree_across_resolutions():
    scene = make_scene(np.random.default_rng(3))
    small, large = (render(scene, width, height).ids for width, height in ((160, 90), (800, 450)))
    # The middle one of 5x5 small pixels has the centre of the large pixel they make up.
    np.testing.assert_array_equal(small, large[2::5, 2::5])


def test_depth_is_scaled_within_the_picture_near_dark_far_bright():
    grey = depth_to_grey(np.array([[2.0, 4.0], [3.0, 2.5]]))
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, [[0, 255], [128, 64]])


def test_a_picture_is_a_function_of_the_seed():
    first, again = (render(make_scene(np.random.default_rng(11)), 96, 54) for _ in range(2))
    other = render(make_scene(np.random.default_rng(12)), 96, 54)
    for field in ("rgb", "depth", "ids"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
        assert not np.array_equal(getattr(first, field), getattr(other, field))


def test_every_pixel_of_a_random_scene_has_a_depth_within_the_room():
    for seed in range(5):
        scene = make_scene(np.random.default_rng(seed))
        depth = render(scene, 64, 36).depth
        assert np.isfinite(depth).all()
        assert 0 < depth.min() and depth.max() < math.hypot(*scene.room)
