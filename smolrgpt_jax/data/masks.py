"""Region masks: encoding, decoding, and resampling to the grid on which region features are pooled.

A copy of this file lies in every exported folder: it needs NumPy alone.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_LONGEST_OUTLINE = 100  # of a polygon, times height and width of its picture
IMAGE, MASK = "<image>", "<mask>"  # where a prompt speaks of the picture, and of a region


@dataclasses.dataclass(frozen=True)
class RLE:
    """A region mask in COCO's compressed run-length encoding."""

    height: int  # pixels, of its picture too
    width: int
    # The encoded run lengths. Pixels are counted column by column, top to bottom, and the first run is outside the region.
    counts: bytes

    def runs(self) -> np.ndarray:
        """Returns the run lengths, int64[N] in pixels: outside, inside, outside, ...

        The format is that of `rleFrString` in cocoapi's maskApi.c: every number is a group of characters that hold five bits each,
        least significant first, 0x20 marking "more follow" and 0x10 in the last one the sign; from the fourth number on they are
        differences to the number two places before.

        Raises ValueError: the counts are not such a string, or do not add up to height x width.
        """
        codes = np.frombuffer(self.counts, np.uint8).astype(np.int64) - 48
        if codes.size == 0 or codes.min() < 0 or codes.max() > 63:
            raise ValueError("the counts hold characters that COCO's encoding does not use")
        ends = np.flatnonzero((codes & 0x20) == 0)
        if not ends.size or ends[-1] != codes.size - 1:
            raise ValueError("the counts end in the middle of a number")
        starts = np.concatenate(([0], ends[:-1] + 1))
        sizes = ends - starts + 1
        if sizes.max() > 12:  # 60 bits; no picture has runs that long
            raise ValueError("the counts hold a number that is too large")
        place = np.arange(codes.size) - np.repeat(starts, sizes)
        values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
        values -= np.where(codes[ends] & 0x10, 1 << (5 * sizes), 0)
        values[1::2] = np.cumsum(values[1::2])
        values[2::2] = np.cumsum(values[2::2])
        pixels = self.height * self.width
        # The largest run is looked at too: a sum of absurd runs wraps around.
        if values.min() < 0 or values.max() > pixels or values.sum() != pixels:
            raise ValueError(f"the runs do not fill a mask of {self.height}x{self.width} pixels")
        return values

    def as_coco(self) -> dict[str, Any]:
        """{size, counts}, the counts as text, as COCO's JSON files hold it."""
        return {"size": [self.height, self.width], "counts": self.counts.decode()}

    @classmethod
    def of_runs(cls, height: int, width: int, runs: np.ndarray) -> "RLE":
        """The inverse of `runs`: int64[N] below 2**58, unchecked."""
        values = runs.copy()
        values[3:] -= runs[1:-2]
        shifted = values[:, None] >> 5 * np.arange(12)
        rest = shifted >> 5
        more = rest != np.where(shifted & 0x10, -1, 0)
        wanted = np.arange(12) <= np.argmin(more, axis=1)[:, None]
        return cls(height, width, ((shifted & 0x1F) + 0x20 * more + 48)[wanted].astype(np.uint8).tobytes())


def decode(rle: RLE) -> np.ndarray:
    """Returns the mask as uint8[height, width] of zeros and ones, as pycocotools decodes it.

    Raises ValueError: the encoding is unreadable.
    """
    runs = rle.runs()
    inside = (np.arange(runs.size) & 1).astype(np.uint8)
    return np.repeat(inside, runs).reshape(rle.width, rle.height).T


def encode(mask: np.ndarray) -> RLE:
    """Returns COCO's compressed encoding of a mask [height, width], nonzero inside; the same as pycocotools'."""
    ends = np.flatnonzero(np.diff((mask != 0).T.ravel(), prepend=False))
    height, width = mask.shape
    return RLE.of_runs(height, width, np.diff(ends, prepend=0, append=mask.size))


