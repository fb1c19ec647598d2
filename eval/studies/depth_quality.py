"""Depth made worse in steps: coarser, noisy, blurred, on another scale, turned round, not there, estimated by a model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from eval.assist.estimated_depth import DepthModel, distances
from eval.side_questions import GREY
from smolrgpt_jax.data.images import picture_size, upright_depth

# A picture's file, that of its depth, what is drawn of -> the depth in its place, of any size.
DepthChange = Callable[[Path, Path, np.random.Generator], Image.Image]

# How many times as far as the nearest point the farthest is: nearly all procedural scenes lie between the two.
RATIOS = (2, 11)


def grey_depth(picture: Path, depth: Path, rng: np.random.Generator) -> Image.Image:
    """One distance all over: no depth at all."""
    return Image.new("L", picture_size(depth)[::-1], GREY)


def inverted(picture: Path, depth: Path, rng: np.random.Generator) -> Image.Image:
    """Near is bright, as models of relative depth write it."""
    return Image.fromarray(255 - _exact(picture, depth))


def quantised(levels: int) -> DepthChange:
    """So many greys from 0 to 255, at equal steps."""

    def change(picture: Path, depth: Path, rng: np.random.Generator) -> Image.Image:
        step = 255 / (levels - 1)
        return _of(np.round(_exact(picture, depth) / step) * step)

    return change


def noisy(deviation: float) -> DepthChange:
    """Gaussian noise of each pixel, in steps of the 8 bits; the same draws for every deviation."""

    def change(picture: Path, depth: Path, rng: np.random.Generator) -> Image.Image:
        exact = _exact(picture, depth)
        return _of(exact + deviation * rng.standard_normal(exact.shape))

    return change


def blurred(share: float) -> DepthChange:
    """Gaussian blur, its deviation as a share of the longer side."""

    def change(picture: Path, depth: Path, rng: np.random.Generator) -> Image.Image:
        exact = upright_depth(depth, beside=picture)
        return exact.filter(ImageFilter.GaussianBlur(share * max(exact.size)))

    return change


def from_inverse(ratio: float) -> DepthChange:
    """What `distances` makes of exact inverse depth, where the farthest point is so many times as far as the nearest.

    So much is left of a model of relative depth that errs nowhere. The ratio does not stand in a depth picture of 8 bits.
    """

    def change(picture: Path, depth: Path, rng: np.random.Generator) -> Image.Image:
        return upright_depth(distances(1 / (1 + _exact(picture, depth) / 255 * (ratio - 1)), inverse=True))

    return change


def estimated(model: DepthModel) -> DepthChange:
    """A model's estimate of the picture's depth."""
    return lambda picture, depth, rng: upright_depth(model.estimate(picture))


def _exact(picture: Path, depth: Path) -> np.ndarray:
    """uint8[H, W]."""
    return np.asarray(upright_depth(depth, beside=picture))


def _of(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(values).clip(0, 255).astype(np.uint8))


STEPS: dict[str, DepthChange] = {
    **{f"{levels} levels": quantised(levels) for levels in (64, 16, 4)},
    **{f"noise of {deviation}": noisy(deviation) for deviation in (4, 16, 64)},
    **{f"blur of {percent} percent": blurred(percent / 100) for percent in (1, 4)},
    **{f"inverse of {ratio} to 1": from_inverse(ratio) for ratio in RATIOS},
    "near is bright": inverted,
    "none": grey_depth,
}
