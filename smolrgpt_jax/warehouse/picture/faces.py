"""The faces of a scene's boxes in the picture, and a z-buffer in NumPy that draws them.

For a pinhole camera the inverse depth of a plane is an affine function of the picture's
coordinates, and so is the side of an edge a pixel lies on. Each face therefore costs five affine
maps over its own bounding box.
"""

from __future__ import annotations

import numpy as np

from smolrgpt_jax.warehouse.scene.layout import Scene

NEAR = 0.2  # metres; a cuboid that reaches nearer to the camera is left out
ROOM_FACES = 6  # floor, ceiling and four walls have the first face indices
FLOOR, CEILING = 0, 1

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
# Corners of each face in order round it; the normals are the rows below.
_FACE_CORNERS = np.array([[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]])
_FACE_NORMALS = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]], float)


class Faces:
    """The faces of all cuboids that are turned to the camera.

    Attributes:
      cuboid: int[F], index of the cuboid; axis: int[F], 0 to 2, of its normal;
      normal: float64[F, 3], in the world; maps: float32[F, 5, 3], affine maps in picture
      coordinates: four edges, positive inside, and the inverse depth; corners: float64[F, 4, 2],
      in picture coordinates; centers, sizes: float64[N, 3], yaws: float64[N], of the cuboids.
    """

    def __init__(self, scene: Scene):
        boxes = scene.cuboids
        centers = np.array([box.center for box in boxes]).reshape(-1, 3)
        sizes = np.array([box.size for box in boxes]).reshape(-1, 3)
        yaws = np.array([box.yaw for box in boxes])
        cos, sin, zero, one = np.cos(yaws), np.sin(yaws), np.zeros_like(yaws), np.ones_like(yaws)
        turns = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).reshape(-1, 3, 3)
        world = np.einsum("nij,nkj->nki", turns, _CORNERS * sizes[:, None]) + centers[:, None]
        eye = np.array(scene.camera.position)
        seen = (world - eye) @ scene.camera.axes.T
        normals = np.einsum("nij,fj->nfi", turns, _FACE_NORMALS)
        points = world[:, _FACE_CORNERS[:, 0]]
        # A distance of 0 would be a face seen edge-on, which covers no pixel.
        towards = np.einsum("nfi,nfi->nf", normals, points - eye)
        self.cuboid, face = np.nonzero((towards < -1e-6) & (seen[..., 2].min(1) > NEAR)[:, None])
        self.axis = face // 2
        self.normal = normals[self.cuboid, face]
        inverse = (self.normal / towards[self.cuboid, face][:, None]) @ scene.camera.axes.T
        corners = seen[self.cuboid[:, None], _FACE_CORNERS[face]]
        self.corners = corners[..., :2] / corners[..., 2:]
        x, y = self.corners[..., 0], self.corners[..., 1]
        dx, dy = np.roll(x, -1, 1) - x, np.roll(y, -1, 1) - y
        # Twice the signed area tells which way round the corners run.
        sign = np.where(np.sum(x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1), 1) >= 0, 1.0, -1.0)[:, None]
        edges = np.stack([-dy * sign, dx * sign, (dy * x - dx * y) * sign], -1)
        self.maps = np.concatenate([edges, inverse[:, None]], 1).astype(np.float32)
        self.centers, self.sizes, self.yaws = centers, sizes, yaws

    def draw(self, inverse: np.ndarray, shown: np.ndarray, columns: np.ndarray, rows: np.ndarray, focal: float) -> None:
        """Draws every face where it is nearer than what is there, in place."""
        height, width = inverse.shape
        low = np.floor(self.corners.min(1) * focal + (width / 2, height / 2)).astype(int)
        high = np.ceil(self.corners.max(1) * focal + (width / 2, height / 2)).astype(int)
        limits = (width, height)
        low, high = np.clip(low, 0, limits), np.clip(high, 0, limits)
        for index in np.flatnonzero((low < high).all(1)):
            (left, top), (right, bottom) = low[index].tolist(), high[index].tolist()
            a, b, c = self.maps[index].T[..., None, None]
            values = a * columns[left:right] + (b * rows[top:bottom, None] + c)
            window = inverse[top:bottom, left:right]
            nearer = (values[:4].min(0) >= 0) & (values[4] > window)
            np.copyto(window, values[4], where=nearer)
            np.copyto(shown[top:bottom, left:right], ROOM_FACES + index, where=nearer)
