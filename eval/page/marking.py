"""A picture in which someone marks regions: what the page knows beside its widgets."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from eval.report.overlay import draw_regions
from smolrgpt_jax.data.masks import RLE, box_mask, decode, encode

# Longer side of the picture that is shown, in pixels.
_SHOWN_LEAST, _SHOWN_MOST = 720, 1280

Point = tuple[float, float]


class MarkedPicture:
    """An RGB picture, its depth in grey where there is one, and the `regions` marked in it so far; the i-th is "Region i".

    candidates: masks known of the picture, which can be picked by a point.
    """

    def __init__(self, image: Image.Image, depth: Image.Image | None = None, candidates: Sequence[RLE] = ()):
        self.image, self.depth, self.candidates = image, depth, tuple(candidates)
        self.regions: list[RLE] = []
        longer = max(image.size)
        scale = min(max(longer, _SHOWN_LEAST), _SHOWN_MOST) / longer
        # (width, height) of the picture as it is shown, whose pixels the points are in.
        self.shown_size = tuple(max(1, round(side * scale)) for side in image.size)
        self._resized = self.image.resize(self.shown_size, Image.Resampling.LANCZOS)
        self._inside = {mask: self._shown_mask(mask) for mask in self.candidates}

    def add_box(self, corner: Point, opposite: Point) -> bool:
        """Marks the box between two points of the shown picture; False if it has no area inside."""
        scale = np.divide(self.image.size, self.shown_size)
        corners = np.clip([corner * scale, opposite * scale], 0, self.image.size)
        (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
        if x1 == x2 or y1 == y2:
            return False
        self.regions.append(encode(box_mask((x1, y1, x2, y2), self.image.height, self.image.width)))
        return True

    def pick(self, point: Point) -> bool:
        """Marks the smallest candidate under a point of the shown picture, or unmarks it; False if there is none."""
        x, y = np.clip(point, 0, np.subtract(self.shown_size, 1)).astype(int)
        found = [mask for mask, inside in self._inside.items() if inside[y, x]]
        if found:
            smallest = min(found, key=lambda mask: np.count_nonzero(self._inside[mask]))
            if smallest in self.regions:
                self.regions.remove(smallest)
            else:
                self.regions.append(smallest)
        return bool(found)

    def shown(self, candidates: bool) -> Image.Image:
        """Returns the picture of `shown_size` with the regions drawn in and, if wanted, the candidates' outlines."""
        picture = self._resized
        if candidates:
            pixels = np.array(picture)
            for inside in self._inside.values():
                pixels[inside & ~binary_erosion(inside)] = (255, 255, 255)
            picture = Image.fromarray(pixels)
        return draw_regions(picture, self.regions)

    def _shown_mask(self, mask: RLE) -> np.ndarray:
        """bool[height, width] of the shown picture."""
        return np.asarray(Image.fromarray(decode(mask)).resize(self.shown_size, Image.Resampling.NEAREST)) != 0
