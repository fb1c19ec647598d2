"""Light and shade on the floor, computed once on a grid of the floor and looked up by the pixels.

Shadows and pools of light are soft, so a grid of a few centimetres with bilinear lookup shows no
steps, and costs a picture as much for thirty shadows as for three.
"""

from __future__ import annotations

import numpy as np

from smolrgpt_jax.warehouse.scene.geometry import edge_distance
from smolrgpt_jax.warehouse.scene.layout import Scene
from smolrgpt_jax.warehouse.scene.objects import Cuboid

MARGIN = 0.5  # metres of grid beyond the walls, so that no lookup leaves it
TRACK = 0.07  # metres, half the width of a tyre's track


def light_map(scene: Scene, cell: float) -> np.ndarray:
    """Tone of the floor on a grid whose corner is (-room width / 2 - MARGIN, -MARGIN).

    Args:
      scene: with a look that has lamps or none.
      cell: size of a grid cell, metres.

    Returns:
      float32[Y, X], tone at the cells' lower corners.
    """
    x, y = _grid(scene, cell)
    tone = lamp_tone(scene, x[None, :], y[:, None])
    for place, heading, gauge in scene.look.marks:
        offset = np.abs((x[None, :] - np.float32(place)) - np.float32(np.tan(heading)) * y[:, None])
        tone[np.abs(offset - np.float32(gauge / 2)) < TRACK] *= np.float32(0.86)
    shade = np.zeros_like(tone)
    # Near the ground every object shades the floor; long beams under the ceiling do not.
    for box in scene.cuboids:
        if box.center[2] - box.size[2] / 2 < 0.3 and min(box.size[:2]) > 0.1:
            _add_shadow(shade, scene, x, y, box)
    tone *= 1 - np.float32(scene.look.shadow) * shade
    return tone


def lamp_map(scene: Scene, cell: float) -> np.ndarray:
    """As ``light_map``, without shadows and marks."""
    x, y = _grid(scene, cell)
    return lamp_tone(scene, x[None, :], y[:, None])


def lamp_tone(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Even light plus the pools of the lamps at places on the floor, float32 of the broadcast shape."""
    look = scene.look
    tone = np.full(np.broadcast_shapes(x.shape, y.shape), look.even, np.float32)
    for lamp in look.lamps:
        dx, dy = x - np.float32(lamp.position[0]), y - np.float32(lamp.position[1])
        # 1 / (1 + q)^2 is a quarter at q = 1.
        share = 1 + (dx * dx + dy * dy) * np.float32(1 / lamp.reach**2)
        tone += np.float32(lamp.strength) / (share * share)
    return tone


def look_up(tone: np.ndarray, scene: Scene, cell: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear lookup of floor points within the room, float32[N]."""
    across = (x + np.float32(scene.room[0] / 2 + MARGIN)) * np.float32(1 / cell)
    along = (y + np.float32(MARGIN)) * np.float32(1 / cell)
    left, low = across.astype(np.int32), along.astype(np.int32)
    across -= left
    along -= low
    row = tone.shape[1]
    place = low * row + left
    flat = tone.ravel()
    near, far = flat[place], flat[place + row]
    near += across * (flat[place + 1] - near)
    far += across * (flat[place + row + 1] - far)
    return near + along * (far - near)


def _grid(scene: Scene, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """The grid's columns and rows in metres, float32[X] and float32[Y]; one more than a lookup needs."""
    width, depth, _ = scene.room
    x = np.arange(-width / 2 - MARGIN, width / 2 + MARGIN + cell, cell, dtype=np.float32)
    return x, np.arange(-MARGIN, depth + MARGIN + cell, cell, dtype=np.float32)


def _add_shadow(shade: np.ndarray, scene: Scene, x: np.ndarray, y: np.ndarray, box: Cuboid) -> None:
    """A soft shadow round a box's foot, leaning away from the light by the box's height, in place.

    Of two shadows the darker counts, so the boxes of one pallet do not add up to black.
    """
    look = scene.look
    lean = look.lean * min(box.size[2], 1.5)
    center = box.center[0] - lean * scene.light[0], box.center[1] - lean * scene.light[1]
    reach = (box.size[0] + box.size[1]) / 2 + look.soft
    columns = slice(*np.searchsorted(x, (center[0] - reach, center[0] + reach)))
    rows = slice(*np.searchsorted(y, (center[1] - reach, center[1] + reach)))
    outside = edge_distance(x[None, columns], y[rows, None], center, box.size[:2], box.yaw)
    window = shade[rows, columns]
    np.maximum(window, 1 - np.maximum(outside, 0) / np.float32(look.soft), out=window)