def encode_polygon(points: Sequence[float], height: int, width: int) -> RLE:
    """The mask of a polygon x, y, x, y, ... in pixels, as pycocotools draws it (`rleFrPoly` in cocoapi's maskApi.c).

    Where its outline, of five points per pixel, enters a column of pixels, all pixels from there on change sides. Raises ValueError
    for less than three points, for points far outside of the picture, and for an outline that would fill the memory.
    """
    corners = np.asarray(points, np.float64)
    if corners.ndim != 1 or corners.size < 6 or corners.size % 2:
        raise ValueError("a polygon is x, y, x, y, ... of three points or more")
    if not (abs(corners) < 10 * (height + width)).all():
        raise ValueError("a polygon lies far outside of the picture")
    fine = (5 * corners.reshape(-1, 2) + 0.5).astype(np.int64)
    if abs(fine - np.roll(fine, -1, axis=0)).max(axis=1).sum() > 5 * _LONGEST_OUTLINE * (height + width):
        raise ValueError(f"a polygon's outline is more than {_LONGEST_OUTLINE} times as long as the picture's sides")
    x, y = np.concatenate([_line(*ends) for ends in zip(fine, np.roll(fine, -1, axis=0))]).T
    column = (np.minimum(x[1:], x[:-1]) + 0.5) / 5 - 0.5
    row = np.ceil(((np.minimum(y[1:], y[:-1]) + 0.5) / 5 - 0.5).clip(0, height))
    entered = (x[1:] != x[:-1]) & (column % 1 == 0) & (column >= 0) & (column < width)
    ends, times = np.unique((column * height + row)[entered].astype(np.int64), return_counts=True)
    ends = ends[(times % 2 == 1) & (ends < height * width)]
    return RLE.of_runs(height, width, np.diff(ends, prepend=0, append=height * width))


def union(parts: Sequence[RLE]) -> RLE:
    """What any of some masks of one size covers; takes no memory for pixels, however many masks there are."""
    if len(parts) == 1:
        return parts[0]
    ends = [np.cumsum(part.runs()) for part in parts]
    begins = np.sort(np.concatenate([end[:-1:2] for end in ends]))
    stops = np.sort(np.concatenate([end[1::2] for end in ends]))
    # A gap lies where as many masks have ended as have begun.
    first = np.concatenate(([True], begins[1:] > stops[:-1]))[: begins.size]
    last = np.concatenate((first[1:], [True]))[: stops.size]
    edges = np.stack((begins[first], stops[last]), axis=1).ravel()
    height, width = parts[0].height, parts[0].width
    runs = np.diff(edges, prepend=0, append=height * width)
    return RLE.of_runs(height, width, runs if runs[-1] else runs[:-1])


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The points from one to the other, one at each place of the longer direction, both ways the same: float64[N, 2]."""
    along = np.argmax(abs(end - start))
    if start[along] > end[along]:
        return _line(end, start)[::-1]
    steps = np.arange(end[along] - start[along] + 1)[:, None]
    return np.floor(start + steps * ((end - start) / max(1, len(steps) - 1)) + 0.5)


def inside(values: np.ndarray) -> np.ndarray:
    """Which pixels of a mask are inside, from half of its scale on: bool of the shape of `values`.

    The scale ends at 1, 255 or 65535, whichever holds the largest value. Whole numbers that stay below its half are labels, which are
    all inside but 0.
    """
    values = np.asarray(values)
    largest = np.nanmax(values, initial=0)
    half = next((scale for scale in (1, 255) if largest <= scale), 65535) / 2
    return values > 0 if largest < half and (values == np.floor(values)).all() else values >= half


def resample(mask: np.ndarray, grid: int) -> np.ndarray:
    """Resizes masks [H, W] or [H, W, R] of any dtype to float32[grid, grid] or float32[grid, grid, R].

    Bilinear, half-pixel centres, no antialiasing: the same numbers as `torch.nn.functional.interpolate(mode="bilinear",
    align_corners=False, antialias=False)` in float32, to the bit on a grid that is a power of two, such as the published 64. On others
    PyTorch's own kernels differ from one another in the last bits.
    """
    top, bottom, down = _taps(mask.shape[0], grid)
    left, right, across = _taps(mask.shape[1], grid)
    trailing = (1,) * (mask.ndim - 2)
    corners = [
        mask[rows[:, None], columns[None, :]].astype(np.float32) for rows in (top, bottom) for columns in (left, right)
    ]
    return _blend(corners, down.reshape(grid, 1, *trailing), across.reshape(1, grid, *trailing))


def resample_rle(rle: RLE, grid: int) -> np.ndarray:
    """Returns `resample(decode(rle), grid)`, float32[grid, grid], without the dense mask.

    Raises ValueError: the encoding is unreadable.
    """
    return weights(corner_bits(rle, grid), rle.height, rle.width)


def corner_bits(rle: RLE, grid: int) -> np.ndarray:
    """Looks up the four pixels that each point of the grid is interpolated from.

    A pixel is inside if the run it falls into has an odd number, so the pixels are looked up among the ends of the runs.

    Returns:
      uint8[grid, grid]: bit 0 the upper left pixel, bit 1 the upper right, bit 2 the lower left, bit 3 the lower right one.

    Raises:
      ValueError: the encoding is unreadable.
    """
    ends = np.cumsum(rle.runs())
    top, bottom, _ = _taps(rle.height, grid)
    left, right, _ = _taps(rle.width, grid)
    bits = np.zeros((grid, grid), np.uint8)
    for place, (rows, columns) in enumerate(((top, left), (top, right), (bottom, left), (bottom, right))):
        runs = np.searchsorted(ends, columns[None, :] * rle.height + rows[:, None], side="right")
        bits |= (runs & 1).astype(np.uint8) << place
    return bits


def weights(bits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolates masks of height x width pixels from what `corner_bits` found: uint8[..., grid, grid] -> float32, the same shape."""
    grid = bits.shape[-1]
    corners = [(bits >> place & 1).astype(np.float32) for place in range(4)]
    return _blend(corners, _taps(height, grid)[2][:, None], _taps(width, grid)[2][None, :])


