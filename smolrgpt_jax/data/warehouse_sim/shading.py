"""Colours of a picture, from the face that each pixel shows and the point of it that is hit."""

from __future__ import annotations

import numpy as np

from smolrgpt_jax.data.warehouse_sim.faces import CEILING, FLOOR, ROOM_FACES, Faces
from smolrgpt_jax.data.warehouse_sim.scene import Scene

LINE = 0.05  # metres, half the width of a painted line


def shade(
    scene: Scene,
    faces: Faces,
    shown: np.ndarray,
    depth: np.ndarray,
    columns: np.ndarray,
    rows: np.ndarray,
    focal: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Colours uint8[H, W, 3] and ids int32[H, W] from the faces and points that are seen."""
    axes = scene.camera.axes.astype(np.float32)
    flat_depth, flat = depth.ravel(), shown.ravel()
    across = (depth * columns).ravel()
    down = (depth * rows[:, None]).ravel()
    # Three coordinates kept apart: contiguous arrays are several times faster than [N, 3].
    hit = [
        across * axes[0, k]
        + down * axes[1, k]
        + flat_depth * axes[2, k]
        + np.float32(scene.camera.position[k])
        for k in range(3)
    ]
    tone = 1 + _stains(scene.texture_seed, hit)
    # Light falls off with distance, as under the lamps of the published pictures.
    tone *= np.float32(1.06) - np.float32(0.012) * flat_depth
    ids = np.zeros(flat.shape, np.int32)
    base = _face_colors(scene, faces)
    color = base[flat]

    floor = np.flatnonzero(flat == FLOOR)
    tone[floor] *= _floor_tone(scene, hit[0][floor], hit[1][floor])
    ids[floor], paint = _zones(scene, hit[0][floor], hit[1][floor])
    color[floor[paint]] = np.array(scene.paint, np.float32) * (base[FLOOR] / np.array(scene.floor)).mean()

    wall = np.flatnonzero((flat > CEILING) & (flat < ROOM_FACES))
    tone[wall] *= _wall_tone(hit, wall)
    band = wall[np.abs(hit[2][wall] - 1.7) < 0.22]
    color[band] = np.array(scene.stripe, np.float32)

    box = np.flatnonzero(flat >= ROOM_FACES)
    face = flat[box] - ROOM_FACES
    owners = np.array([cuboid.owner for cuboid in scene.cuboids] or [0], np.int32)
    ids[box] = owners[faces.cuboid[face]] if face.size else 0
    tone[box] *= _seams(scene, faces, face, [h[box] for h in hit], flat_depth[box], focal)

    color *= tone[:, None] * np.array(scene.tint, np.float32) * 255
    rgb = np.clip(color + 0.5, 0, 255).astype(np.uint8)
    return rgb.reshape(*depth.shape, 3), ids.reshape(depth.shape)


def _face_colors(scene: Scene, faces: Faces) -> np.ndarray:
    """Lit colour of every face without texture, float32[6 + F, 3]."""
    normals = np.concatenate(
        [[[0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, -1, 0], [0, 1, 0]], faces.normal]
    )
    lit = scene.ambient + 0.45 * np.maximum(normals @ np.array(scene.light), 0.0)
    own = np.array([cuboid.color for cuboid in scene.cuboids]).reshape(-1, 3)
    colors = np.concatenate([np.array([scene.floor] + 5 * [scene.wall]), own[faces.cuboid]])
    return (colors * lit[:, None]).astype(np.float32)


def _stains(seed: int, hit: list[np.ndarray]) -> np.ndarray:
    """Low-frequency brightness, about 5 %: a few plane waves through the room, float32[N]."""
    rng = np.random.default_rng(seed)
    total = np.zeros_like(hit[0])
    for frequency in (0.5, 1.1, 2.3):
        direction = rng.normal(size=3)
        x, y, z = (frequency * direction / np.linalg.norm(direction)).astype(np.float32)
        total += np.sin(x * hit[0] + y * hit[1] + z * hit[2] + np.float32(rng.uniform(0, 6.28)))
    return np.float32(0.03) * total


def _floor_tone(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Joints between slabs and soft shadows under what stands, float32[N]."""
    tone = np.ones_like(x)
    joints = (np.abs(np.mod(x, np.float32(4)) - 2) < 0.02) | (np.abs(np.mod(y, np.float32(4)) - 2) < 0.02)
    tone[joints] = 0.8
    for thing in scene.things:
        if thing.kind == "buffer":
            continue
        # The shadow leans away from the light.
        lean = (thing.position[0] - 0.3 * scene.light[0], thing.position[1] - 0.3 * scene.light[1])
        edge = _edge(x, y, lean, thing.size, thing.yaw)
        near = np.flatnonzero(edge < 0.35)
        tone[near] *= np.clip(0.72 + 0.8 * np.maximum(edge[near], 0), 0, 1)
    return tone


def _edge(
    x: np.ndarray, y: np.ndarray, center: tuple[float, float], size: tuple[float, float], yaw: float
) -> np.ndarray:
    """Metres outside a rectangle's nearest side, negative inside, float32[N]."""
    cos, sin = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    dx, dy = x - np.float32(center[0]), y - np.float32(center[1])
    return np.maximum(
        np.abs(cos * dx + sin * dy) - np.float32(size[0] / 2),
        np.abs(cos * dy - sin * dx) - np.float32(size[1] / 2),
    )


def _zones(scene: Scene, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For floor points: number of the buffer within whose line they lie, and whether on a line."""
    numbers, paint = np.zeros(x.shape, np.int32), np.zeros(x.shape, bool)
    for buffer in scene.of_kind("buffer"):
        edge = _edge(x, y, buffer.position, buffer.size, buffer.yaw)
        numbers[edge <= LINE] = buffer.number
        paint |= np.abs(edge) <= LINE
    width, depth, _ = scene.room
    aisle = _edge(x, y, (0.0, depth / 2), (width - 3.0, depth - 3.0), 0.0)
    return numbers, paint | ((np.abs(aisle) <= LINE) & (numbers == 0))


def _wall_tone(hit: list[np.ndarray], wall: np.ndarray) -> np.ndarray:
    """Sheet metal above a darker base, float32[N]."""
    ribs = np.sin(np.float32(9.0) * (hit[0][wall] + hit[1][wall]))
    high = hit[2][wall]
    return np.where(high < 1.5, np.float32(0.62), 1 + np.float32(0.05) * ribs)


def _seams(
    scene: Scene, faces: Faces, face: np.ndarray, hit: list[np.ndarray], depth: np.ndarray, focal: float
) -> np.ndarray:
    """Darker outlines and seams of boxes, float32[N]; they fade where thinner than a pixel."""
    if face.size == 0:
        return np.ones(0, np.float32)
    cuboid = faces.cuboid[face]
    centers, sizes, cos, sin = (
        table.astype(np.float32)
        for table in (faces.centers, faces.sizes, np.cos(faces.yaws), np.sin(faces.yaws))
    )
    cells = np.array([box.cells for box in scene.cuboids], np.float32)
    dx, dy, dz = (hit[k] - centers[cuboid, k] for k in range(3))
    turn_cos, turn_sin = cos[cuboid], sin[cuboid]
    local = (turn_cos * dx + turn_sin * dy, turn_cos * dy - turn_sin * dx, dz)
    nearest = np.full(face.shape, np.inf, np.float32)
    for k in range(3):
        width = (sizes[:, k] / cells[:, k])[cuboid]
        # Seams are counted from the box's lower end, half a size from its centre.
        place = local[k] + (sizes[:, k] / 2)[cuboid]
        gap = np.abs(place - width * np.round(place / width))
        np.copyto(nearest, np.minimum(nearest, gap), where=faces.axis[face] != k)
    half = np.maximum(np.float32(0.012), 0.4 * depth / np.float32(focal))
    strength = np.float32(0.4) * np.minimum(
        np.float32(0.014) * np.float32(focal) / depth + np.float32(0.25), 1
    )
    return 1 - strength * (nearest < half)
