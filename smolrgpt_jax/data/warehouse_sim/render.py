"""A z-buffer renderer for cuboids in a closed room: RGB, metric depth and instance ids.

Room surfaces are met analytically, ray by ray; cuboid faces are filled within their bounding boxes. A face's depth is the exact
intersection with its plane, so depths are metric and masks follow the geometry at any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smolrgpt_jax.data.warehouse_sim.scene import Scene

NEAR = 0.2  # metres; faces nearer than this to the camera are left out
LINE = 0.09  # metres, half the width of a painted line
_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
# Corner indices of each face in order round it, and the outward normal.
_FACES = (
    ((0, 1, 3, 2), (-1, 0, 0)),
    ((4, 5, 7, 6), (1, 0, 0)),
    ((0, 1, 5, 4), (0, -1, 0)),
    ((2, 3, 7, 6), (0, 1, 0)),
    ((0, 2, 6, 4), (0, 0, -1)),
    ((1, 3, 7, 5), (0, 0, 1)),
)


@dataclass(frozen=True)
class Rendering:
    """rgb: uint8[H, W, 3]; depth: float32[H, W], metres along the optical axis; ids: int32[H, W], number of the thing seen, 0 none."""

    rgb: np.ndarray
    depth: np.ndarray
    ids: np.ndarray


def render(scene: Scene, width: int, height: int) -> Rendering:
    """Renders a scene at any resolution (pixels)."""
    axes, eye = scene.camera.axes(), np.array(scene.camera.position)
    focal = scene.camera.focal * width
    columns = (np.arange(width) + 0.5 - width / 2) / focal
    rows = (np.arange(height) + 0.5 - height / 2) / focal
    color, depth, ids = _room(scene, axes, eye, columns, rows)
    faces = _faces(scene, axes, eye)
    for corners, normal, shade, owner in faces:
        _fill(corners, normal, shade, owner, focal, width, height, columns, rows, color, depth, ids)
    # Light falls off a little with distance, as in the published pictures.
    color *= (1.08 - 0.012 * depth)[..., None]
    return Rendering((np.clip(color, 0, 1) * 255 + 0.5).astype(np.uint8), depth.astype(np.float32), ids)


def depth_to_grey(depth: np.ndarray) -> np.ndarray:
    """Depth as the data set stores it: float[H, W] metres -> uint8[H, W], scaled within the picture, near dark, far bright."""
    low, high = float(depth.min()), float(depth.max())
    return np.round((depth - low) * (255.0 / max(high - low, 1e-9))).astype(np.uint8)


def _room(scene: Scene, axes: np.ndarray, eye: np.ndarray, columns: np.ndarray, rows: np.ndarray):
    """Floor, walls and ceiling as seen from inside, with the painted buffers."""
    rays = (columns[None, :, None] * axes[0] + rows[:, None, None] * axes[1] + axes[2]).astype(np.float32)
    w, d, h = scene.room
    low, high = np.array([-w / 2, 0, 0]), np.array([w / 2, d, h])
    with np.errstate(divide="ignore"):
        t = np.where(rays > 0, (high - eye), (low - eye)).astype(np.float32) / rays
    t = np.where(np.isfinite(t), t, np.inf)
    axis = np.argmin(t, axis=-1)
    depth = np.take_along_axis(t, axis[..., None], -1)[..., 0]
    hit = eye.astype(np.float32) + rays * depth[..., None]
    color = np.empty(hit.shape, np.float32)
    light = np.array(scene.light)
    wall = np.array(scene.wall_color)
    color[:] = wall * (scene.ambient + 0.25)
    color[axis == 1] = wall * (scene.ambient + 0.4)
    stripe = (axis != 2) & (np.abs(hit[..., 2] - 1.6) < 0.25)
    color[stripe] = np.array(scene.stripe_color)
    floor = (axis == 2) & (rays[..., 2] < 0)
    x, y = hit[..., 0][floor], hit[..., 1][floor]
    base = np.array(scene.floor_color) * (scene.ambient + 0.5 * light[2])
    paint, numbers = _paint(scene, x, y)
    tone = 1.0 + _texture(scene.texture_seed, x, y)
    joints = (np.abs(x % 3.0 - 1.5) > 1.47) | (np.abs(y % 3.0 - 1.5) > 1.47)
    tone = np.where(joints, tone * 0.86, tone)
    floor_color = base * tone[:, None]
    floor_color[paint] = np.array(scene.paint_color) * tone[paint, None]
    color[floor] = floor_color
    ids = np.zeros(depth.shape, np.int32)
    ids[floor] = numbers
    return color, depth, ids


def _texture(seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Low-frequency stains: a few plane waves, amplitude about 6 %."""
    rng = np.random.default_rng(seed)
    total = np.zeros_like(x)
    for frequency in (0.4, 0.9, 1.7, 3.1):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        total += np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return (0.025 * total).astype(np.float32)


