"""Renders a scene in NumPy: RGB, metric depth and instance ids.

The picture is shaded once at the end, from the face each pixel shows and the point of it that is hit.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from smolrgpt_jax.warehouse.picture.faces import Faces
from smolrgpt_jax.warehouse.picture.shading import shade
from smolrgpt_jax.warehouse.scene.layout import Scene


@dataclasses.dataclass(frozen=True)
class Rendering:
    """What the camera sees.

    Attributes:
      rgb: uint8[H, W, 3].
      depth: float32[H, W], metres along the optical axis; finite everywhere.
      ids: int32[H, W], number of the thing seen, 0 for none. A buffer is the floor that is seen
        within its line.
    """

    rgb: np.ndarray
    depth: np.ndarray
    ids: np.ndarray


def render(scene: Scene, width: int, height: int) -> Rendering:
    """Renders a scene, whose camera is inside the room, at any resolution in pixels."""
    focal = scene.camera.focal * width
    columns = ((np.arange(width) + 0.5 - width / 2) / focal).astype(np.float32)
    rows = ((np.arange(height) + 0.5 - height / 2) / focal).astype(np.float32)
    inverse, shown = _room(scene, columns, rows)
    faces = Faces(scene)
    faces.draw(inverse, shown, columns, rows, focal)
    depth = 1.0 / inverse
    rgb, ids = shade(scene, faces, shown, depth, columns, rows, focal)
    return Rendering(rgb, depth, ids)


def depth_to_grey(depth: np.ndarray) -> np.ndarray:
    """Depth as the data set stores it, near dark and far bright, scaled within the picture.

    Args:
      depth: float[H, W], metres.

    Returns:
      uint8[H, W].
    """
    low, high = float(depth.min()), float(depth.max())
    return np.round((depth - low) * (255.0 / max(high - low, 1e-9))).astype(np.uint8)


def _room(scene: Scene, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse depth float32[H, W] of the empty room and the face int32[H, W] that is seen.

    Within a convex room the nearest plane is the one with the largest inverse depth.
    """
    width, depth, height = scene.room
    eye = scene.camera.position
    normals = np.array([[0, 0, -1], [0, 0, 1], [-1, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0]], float)
    distances = np.array([eye[2], height - eye[2], width / 2 + eye[0], width / 2 - eye[0], depth - eye[1], eye[1]])
    planes = ((normals / distances[:, None]) @ scene.camera.axes.T).astype(np.float32)
    inverse = np.full((rows.size, columns.size), -np.inf, np.float32)
    shown = np.zeros((rows.size, columns.size), np.int32)
    for index, (a, b, c) in enumerate(planes):
        values = a * columns + (b * rows + c)[:, None]
        nearer = values > inverse
        np.copyto(inverse, values, where=nearer)
        shown[nearer] = index
    return inverse, shown
