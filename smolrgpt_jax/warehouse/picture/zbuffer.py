"""Which face of a scene each pixel shows: a z-buffer in NumPy.

A plane's inverse depth and the side of an edge are affine in the picture's coordinates, so a face costs five affine maps over its box.
"""

import dataclasses

import numpy as np

from smolrgpt_jax.warehouse.scene.layout import Scene

NEAR = 0.2  # metres; a cuboid that reaches nearer to the camera is left out
# Floor, ceiling, left, right, back and front wall have the first face indices; these are their normals.
ROOM_NORMALS = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, -1, 0], [0, 1, 0]], float)
ROOM_FACES = len(ROOM_NORMALS)
FLOOR, CEILING = 0, 1

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
# Corners of each face in order round it; the normals are the rows below.
_FACE_CORNERS = np.array([[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]])
_FACE_NORMALS = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]], float)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """What the camera's pixels show."""

    faces: "Faces"
    shown: np.ndarray  # int32[H, W], a face of the room, or ROOM_FACES + index in `faces`
    depth: np.ndarray  # float32[H, W], metres along the optical axis
    columns: np.ndarray  # float32[W], places from the middle over the focal length
    rows: np.ndarray  # float32[H]
    focal: float  # focal length in pixels


class Faces:
    """The faces of all cuboids that are turned to the camera.

    cuboid: int[F], index of the cuboid; axis: int[F], 0 to 2, of its normal; normal: float64[F, 3], in the world; maps: float32[F, 5, 3],
    affine maps in picture coordinates: four edges, positive inside, and the inverse depth; corners: float64[F, 4, 2], in picture
    coordinates; centers, sizes: float64[N, 3], yaws: float64[N], of the cuboids.
    """

    def __init__(self, scene: Scene):
        boxes, axes, eye = scene.cuboids, scene.camera.axes, np.array(scene.camera.position)
        self.centers = np.array([box.center for box in boxes]).reshape(-1, 3)
        self.sizes = np.array([box.size for box in boxes]).reshape(-1, 3)
        self.yaws = np.array([box.yaw for box in boxes])
        cos, sin, zero, one = np.cos(self.yaws), np.sin(self.yaws), np.zeros(len(boxes)), np.ones(len(boxes))
        turns = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).reshape(-1, 3, 3)
        world = np.einsum("nij,nkj->nki", turns, _CORNERS * self.sizes[:, None]) + self.centers[:, None]
        seen = (world - eye) @ axes.T
        normals = np.einsum("nij,fj->nfi", turns, _FACE_NORMALS)
        # A distance of 0 would be a face seen edge-on, which covers no pixel.
        towards = np.einsum("nfi,nfi->nf", normals, world[:, _FACE_CORNERS[:, 0]] - eye)
        self.cuboid, face = np.nonzero((towards < -1e-6) & (seen[..., 2].min(1) > NEAR)[:, None])
        self.axis = face // 2
        self.normal = normals[self.cuboid, face]
        inverse = (self.normal / towards[self.cuboid, face][:, None]) @ axes.T
        corners = seen[self.cuboid[:, None], _FACE_CORNERS[face]]
        self.corners = corners[..., :2] / corners[..., 2:]
        x, y = self.corners[..., 0], self.corners[..., 1]
        next_x, next_y = np.roll(x, -1, 1), np.roll(y, -1, 1)
        dx, dy = next_x - x, next_y - y
        # Twice the signed area tells which way round the corners run.
        sign = np.where(np.sum(x * next_y - y * next_x, 1) >= 0, 1.0, -1.0)[:, None]
        edges = np.stack([-dy * sign, dx * sign, (dy * x - dx * y) * sign], -1)
        self.maps = np.concatenate([edges, inverse[:, None]], 1).astype(np.float32)


def find_faces(scene: Scene, width: int, height: int) -> Pixels:
    """Finds the face that each pixel shows, for a camera inside the room."""
    focal = scene.camera.focal * width
    columns = ((np.arange(width) + 0.5 - width / 2) / focal).astype(np.float32)
    rows = ((np.arange(height) + 0.5 - height / 2) / focal).astype(np.float32)
    wide, deep, high = scene.room
    x, y, z = scene.camera.position
    distances = np.array([z, high - z, wide / 2 + x, wide / 2 - x, deep - y, y])
    planes = ((-ROOM_NORMALS / distances[:, None]) @ scene.camera.axes.T).astype(np.float32)
    inverse = np.full((height, width), -np.inf, np.float32)
    shown = np.zeros((height, width), np.int32)
    # Within a convex room the nearest plane is the one with the largest inverse depth.
    for index, (a, b, c) in enumerate(planes):
        values = a * columns + (b * rows + c)[:, None]
        nearer = values > inverse
        np.copyto(inverse, values, where=nearer)
        shown[nearer] = index
    faces, size = Faces(scene), np.array([width, height])
    lows = np.clip(np.floor(faces.corners.min(1) * focal + size / 2).astype(int), 0, size)
    highs = np.clip(np.ceil(faces.corners.max(1) * focal + size / 2).astype(int), 0, size)
    for index in np.flatnonzero((lows < highs).all(1)).tolist():
        (left, top), (right, bottom) = lows[index].tolist(), highs[index].tolist()
        a, b, c = faces.maps[index].T[..., None, None]
        values = a * columns[left:right] + (b * rows[top:bottom, None] + c)
        window = inverse[top:bottom, left:right]
        nearer = (values[:4].min(0) >= 0) & (values[4] > window)
        np.copyto(window, values[4], where=nearer)
        np.copyto(shown[top:bottom, left:right], ROOM_FACES + index, where=nearer)
    return Pixels(faces, shown, 1.0 / inverse, columns, rows, focal)
