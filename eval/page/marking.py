"""A picture in which someone marks regions: what the page knows beside its widgets."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from eval.report.overlay import draw_regions
from smolrgpt_jax.data.masks import RLE, box_mask, decode, encode

# Longer side of the picture that is shown, in pixels.
_SHOWN_LEAST, _SHOWN_MOST = 720, 1280

Point = tuple[float, float]


@dataclass(frozen=True)
class Region:
    """A region that someone marked; key: its own, kept when it is changed."""

    mask: RLE
    name: str = ""
    key: int = field(default_factory=itertools.count().__next__)


class MarkedPicture:
    """An RGB picture, its depth in grey where there is one, and the `regions` marked in it so far; the i-th is "Region i".

    candidates: masks known of the picture, which can be picked by a point. `selected` is the number of the region that is
    named or changed, if there is one.
    """

    def __init__(self, image: Image.Image, depth: Image.Image | None = None, candidates: Sequence[RLE] = ()):
        self.image, self.depth, self.candidates = image, depth, tuple(candidates)
        self.regions: tuple[Region, ...] = ()
        self.selected: int | None = None
        self._past: list[tuple[Region, ...]] = []
        longer = max(image.size)
        scale = min(max(longer, _SHOWN_LEAST), _SHOWN_MOST) / longer
        # (width, height) of the picture as it is shown, whose pixels the points are in.
        self.shown_size = tuple(max(1, round(side * scale)) for side in image.size)
        self._resized = self.image.resize(self.shown_size, Image.Resampling.LANCZOS)
        self._inside = {mask: self._shown_mask(mask) for mask in self.candidates}

    @property
    def masks(self) -> tuple[RLE, ...]:
        return tuple(region.mask for region in self.regions)

    def labels(self) -> list[str]:
        """What the regions are called: "Region 1", or "1 left pallet" where it has a name."""
        return [f"{i} {region.name}" if region.name else f"Region {i}" for i, region in enumerate(self.regions)]

    def set_regions(self, regions: Iterable[Region]) -> None:
        """Marks these regions instead of those there are; a region that is new is selected, if it is the last one."""
        known = {region.key for region in self.regions}
        chosen = None if self.selected is None else self.regions[self.selected].key
        self._past.append(self.regions)
        self.regions = tuple(regions)
        keys = [region.key for region in self.regions]
        self.selected = keys.index(chosen) if chosen in keys else None
        if len(keys) == len(known) + 1 and keys[-1] not in known:
            self.selected = len(keys) - 1

    def undo(self) -> bool:
        """Takes the last change of the regions back; False if there was none."""
        if self._past:
            self.set_regions(self._past.pop())
            self._past.pop()
            return True
        return False

    def remove(self, number: int) -> None:
        self.set_regions(self.regions[:number] + self.regions[number + 1 :])

    def rename(self, number: int, name: str) -> None:
        """Gives a region a name; an empty one takes it away."""
        named = replace(self.regions[number], name=" ".join(name.split())[:40])
        self.regions = (*self.regions[:number], named, *self.regions[number + 1 :])

    def add_box(self, corner: Point, opposite: Point) -> bool:
        """Marks the box between two points of the shown picture; False if it has no area inside."""
        scale = np.divide(self.image.size, self.shown_size)
        corners = np.clip([corner * scale, opposite * scale], 0, self.image.size)
        (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
        if x1 == x2 or y1 == y2:
            return False
        box = box_mask((x1, y1, x2, y2), self.image.height, self.image.width)
        self.set_regions((*self.regions, Region(encode(box))))
        return True

    def pick(self, point: Point) -> bool:
        """Marks the smallest candidate under a point of the shown picture, or unmarks it; False if there is none."""
        x, y = np.clip(point, 0, np.subtract(self.shown_size, 1)).astype(int)
        found = [mask for mask, inside in self._inside.items() if inside[y, x]]
        if found:
            smallest = min(found, key=lambda mask: np.count_nonzero(self._inside[mask]))
            if smallest in self.masks:
                self.remove(self.masks.index(smallest))
            else:
                self.set_regions((*self.regions, Region(smallest)))
        return bool(found)

    def shown(self, candidates: bool) -> Image.Image:
        """Returns the picture of `shown_size` with the regions drawn in and, if wanted, the candidates' outlines."""
        picture = self._resized
        if candidates:
            pixels = np.array(picture)
            for inside in self._inside.values():
                pixels[inside & ~binary_erosion(inside)] = (255, 255, 255)
            picture = Image.fromarray(pixels)
        return draw_regions(picture, self.masks)

    def _shown_mask(self, mask: RLE) -> np.ndarray:
        """bool[height, width] of the shown picture."""
        return np.asarray(Image.fromarray(decode(mask)).resize(self.shown_size, Image.Resampling.NEAREST)) != 0