def box_mask(box: Sequence[float], height: int, width: int) -> np.ndarray:
    """Returns uint8[height, width], one where a pixel's centre lies in the box.

    box: (x1, y1, x2, y2) in pixels, x to the right and y down, the origin at the top left. One thinner than a pixel keeps the pixel it
    lies in, so that it never vanishes.

    Raises ValueError: the box has no area, is not finite or lies outside the picture.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    finite = all(map(math.isfinite, (x1, y1, x2, y2)))
    if not (finite and x1 < x2 and y1 < y2 and x1 < width and y1 < height and x2 > 0 and y2 > 0):
        raise ValueError(f"box {tuple(box)} is empty or outside a picture of {height}x{width} pixels")
    mask = np.zeros((height, width), np.uint8)
    mask[_pixels(y1, y2, height), _pixels(x1, x2, width)] = 1
    return mask


def _pixels(low: float, high: float, size: int) -> slice:
    first = max(0, int(np.ceil(low - 0.5)))
    last = min(size, int(np.ceil(high - 0.5)))
    if first >= last:
        first = min(size - 1, max(0, int(np.floor((low + high) / 2))))
        last = first + 1
    return slice(first, last)


@functools.lru_cache(maxsize=64)
def _taps(size: int, grid: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two source positions of each target position and the second one's weight.

    Rounded as PyTorch rounds (`area_pixel_compute_source_index` and `compute_source_index_and_lambda` in ATen/native/UpSample.h):
    float32 throughout, with scale * (i + 0.5) - 0.5 as one fused operation, which is the float64 result rounded once.
    """
    scale = np.float64(np.float32(size) / np.float32(grid))
    source = (scale * (np.arange(grid) + 0.5) - 0.5).astype(np.float32)
    source = np.maximum(source, np.float32(0))
    first = np.minimum(source.astype(np.int64), size - 1)
    weight = np.clip(source - first.astype(np.float32), 0, 1).astype(np.float32)
    return first, np.minimum(first + 1, size - 1), weight


def _blend(corners: Sequence[np.ndarray], down: np.ndarray, across: np.ndarray) -> np.ndarray:
    top_left, top_right, bottom_left, bottom_right = corners
    top = top_left * (1 - across) + top_right * across
    bottom = bottom_left * (1 - across) + bottom_right * across
    return top * (1 - down) + bottom * down
