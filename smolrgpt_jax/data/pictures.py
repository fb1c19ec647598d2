"""Reads pictures: from their files or from prepared data."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from smolrgpt_jax.data import images, masks
from smolrgpt_jax.data.records import Picture, PreparedPicture, Region, StoredRegion, records_of
from smolrgpt_jax.data.rows import RowShape
from smolrgpt_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A picture as read from disk.

    Attributes:
      image: uint8[H, W, 3].
      depth: uint8[H, W], or None.
      masks: the regions asked for, float32[N, g, g] (of rows and columns).
    """

    image: np.ndarray
    depth: np.ndarray | None
    masks: np.ndarray


# Reads a picture and the given ones of its regions; raises DataError.
Loader = Callable[[Picture, Sequence[Region]], Pixels]


class FileLoader:
    """Loads pictures from their files or from prepared data, keeping the most recently used ones decoded."""

    def __init__(self, shape: RowShape, depth_mode: str = "training", cached_pictures: int = 0):
        """Prepares a loader.

        Args:
          shape: image_size and mask_grid of the results; no depth is read if it has no regions.
          depth_mode: see ``images.read_depth``.
          cached_pictures: number of decoded pictures kept in memory, with their masks.
        """
        self._shape = shape
        self._depth_mode = depth_mode
        self._capacity = cached_pictures
        self._cache: OrderedDict[Path, tuple] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        # A worker process starts with an empty cache and a lock of its own.
        return FileLoader, (self._shape, self._depth_mode, self._capacity)

    def __call__(self, picture: Picture, regions: Sequence[Region]) -> Pixels:
        """Returns the picture's arrays.

        Raises:
          DataError: a file cannot be read; names the file and a record that needs it.
        """
        image, depth, known = self._pixels(picture)
        grid = self._shape.mask_grid
        for region in regions:
            if region not in known:
                known[region] = masks.resample_rle(region, grid)
        empty = np.zeros((0, grid, grid), np.float32)
        return Pixels(image, depth, np.stack([known[region] for region in regions]) if regions else empty)

    def _pixels(self, picture: Picture) -> tuple[np.ndarray, np.ndarray | None, dict]:
        key = picture.image
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        try:
            if isinstance(picture, PreparedPicture):
                return self._keep(key, self._prepared(picture))
            image = images.read_rgb(picture.image, self._shape.image_size)
            depth = None
            if picture.depth is not None and self._shape.regions:
                depth = images.read_depth(picture.depth, self._shape.image_size, self._depth_mode)
        except DataError as error:
            raise DataError(f"{records_of(picture)}: {error}") from error
        return self._keep(key, (image, depth, {}))

    def _keep(self, key: Path, entry: tuple) -> tuple:
        if self._capacity:
            with self._lock:
                self._cache[key] = entry
                while len(self._cache) > self._capacity:
                    self._cache.popitem(last=False)
        return entry

    def _prepared(self, picture: PreparedPicture) -> tuple[np.ndarray, np.ndarray | None, dict]:
        # Imported where needed: TensorFlow Datasets takes seconds to import.
        from smolrgpt_jax.data.prepared.reader import check_prepared, load_stored

        check_prepared(picture, self._shape.image_size, self._shape.mask_grid, self._depth_mode)
        stored = load_stored(picture)
        weights = {StoredRegion(number): mask for number, mask in enumerate(stored.weights)}
        return stored.image, stored.depth if self._shape.regions else None, weights


def fill_pixels(out: dict[str, np.ndarray], place: int, pixels: Pixels, depth_mode: str) -> None:
    """Writes a picture, scaled as the encoder takes it, into its place of one row of ``packing.empty_batch``."""
    out["images"][place] = images.scale_rgb(pixels.image)
    if "depths" in out:
        if pixels.depth is not None:
            out["depths"][place] = images.scale_depth(pixels.depth, depth_mode)
        out["region_masks"][place, : len(pixels.masks)] = pixels.masks
