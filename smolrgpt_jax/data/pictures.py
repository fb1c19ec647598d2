"""The pixels of a record's picture: from its files or from prepared data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from smolrgpt_jax.data import images, masks
from smolrgpt_jax.data.prepared.reader import check_prepared, load_stored
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
          depth_mode: see `images.read_depth`.
          cached_pictures: number of decoded pictures kept in memory, with their masks.
        """
        self._settings = shape, depth_mode, cached_pictures
        self._cached = functools.lru_cache(cached_pictures)(self._read)

    def __reduce__(self) -> tuple:
        # A worker process starts with an empty cache.
        return FileLoader, self._settings

    def __call__(self, picture: Picture, regions: Sequence[Region]) -> Pixels:
        """Returns the picture's arrays.

        Raises:
          DataError: a file cannot be read; names the file and a record that needs it.
        """
        try:
            image, depth, known = self._cached(dataclasses.replace(picture, questions=()))
        except DataError as error:
            raise DataError(f"{records_of(picture)}: {error}") from error
        grid = self._settings[0].mask_grid
        for region in regions:
            if region not in known:
                known[region] = masks.resample_rle(region, grid)
        found = np.stack([known[region] for region in regions]) if regions else np.zeros((0, grid, grid), np.float32)
        return Pixels(image, depth, found)

    def _read(self, picture: Picture) -> tuple[np.ndarray, np.ndarray | None, dict[Region, np.ndarray]]:
        """Pixels and the masks that are known already; picture: without its questions."""
        shape, depth_mode, _ = self._settings
        if isinstance(picture, PreparedPicture):
            check_prepared(picture, shape.image_size, shape.mask_grid, depth_mode)
            image, depth, weights = load_stored(picture)
            return image, depth if shape.regions else None, {StoredRegion(n): mask for n, mask in enumerate(weights)}
        image = images.read_rgb(picture.image, shape.image_size)
        with_depth = picture.depth is not None and shape.regions
        return image, images.read_depth(picture.depth, shape.image_size, depth_mode) if with_depth else None, {}


def fill_pixels(out: dict[str, np.ndarray], place: int, pixels: Pixels, depth_mode: str) -> None:
    """Writes a picture, scaled as the encoder takes it, into its place of one row of `empty_batch`."""
    out["images"][place] = images.scale_rgb(pixels.image)
    if "depths" in out:
        if pixels.depth is not None:
            out["depths"][place] = images.scale_depth(pixels.depth, depth_mode)
        out["region_masks"][place, : len(pixels.masks)] = pixels.masks
