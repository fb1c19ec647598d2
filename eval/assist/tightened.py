"""Boxes -> tight masks without any weights: GrabCut (Rother et al. 2004) of OpenCV, which tells colours inside from those around."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from smolrgpt_jax.data.images import Source, upright_rgb
from smolrgpt_jax.data.masks import RLE, decode, encode

MARGIN = 0.3  # of the box's sides, around it: where the other colours are learned from
CORE = 0.15  # radius, in the box's sides, of the ellipse that is surely inside
LEAST = 0.3  # of the box: where less is found, nothing is
_ROUNDS = 5
_LONGEST = 192  # pixels of the longer side of what is cut, box and margin: bounds the time to some tenths of a second


def tighten(picture: Source, boxes: Sequence[RLE]) -> tuple[RLE, ...]:
    """The masks of what the boxes of an upright picture hold, each within its box; the box itself where nothing is found.

    The same masks every time. Depth is not looked at, with which masks were no better. Raises DataError for a picture that cannot be
    read, ImportError without OpenCV.
    """
    cv2, rgb = opencv(), np.asarray(upright_rgb(picture))
    return tuple(_tighten(cv2, rgb, box) for box in boxes)


def least_box(region: RLE) -> RLE:
    """The least box that holds a region; a region without any pixel stays so."""
    mask = decode(region)
    mask[extent(mask.any(axis=1)), extent(mask.any(axis=0))] = 1
    return encode(mask)


def extent(occupied: np.ndarray) -> slice:
    """From the first to the last that is occupied, bool[N]; 0 to 0 where none is."""
    places = np.flatnonzero(occupied)
    return slice(places[0], places[-1] + 1) if places.size else slice(0, 0)


def _tighten(cv2: ModuleType, rgb: np.ndarray, region: RLE) -> RLE:
    mask = decode(region)
    if not mask.any():
        return region
    around = tuple(_with_margin(extent(mask.any(axis=1 - axis)), side) for axis, side in enumerate(mask.shape))
    crop, box = rgb[around], mask[around]
    scale = min(1, _LONGEST / max(box.shape))
    size = tuple(max(1, round(scale * side)) for side in box.shape[::-1])
    trimap = np.where(cv2.resize(box, size, interpolation=cv2.INTER_AREA), cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    rows, columns = np.mgrid[: size[1], : size[0]]
    inside = np.nonzero(trimap)
    off = [
        (2 * axis - axis[inside].min() - axis[inside].max()) / 2 / (np.ptp(axis[inside]) + 1)
        for axis in (rows, columns)
    ]
    trimap[off[0] ** 2 + off[1] ** 2 <= CORE**2] = cv2.GC_FGD
    threads = cv2.getNumThreads()
    try:
        # The colours' first groups are drawn at random; threads would make no other result, and take others' cores.
        cv2.setNumThreads(1)
        cv2.setRNGSeed(0)
        small, models = cv2.resize(crop, size, interpolation=cv2.INTER_AREA), (np.zeros((1, 65)), np.zeros((1, 65)))
        cv2.grabCut(small, trimap, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # too few pixels for its groups of colours, or none around the box
        return region
    finally:
        cv2.setNumThreads(threads)
    found = np.uint8(255) * (trimap & 1)  # GC_FGD and GC_PR_FGD are the odd ones
    tight = (cv2.resize(found, box.shape[::-1], interpolation=cv2.INTER_LINEAR) >= 128) & (box > 0)
    if tight.sum() < LEAST * box.sum():
        return region
    mask[around] = tight
    return encode(mask)


def _with_margin(box: slice, size: int) -> slice:
    """The pixels of a box along one side, with MARGIN and at least two more, within the picture."""
    margin = 2 + round(MARGIN * (box.stop - box.start))
    return slice(max(0, box.start - margin), min(size, box.stop + margin))


def opencv() -> ModuleType:
    """The package cv2; raises ImportError where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f"tightening boxes needs the package {error.name}: pip install -e '.[assist]'") from error
    return cv2