def _paint(scene: Scene, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which floor points lie on a buffer's line, and the number of the buffer they lie in."""
    paint = np.zeros(x.shape, bool)
    numbers = np.zeros(x.shape, np.int32)
    for buffer in scene.of_kind("buffer"):
        c, s = np.cos(-buffer.yaw), np.sin(-buffer.yaw)
        dx, dy = x - buffer.position[0], y - buffer.position[1]
        across, along = np.abs(c * dx - s * dy) - buffer.size[0] / 2, np.abs(s * dx + c * dy) - buffer.size[1] / 2
        edge = np.maximum(across, along)
        paint |= np.abs(edge) < LINE
        numbers[edge < LINE] = buffer.number
    return paint, numbers


def _faces(scene: Scene, axes: np.ndarray, eye: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """The faces turned to the camera: corners and normal in the camera frame, shaded colour, owner."""
    light = np.array(scene.light)
    result = []
    for cuboid in scene.cuboids:
        c, s = np.cos(cuboid.yaw), np.sin(cuboid.yaw)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        corners = (_CORNERS * cuboid.size) @ turn.T + np.array(cuboid.center)
        in_camera = (corners - eye) @ axes.T
        if in_camera[:, 2].min() < NEAR:
            continue
        for indices, normal in _FACES:
            world = turn @ np.array(normal, float)
            if np.dot(world, corners[indices[0]] - eye) >= 0:
                continue
            shade = np.array(cuboid.color) * (scene.ambient + 0.55 * max(float(np.dot(world, light)), 0.0) + 0.08 * world[0])
            result.append((in_camera[list(indices)], axes @ world, shade, cuboid.owner))
    return result


def _fill(corners, normal, shade, owner, focal, width, height, columns, rows, color, depth, ids) -> None:
    """Draws one convex face where it is nearer than what is there."""
    u = corners[:, 0] / corners[:, 2]
    v = corners[:, 1] / corners[:, 2]
    left, right = int(np.floor(u.min() * focal + width / 2)), int(np.ceil(u.max() * focal + width / 2))
    top, bottom = int(np.floor(v.min() * focal + height / 2)), int(np.ceil(v.max() * focal + height / 2))
    left, right, top, bottom = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
    if left >= right or top >= bottom:
        return
    x, y = columns[None, left:right], rows[top:bottom, None]
    inside = None
    sign = 0.0
    for i in range(4):
        j = (i + 1) % 4
        ex, ey = u[j] - u[i], v[j] - v[i]
        if sign == 0.0:
            # All edges turn the same way; the opposite corner tells which.
            k = (i + 2) % 4
            sign = 1.0 if ex * (v[k] - v[i]) - ey * (u[k] - u[i]) >= 0 else -1.0
        side = sign * (ex * (y - v[i]) - ey * (x - u[i])) >= 0
        inside = side if inside is None else inside & side
    facing = normal[0] * x + normal[1] * y + normal[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.dot(normal, corners[0]) / facing
    window = depth[top:bottom, left:right]
    nearer = inside & (z < window) & (z > 0)
    if nearer.any():
        window[nearer] = z[nearer]
        color[top:bottom, left:right][nearer] = shade
        ids[top:bottom, left:right][nearer] = owner
