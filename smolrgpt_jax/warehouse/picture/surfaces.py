"""Light on the floor, and patterns of surfaces: floor texture, wall cladding, prints on boxes, zone numbers.

Shadows and pools of light are soft, so a grid of a few centimetres with bilinear lookup shows no
steps, and costs a picture as much for thirty shadows as for three.
"""

from __future__ import annotations

import functools

import numpy as np

from smolrgpt_jax.warehouse.scene.geometry import edge_distance
from smolrgpt_jax.warehouse.scene.layout import Scene
from smolrgpt_jax.warehouse.scene.objects import Cuboid

MARGIN = 0.5  # metres of grid beyond the walls, so that no lookup leaves it
TRACK = 0.07  # metres, half the width of a tyre's track
TEXELS = 512
TEXEL = 0.02  # metres
# Strokes of the digits 1 to 3 on a plate that reaches from -1 to 1: (x0, y0, x1, y1).
BARS = ((-0.4, 0.5, 0.4, 0.7), (-0.4, -0.1, 0.4, 0.1), (-0.4, -0.7, 0.4, -0.5))
DIGITS = {
    1: ((-0.1, -0.7, 0.1, 0.7),),
    2: (*BARS, (0.2, 0.0, 0.4, 0.6), (-0.4, -0.6, -0.2, 0.0)),
    3: (*BARS, (0.2, -0.6, 0.4, 0.6)),
}


def light_map(scene: Scene, cell: float) -> np.ndarray:
    """Tone of the floor under lamps, tyre tracks and shadows on a grid, float32[Y, X]."""
    x, y = grid(scene, cell)
    tone = lamp_tone(scene, x, y)
    for place, heading, gauge in scene.look.marks:
        offset = np.abs((x - np.float32(place)) - np.float32(np.tan(heading)) * y)
        tone[np.abs(offset - np.float32(gauge / 2)) < TRACK] *= np.float32(0.86)
    shade = np.zeros_like(tone)
    # Near the ground every object shades the floor; long beams under the ceiling do not.
    for box in scene.cuboids:
        if box.center[2] - box.size[2] / 2 < 0.3 and min(box.size[:2]) > 0.1:
            _add_shadow(shade, scene, x, y, box)
    return tone * (1 - np.float32(scene.look.shadow) * shade)


