"""A picture in which someone marks regions: what the page knows beside its widgets."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, binary_erosion

from eval.assist.tightened import tighten
from eval.report.overlay import draw_regions
from smolrgpt_jax.data.masks import RLE, box_mask, decode, encode

# Longer side of the picture that is shown, in pixels.
_SHOWN_LEAST, _SHOWN_MOST = 720, 1280

Point = tuple[float, float]


@dataclass(frozen=True)
class Region:
    """A region that someone marked; box: whether it is one, as drawn; key: its own, kept when it is changed."""

    mask: RLE
    name: str = ""
    box: bool = False
    key: int = field(default_factory=itertools.count().__next__)


class MarkedPicture:
    """An RGB picture, its depth in grey where there is one, and the `regions` marked in it so far; the i-th is "Region i".

    candidates: masks known of the picture, which can be picked by a point. file, depth_file: what picture and depth were read from,
    the content or where it is. `selected` is the number of the region that is
    named or changed, if there is one.
    """

    def __init__(
        self,
        image: Image.Image,
        depth: Image.Image | None = None,
        candidates: Sequence[RLE] = (),
        file: bytes | Path = b"",
        depth_file: bytes | Path | None = None,
    ):
        self.image, self.depth, self.candidates = image, depth, tuple(candidates)
        self.file, self.depth_file = file, depth_file
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
        """Marks these regions instead of those there are; what is selected stays so, if it is still there."""
        chosen = None if self.selected is None else self.regions[self.selected].key
        self._past.append(self.regions)
        self.regions = tuple(regions)
        keys = [region.key for region in self.regions]
        self.selected = keys.index(chosen) if chosen in keys else None

    def add(self, region: Region) -> None:
        """Marks one more region, which is selected."""
        self.set_regions((*self.regions, region))
        self.selected = len(self.regions) - 1

    @property
    def changed(self) -> bool:
        """Whether there is a change of the regions that `undo` takes back."""
        return bool(self._past)

    def undo(self) -> None:
        """Takes the last change of the regions back, if there was one."""
        if self._past:
            self.set_regions(self._past.pop())
            self._past.pop()

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
        self.add(Region(encode(box), box=True))
        return True

    def paint(self, points: Sequence[Point], width: float) -> bool:
        """Adds a stroke of a brush, all in pixels of the shown picture, to the selected region, or marks a new one with it.

        False if the stroke lies outside of the picture.
        """
        across, down = np.divide(self.image.size, self.shown_size)
        chosen = None if self.selected is None else self.regions[self.selected]
        before = decode(chosen.mask) if chosen else np.zeros(self.image.size[::-1], np.uint8)
        canvas = Image.fromarray(before)
        draw, radius = ImageDraw.Draw(canvas), max(0.5, width * across / 2)
        places = [(x * across, y * down) for x, y in points]
        draw.line(places, fill=1, width=max(1, round(2 * radius)))
        for x, y in places:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
        painted = np.asarray(canvas)
        if not painted.any():
            return False
        if chosen is None:
            self.add(Region(encode(painted)))
        else:
            self._replace({chosen.key: encode(painted)})
        return True

    def select(self, point: Point) -> bool:
        """Selects the smallest region under a point of the shown picture; False, and none is selected, if there is none."""
        x, y = np.clip(
            np.multiply(point, np.divide(self.image.size, self.shown_size)), 0, np.subtract(self.image.size, 1)
        )
        masks = {number: decode(mask) for number, mask in enumerate(self.masks)}
        found = [number for number, mask in masks.items() if mask[int(y), int(x)]]
        self.selected = min(found, key=lambda number: np.count_nonzero(masks[number])) if found else None
        return bool(found)

    def tighten(self) -> int:
        """Makes masks of what the boxes hold, of the selected one or of all; the number of boxes that became one.

        Raises ImportError where the extra that finds them is not installed.
        """
        chosen = self.regions if self.selected is None else (self.regions[self.selected],)
        boxes = [region for region in chosen if region.box]
        tight = tighten(self.image, [region.mask for region in boxes])
        found = {region.key: mask for region, mask in zip(boxes, tight) if mask != region.mask}
        if found:
            self._replace(found)
        return len(found)

    def _replace(self, masks: Mapping[int, RLE]) -> None:
        """Gives regions, by their keys, other masks; they are boxes no more."""
        self.set_regions(
            replace(region, mask=masks[region.key], box=False) if region.key in masks else region
            for region in self.regions
        )

    def pick(self, point: Point) -> bool:
        """Marks the smallest candidate under a point of the shown picture, or unmarks it; False if there is none."""
        x, y = np.clip(point, 0, np.subtract(self.shown_size, 1)).astype(int)
        found = [mask for mask, inside in self._inside.items() if inside[y, x]]
        if found:
            smallest = min(found, key=lambda mask: np.count_nonzero(self._inside[mask]))
            if smallest in self.masks:
                self.remove(self.masks.index(smallest))
            else:
                self.add(Region(smallest))
        return bool(found)

    def shown(self, candidates: bool, depth: float = 0.0) -> Image.Image:
        """Returns the picture of `shown_size` with the regions drawn in and, if wanted, the candidates' outlines.

        depth: the share of the depth picture, 1 for that alone; what is selected has a white outline besides its colour.
        """
        picture = self._resized
        if depth and self.depth is not None:
            picture = Image.blend(picture, self.depth.resize(self.shown_size).convert("RGB"), depth)
        if candidates:
            pixels = np.array(picture)
            for inside in self._inside.values():
                pixels[inside & ~binary_erosion(inside)] = (255, 255, 255)
            picture = Image.fromarray(pixels)
        drawn = draw_regions(picture, self.masks)
        if self.selected is None:
            return drawn
        pixels, inside = np.array(drawn), self._shown_mask(self.masks[self.selected])
        pixels[binary_dilation(inside, iterations=3) & ~inside] = (255, 255, 255)
        return Image.fromarray(pixels)

    def _shown_mask(self, mask: RLE) -> np.ndarray:
        """bool[height, width] of the shown picture."""
        return np.asarray(Image.fromarray(decode(mask)).resize(self.shown_size, Image.Resampling.NEAREST)) != 0
