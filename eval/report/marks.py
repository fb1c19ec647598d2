"""Numbered marks on a picture, for models that are asked about regions by number: outlines around them, numbers beside them."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from eval.report.overlay import colour_of
from smolrgpt_jax.data.images import Source, upright_rgb
from smolrgpt_jax.data.masks import RLE, decode

_ROOMY = 9  # a region of so many times its number's area has the number inside
_STEPS = 6  # heights of a number that it is moved away at most

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two beyond it


def draw_marks(picture: Source, regions: Sequence[RLE]) -> Image.Image:
    """Outlines every region in its colour and writes its number there, both on a new RGB picture of the same size.

    What lies in a region stays as it is but for the number, which stands beside a small region and keeps clear of other
    numbers where it can. Masks of another size are stretched over the upright picture. Raises ValueError where the picture
    or a mask is unreadable.
    """
    marked = upright_rgb(picture).copy()
    masks = [Image.fromarray(decode(region) * np.uint8(255)) for region in regions]
    masks = [mask.resize(marked.size, Image.Resampling.NEAREST) for mask in masks]
    pixels = np.array(marked)
    stroke = 2 + round(max(marked.size) / 960)
    for index, mask in enumerate(masks):
        box = mask.getbbox()
        if box is not None:
            _outline(pixels, mask, box, stroke, colour_of(index))
    marked = Image.fromarray(pixels)
    _number(marked, masks)
    return marked


def _outline(pixels: np.ndarray, mask: Image.Image, box: Box, stroke: int, colour: tuple[int, int, int]) -> None:
    """Draws around a mask, on its inside where it touches the picture's edge."""
    wide, high = mask.size
    left, top, right, bottom = max(0, box[0] - stroke), max(0, box[1] - stroke), box[2] + stroke, box[3] + stroke
    part = mask.crop((left, top, min(right, wide), min(bottom, high)))
    inside = np.asarray(part) > 0
    ring = (np.asarray(part.filter(ImageFilter.MaxFilter(2 * stroke + 1))) > 0) & ~inside
    rows, columns = np.ogrid[top : top + inside.shape[0], left : left + inside.shape[1]]
    edge = (rows < stroke) | (rows >= high - stroke) | (columns < stroke) | (columns >= wide - stroke)
    pixels[top : top + inside.shape[0], left : left + inside.shape[1]][ring | (inside & edge)] = colour


def _number(picture: Image.Image, masks: Sequence[Image.Image]) -> None:
    """Writes the numbers where they hide least: of other numbers first, then of small regions."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(12, round(max(picture.size) / 48)))
    texts = [str(index) for index in range(len(masks))]
    bounds = [draw.textbbox((0, 0), text, font=font) for text in texts]
    sizes = [(round(right - left) + 6, round(bottom - top) + 6) for left, top, right, bottom in bounds]
    filled = [np.asarray(mask) > 0 for mask in masks]
    small = np.zeros(picture.size[::-1], bool)
    for inside, (wide, high) in zip(filled, sizes):
        if inside.sum() < _ROOMY * wide * high:
            small |= inside
    numbers = np.zeros_like(small)
    for index, (mask, inside) in enumerate(zip(masks, filled)):
        box = mask.getbbox()
        if box is None:
            continue
        wide, high = sizes[index]
        rows, columns = np.nonzero(inside[box[1] : box[3], box[0] : box[2]])
        middle = (box[0] + columns.mean(), box[1] + rows.mean())
        roomy = rows.size >= _ROOMY * wide * high
        places = _inside(middle, (wide, high)) if roomy else _beside(box, (wide, high))
        fitting = [
            (int(np.clip(x, 0, max(0, picture.width - wide))), int(np.clip(y, 0, max(0, picture.height - high))))
            for x, y in places
        ]

        def hidden(place: tuple[int, int]) -> int:
            under = slice(place[1], place[1] + high), slice(place[0], place[0] + wide)
            return 10 * int(numbers[under].sum()) + int(small[under].sum())

        x, y = min(fitting, key=hidden)  # the first of equals
        numbers[y : y + high, x : x + wide] = True
        draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=(18, 20, 24), outline=colour_of(index))
        draw.text((x + 3 - bounds[index][0], y + 3 - bounds[index][1]), texts[index], font=font, fill=(255, 255, 255))


def _inside(middle: tuple[float, float], size: tuple[int, int]) -> Iterator[tuple[float, float]]:
    """Upper left corners of a number on a region: its middle, then above and below that."""
    x, y = middle[0] - size[0] / 2, middle[1] - size[1] / 2
    yield x, y
    for step in range(1, _STEPS + 1):
        yield x, y + step * (size[1] + 1)
        yield x, y - step * (size[1] + 1)


def _beside(box: Box, size: tuple[int, int]) -> Iterator[tuple[float, float]]:
    """Upper left corners of a number beside a box: above, below, right and left of it, its corners, then farther away."""
    wide, high = size
    for step in range(_STEPS):
        gap = 4 + step * (high + 1)
        across = (box[0] + box[2] - wide) / 2
        along = (box[1] + box[3] - high) / 2
        columns, rows = (box[0] - gap - wide, across, box[2] + gap), (box[1] - gap - high, along, box[3] + gap)
        for column, row in ((1, 0), (1, 2), (2, 1), (0, 1), (0, 0), (2, 0), (0, 2), (2, 2)):
            yield columns[column], rows[row]
