"""Pictures with their regions drawn in, named as in the answers."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont

from smolrgpt_jax.data.images import Source, upright_rgb
from smolrgpt_jax.data.masks import RLE, decode, encode
from smolrgpt_jax.data.records import Picture, PreparedPicture, Question

# Okabe and Ito's colours for colour-blind readers, brightened a little for dark pictures; black and
# grey would vanish on a warehouse floor. More regions than colours start over.
_HEX = "ffb000 56b4e9 00be82 f5e642 3c78ff f06018 e178be aa6eff 00dcdc ff5a6e"
COLOURS = tuple(ImageColor.getrgb(f"#{colour}") for colour in _HEX.split())
_TALLEST = 4  # times the width asked for: a picture one pixel wide would fill the memory


def draw_regions(picture: Source, regions: Sequence[RLE], width: int | None = None) -> Image.Image:
    """Tints every region, outlines it, and labels it "Region i"; masks of another size are stretched over the upright picture.

    width: of the new RGB picture in pixels, less where it would be more than four times as high; None keeps the picture's.
    Raises ValueError where the picture or a mask is unreadable.
    """
    picture = upright_rgb(picture)
    if width is not None and picture.width != width:
        scale = min(width / picture.width, _TALLEST * width / picture.height)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    pixels = np.array(picture)
    masks = [Image.fromarray(decode(region) * np.uint8(255)) for region in regions]
    masks = [mask.resize(picture.size, Image.Resampling.NEAREST) for mask in masks]
    stroke = 1 + 2 * round(picture.width / 640)
    for index, mask in enumerate(masks):
        colour = np.asarray(colour_of(index), np.float32)
        inside = np.asarray(mask) > 0
        pixels[inside] = (0.62 * pixels[inside] + 0.38 * colour).round()
        core = np.asarray(mask.filter(ImageFilter.MinFilter(stroke if stroke > 1 else 3))) > 0
        pixels[inside & ~core] = colour_of(index)
    marked = Image.fromarray(pixels)
    _label(marked, masks)
    return marked


def draw_question(picture: Picture, question: Question, width: int | None = None) -> Image.Image:
    """Opens a picture, from its file or from prepared data, and draws a question's regions; see `draw_regions`.

    Raises ValueError where the picture or a mask cannot be read.
    """
    if not isinstance(picture, PreparedPicture):
        return draw_regions(picture.image, question.regions, width)
    # Imported where needed: TensorFlow Datasets takes seconds to import.
    from smolrgpt_jax.data.prepared.reader import load_stored

    stored = load_stored(picture)
    # Prepared masks are weights on a coarse grid.
    regions = [encode(stored.weights[region.number] >= 0.5) for region in question.regions]
    return draw_regions(Image.fromarray(stored.image), regions, width)


def jpeg_data_uri(picture: Image.Image, quality: int = 82) -> str:
    """Returns an RGB picture as text that stands for a file's address; of high quality, colours have all their pixels."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality, subsampling=0 if quality > 90 else -1)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def colour_of(index: int) -> tuple[int, int, int]:
    """Returns the colour of "Region index"."""
    return COLOURS[index % len(COLOURS)]


def _label(picture: Image.Image, masks: Sequence[Image.Image]) -> None:
    """Writes the names over the regions' middles, moved up or down where two would overlap."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(12, round(max(picture.size) / 46)))
    taken: list[tuple[float, float, float, float]] = []
    for index, mask in enumerate(masks):
        rows, columns = np.nonzero(np.asarray(mask))
        if rows.size == 0:
            continue
        text = f"Region {index}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        wide, high = right - left + 6, bottom - top + 6
        x = float(np.clip(columns.mean() - wide / 2, 0, max(0, picture.width - wide)))
        middle = float(rows.mean() - high / 2)
        heights = [middle + sign * step * (high + 1) for step in range(12) for sign in ((1, -1) if step else (1,))]
        inside = [y for y in heights if 0 <= y <= picture.height - high] or [0.0]
        beside = [(above, below) for before, above, after, below in taken if x < after and before < x + wide]
        free = (y for y in inside if all(y + high <= above or below <= y for above, below in beside))
        y = next(free, inside[0])
        taken.append((x, y, x + wide, y + high))
        draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=(18, 20, 24), outline=colour_of(index))
        draw.text((x + 3 - left, y + 3 - top), text, font=font, fill=(255, 255, 255))