def lamp_tone(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Even light plus the pools of the lamps at places on the floor, float32 of the broadcast shape."""
    tone = np.full(np.broadcast_shapes(x.shape, y.shape), scene.look.even, np.float32)
    for lamp in scene.look.lamps:
        dx, dy = x - np.float32(lamp.position[0]), y - np.float32(lamp.position[1])
        # 1 / (1 + q)^2 is a quarter at q = 1.
        share = 1 + (dx * dx + dy * dy) * np.float32(1 / lamp.reach**2)
        tone += np.float32(lamp.strength) / (share * share)
    return tone


def look_up(tone: np.ndarray, scene: Scene, cell: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear lookup, in tones on a grid, of floor points within the room, float32[N]."""
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


def grid(scene: Scene, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Columns float32[1, X] and rows float32[Y, 1], a cell's size apart, in metres; one more than a lookup needs.

    The first cell's corner is (-room width / 2 - MARGIN, -MARGIN).
    """
    width, depth, _ = scene.room
    x = np.arange(-width / 2 - MARGIN, width / 2 + MARGIN + cell, cell, dtype=np.float32)
    return x[None, :], np.arange(-MARGIN, depth + MARGIN + cell, cell, dtype=np.float32)[:, None]


def _add_shadow(shade: np.ndarray, scene: Scene, x: np.ndarray, y: np.ndarray, box: Cuboid) -> None:
    """A soft shadow round a box's foot, leaning away from the light by the box's height, in place.

    Of two shadows the darker counts, so the boxes of one pallet do not add up to black.
    """
    lean, soft = scene.look.lean * min(box.size[2], 1.5), scene.look.soft
    center = [box.center[k] - lean * scene.light[k] for k in range(2)]
    reach = (box.size[0] + box.size[1]) / 2 + soft
    columns, rows = (
        slice(*np.searchsorted(places.ravel(), (middle - reach, middle + reach)))
        for places, middle in zip((x, y), center)
    )
    outside = edge_distance(x[:, columns], y[rows], center, box.size[:2], box.yaw)
    window = shade[rows, columns]
    np.maximum(window, 1 - np.maximum(outside, 0) / np.float32(soft), out=window)


@functools.lru_cache(maxsize=8)
def grain(seed: int) -> np.ndarray:
    """A tile of noise whose amplitude falls with frequency, float32[TEXELS, TEXELS], mean 0, deviation 1."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(TEXELS)[:, None], np.fft.rfftfreq(TEXELS)[None, :]) * TEXELS
    spectrum = np.fft.rfft2(rng.normal(size=(TEXELS, TEXELS))) / (frequency + 3)
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(TEXELS, TEXELS))
    return (noise / noise.std()).astype(np.float32)


def floor_grain(seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The noise at floor points, float32[N]; it repeats every TEXELS * TEXEL metres."""
    column, row = ((place * np.float32(1 / TEXEL)).astype(np.int32) & (TEXELS - 1) for place in (x, y))
    return grain(seed % 8).ravel()[row * TEXELS + column]


def wall_tone(kind: str, along: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tone of a wall's upper part, of a kind of look.WALLS, at metres along the floor's edge and above it, float32[N]."""
    if kind == "plaster":
        return np.ones_like(high)
    if kind == "panels":
        joint = (np.abs(np.mod(along, np.float32(2.4)) - 1.2) < 0.03) | (np.mod(high, np.float32(1.2)) < 0.04)
        return np.where(joint, np.float32(0.84), np.float32(1))
    if kind == "blocks":
        course = np.floor(high * np.float32(1 / 0.4))
        shifted = along + np.float32(0.4) * np.mod(course, 2)
        joint = (np.mod(high, np.float32(0.4)) < 0.025) | (np.mod(shifted, np.float32(0.8)) < 0.025)
        return np.where(joint, np.float32(0.86), np.float32(1))
    return 1 + np.float32(0.05) * np.sin(np.float32(9.0) * along)


def on_digit(number: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points of a plate (-1 to 1) lie on a stroke of its number, bool[N]."""
    strokes = [(x > left) & (x < right) & (y > low) & (y < high) for left, low, right, high in DIGITS[number]]
    return np.logical_or.reduce(strokes)


def print_marks(
    share: float, across: np.ndarray, up: np.ndarray, size: tuple[np.ndarray, np.ndarray], which: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is stuck and printed on a share of the cardboard faces: bool[N] each, on tape, on a paper label, on printed ink.

    Args:
      across, up: float32[N], metres from the middle of the face, or of its cell.
      size: width and height of the cell, float32[N] each.
      which: int32[N], a number of the cell, which decides what it has.
    """
    code = (which * 1103515245 + 12345) >> 8
    printed = (code & 255) < 256 * share
    tape = (np.abs(across) < 0.03) & ((code & 512) > 0)
    side = np.where(code & 1024, np.float32(1), np.float32(-1))
    x, y = across * side - size[0] / 4, up - size[1] / 5
    label = (np.abs(x) < 0.07) & (np.abs(y) < 0.05) & ((code & 2048) > 0)
    x, y = across * side + size[0] / 4, up + size[1] / 6
    rows = np.mod(y, np.float32(0.05)) < 0.025
    ink = (np.abs(x) < np.minimum(0.12, size[0] / 6)) & (np.abs(y) < np.minimum(0.09, size[1] / 5)) & rows
    ink &= np.mod(x + np.float32(0.011) * which, np.float32(0.037)) < 0.026
    return printed & tape, printed & label & ~tape, printed & ink & ((code & 4096) > 0) & ~label
