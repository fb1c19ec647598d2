from __future__ import annotations

import numpy as np
import pytest

from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.scene.layout import make_scene


def cameras(variety: float, number: int = 40):
    config = WarehouseConfig(camera_variety=variety)
    return [make_scene(np.random.default_rng(seed), config).camera for seed in range(number)]


def spread(values) -> float:
    return max(values) - min(values)


def test_cameras_differ_as_much_as_asked():
    whole, some, none = (cameras(variety) for variety in (1.0, 0.15, 0.0))
    for value in (lambda c: c.position[2], lambda c: c.focal):
        ranges = [spread([value(camera) for camera in found]) for found in (whole, some, none)]
        assert ranges[1] == pytest.approx(0.15 * ranges[0], rel=0.01) and ranges[2] == 0
        middle = np.mean([value(camera) for camera in none])
        assert all(abs(value(camera) - middle) <= 0.0751 * ranges[0] / 0.9 for camera in some)
    # Where they stand and head is as varied as ever.
    for value in (lambda c: c.position[0], lambda c: c.yaw):
        assert spread([value(camera) for camera in none]) > 0.7 * spread([value(camera) for camera in whole])
