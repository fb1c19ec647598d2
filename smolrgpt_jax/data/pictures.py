"""The pixels of a record's picture: from its files or from prepared data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from smolrgpt_jax.data import images, masks
from smolrgpt_jax.data.prepared.reader import check_prepared, load_stored
from smolrgpt_jax.data.records import Picture, PreparedPicture, Region, StoredRegion, records_of
from smolrgpt_jax.data.rows import RowShape
from smolrgpt_jax.errors import DataError


class FileLoader:
    """Loads pictures from their files or from prepared data, keeping the most recently used ones decoded."""

    def __init__(self, shape: RowShape, depth_mode: str = "training", cached_pictures: int = 0):
        """Prepares a loader.

        shape: of the rows that are filled; no depth is read if it has no regions. depth_mode: see `images.read_depth`.
        cached_pictures: number of decoded pictures kept in memory, with their masks.
        """
        self._settings = shape, depth_mode, cached_pictures
        self._cached = functools.lru_cache(cached_pictures)(self._read)

    def __reduce__(self) -> tuple:
        # A worker process starts with an empty cache.
        return FileLoader, self._settings

    def fill(self, out: dict[str, np.ndarray], place: int, picture: Picture, regions: Sequence[Region]) -> None:
        """Writes a picture and the given ones of its regions into its place of one row of `empty_batch`.

        Raises:
          DataError: a file cannot be read; names the file and a record that needs it. Nothing was written.
        """
        shape, depth_mode, _ = self._settings
        try:
            image, depth, known = self._cached(dataclasses.replace(picture, questions=()))
        except DataError as error:
            raise DataError(f"{records_of(picture)}: {error}") from error
        for region in regions:
            if region not in known:
                known[region] = masks.resample_rle(region, shape.mask_grid)
        out["images"][place] = images.scale_rgb(image)
        if "depths" in out and depth is not None:
            out["depths"][place] = images.scale_depth(depth, depth_mode)
        for slot, region in enumerate(regions):
            out["region_masks"][place, slot] = known[region]

    def _read(self, picture: Picture) -> tuple[np.ndarray, np.ndarray | None, dict[Region, np.ndarray]]:
        """A picture without its questions -> uint8[H, W, 3], depth uint8[H, W], and masks float32[g, g] that are known already."""
        shape, depth_mode, _ = self._settings
        if isinstance(picture, PreparedPicture):
            check_prepared(picture, shape.image_size, shape.mask_grid, depth_mode)
            image, depth, weights = load_stored(picture)
            return image, depth if shape.regions else None, {StoredRegion(n): mask for n, mask in enumerate(weights)}
        image = images.read_rgb(picture.image, shape.image_size)
        if picture.depth is None or not shape.regions:
            return image, None, {}
        return image, images.read_depth(picture.depth, shape.image_size, depth_mode), {}
