"""The camera and the flat geometry of the floor.

World frame: x to the right, y away from the front wall, z up, in metres; the floor is z = 0. Angles are radians. A footprint's yaw
turns it counter-clockwise seen from above; the camera's yaw is its heading, clockwise from the y axis.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

Point = tuple[float, float]
Vector = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera without roll."""

    position: Vector  # metres
    yaw: float  # heading, clockwise from the y axis
    pitch: float  # below the horizon
    focal: float  # focal length in picture widths

    @cached_property
    def axes(self) -> np.ndarray:
        """Right, down and forward in the world, float64[3, 3], one per row."""
        cos_yaw, sin_yaw, cos_pitch = math.cos(self.yaw), math.sin(self.yaw), math.cos(self.pitch)
        right = np.array([cos_yaw, -sin_yaw, 0.0])
        forward = np.array([sin_yaw * cos_pitch, cos_yaw * cos_pitch, -math.sin(self.pitch)])
        return np.stack([right, np.cross(forward, right), forward])

    def on_floor(self, point: Any) -> Any:
        """A floor point (or an array of them, coordinates first) as metres (ahead, right) of the point below the camera, by its
        heading."""
        dx, dy = point[0] - self.position[0], point[1] - self.position[1]
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return dx * sin + dy * cos, dx * cos - dy * sin

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects world points float[N, 3], in metres, to float64[N, 3].

        Right and down of the picture's centre in picture widths, and the depth along the optical axis in metres, negative behind.
        """
        seen = (np.asarray(points) - self.position) @ self.axes.T
        return np.column_stack([self.focal * seen[:, :2] / seen[:, 2:], seen[:, 2]])

    def floor_point(self, across: float, down: float) -> Point | None:
        """The floor point seen at a place of the picture (picture widths from its centre)."""
        ray = np.array([across / self.focal, down / self.focal, 1.0]) @ self.axes
        if ray[2] > -1e-3:
            return None
        reach = -self.position[2] / ray[2]
        return float(self.position[0] + reach * ray[0]), float(self.position[1] + reach * ray[1])


def rotated(point: Point, yaw: float) -> Point:
    """A point turned about the origin, counter-clockwise."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return cos * point[0] - sin * point[1], sin * point[0] + cos * point[1]


def moved(origin: Point, offset: Point, yaw: float) -> Point:
    """`origin` plus an offset given in a frame turned by `yaw`."""
    dx, dy = rotated(offset, yaw)
    return origin[0] + dx, origin[1] + dy


def corners(center: Point, size: Point, yaw: float) -> list[Point]:
    """The corners of a turned rectangle, in order round it."""
    return [moved(center, (x * size[0] / 2, y * size[1] / 2), yaw) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def overlap(a: list[Point], b: list[Point]) -> bool:
    """Whether two convex outlines, whose corners are in order, share an area.

    By the separating axis theorem they do not if one of their sides has all of both on different sides.
    """
    for outline in (a, b):
        for (x0, y0), (x1, y1) in zip(outline, outline[1:] + outline[:1]):
            of_a, of_b = ([x * (y0 - y1) + y * (x1 - x0) for x, y in points] for points in (a, b))
            if max(of_a) <= min(of_b) or max(of_b) <= min(of_a):
                return False
    return True


def edge_distance(x: np.ndarray, y: np.ndarray, center: Sequence[float], size: Point, yaw: float) -> np.ndarray:
    """Metres outside a rectangle's nearest side, negative inside, of float32 points whose shapes broadcast."""
    cos, sin = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    dx, dy = x - np.float32(center[0]), y - np.float32(center[1])
    across, along = np.abs(cos * dx + sin * dy), np.abs(cos * dy - sin * dx)
    return np.maximum(across - np.float32(size[0] / 2), along - np.float32(size[1] / 2))
