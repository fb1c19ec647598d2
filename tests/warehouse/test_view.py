"""What is seen, from an instance map drawn by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pycocotools import mask as coco

from smolrgpt_jax.warehouse.picture.view import Region, Rendering, floor_distance, visible_regions
from smolrgpt_jax.warehouse.scene.geometry import Camera
from smolrgpt_jax.warehouse.scene.layout import Scene, make_scene
from smolrgpt_jax.warehouse.scene.objects import Thing

PALLET = Thing(1, "pallet", (1.0, 5.0), 0.0, (1.2, 1.0))
BUFFER = Thing(2, "buffer", (4.0, 9.0), np.pi / 2, (6.0, 2.0))
SHELF = Thing(3, "shelf", (-3.0, 8.0), 0.0, (2.0, 0.9))


@pytest.fixture
def scene() -> Scene:
    camera = Camera((1.0, 1.0, 5.0), yaw=np.pi / 2, pitch=0.5, focal=0.7)
    return dataclasses.replace(make_scene(np.random.default_rng(0)), things=(PALLET, BUFFER, SHELF), camera=camera)


def test_masks_centroids_and_places(scene):
    ids = np.zeros((10, 20), np.int32)
    ids[2:4, 5:10] = 1
    ids[9, 19] = 2
    rendering = Rendering(np.zeros((10, 20, 3), np.uint8), np.ones((10, 20), np.float32), ids)
    pallet, buffer = visible_regions(scene, rendering, 0.001)
    np.testing.assert_array_equal(coco.decode({"size": [10, 20], "counts": pallet.counts}), ids == 1)
    # Means of pixel centres, 5.5 to 9.5 of 20 and 2.5 to 3.5 of 10.
    assert (pallet.u, pallet.v) == pytest.approx((7.5 / 20, 3.0 / 10))
    assert (buffer.u, buffer.v) == pytest.approx((19.5 / 20, 9.5 / 10))
    # The camera heads along x: what is ahead of it in y is to its left.
    assert (pallet.ahead, pallet.right) == pytest.approx((0.0, -4.0), abs=1e-9)
    assert (buffer.ahead, buffer.right) == pytest.approx((3.0, -8.0), abs=1e-9)
    assert [r.thing for r in visible_regions(scene, rendering, 0.02)] == [PALLET]
    assert [r.index for r in (pallet, buffer)] == [0, 1]


def test_floor_distance():
    # A quarter turn makes the buffer 6 m long in y.
    inside, outside = (dataclasses.replace(PALLET, position=p) for p in ((4.0, 11.9), (6.0, 9.0)))
    pallet, shelf, buffer, inside, outside = (
        Region(thing, 0, "", 0.5, 0.5, 0.0, 0.0) for thing in (PALLET, SHELF, BUFFER, inside, outside)
    )
    assert floor_distance(pallet, shelf) == pytest.approx(5.0)
    assert floor_distance(inside, buffer) == floor_distance(buffer, inside) == 0
    assert floor_distance(outside, buffer) == pytest.approx(2.0)
