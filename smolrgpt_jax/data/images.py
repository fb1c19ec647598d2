"""Picture files -> 8-bit arrays of the encoder's size, which prepared data stores too -> floats, by a table look-up."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from smolrgpt_jax.errors import DataError

DEPTH_MODES = ("training", "submission")

# Largest picture that is decoded, in pixels: a file of a few kilobytes can ask for all memory. Below the size at which Pillow begins
# to warn.
MOST_PIXELS = 80_000_000

# A file, or a picture that Pillow has opened already and whose caller closes it.
Source = str | Path | Image.Image

# The arithmetic of transformers' SigLIP processor: rescale by 1/255, then mean 0.5, std 0.5.
_UNIT = (np.arange(256) * (1 / 255)).astype(np.float32)
_SIGNED = (_UNIT - np.float32(0.5)) / np.float32(0.5)


def picture_size(path: Source) -> tuple[int, int]:
    """Returns (height, width) in pixels from the file's header; raises DataError as `open_picture`."""
    with _opened(path) as (picture, _):
        return picture.height, picture.width


def read_rgb(path: Source, size: int) -> np.ndarray:
    """Decodes a picture, squashed to a square with Pillow's bilinear (antialiased) filter: uint8[size, size, 3].

    Raises DataError: the file is missing, truncated, corrupt, has more than MOST_PIXELS or one channel with more than
    8 bits, which Pillow would clip to white. Of colours with 16 bits it takes the upper 8.
    """
    return _decode(path, _rgb, size, Image.Resampling.BILINEAR)


def read_depth(path: Source, size: int, mode: str = "training") -> np.ndarray:
    """Decodes an 8-bit depth picture (one channel, or three equal ones), squashed to a square: uint8[size, size].

    Near is dark, far is bright, scaled within each picture. Depth with 16 bits in one channel is refused: it holds metres or
    millimetres, not what the model was trained on. So are colours, which are someone's colour map.

    Mode "training" takes the nearest pixel, as the published model was trained; "submission" filters bilinearly, as the published
    challenge submission did.

    Raises:
      DataError: the file is missing, truncated, corrupt, too large, not 8-bit or not grey.
    """
    if mode not in DEPTH_MODES:
        raise ValueError(f"depth mode is {mode!r}, must be one of {DEPTH_MODES}")
    resampling = Image.Resampling.NEAREST if mode == "training" else Image.Resampling.BILINEAR
    return _decode(path, _grey, size, resampling)


def scale_rgb(pixels: np.ndarray) -> np.ndarray:
    """uint8[..., 3] in 0..255 -> float32[..., 3] in [-1, 1]."""
    return _SIGNED[pixels]


def scale_depth(pixels: np.ndarray, mode: str = "training") -> np.ndarray:
    """uint8[H, W] -> float32[H, W, 3], three equal channels in [0, 1] ("training") or [-1, 1] ("submission")."""
    table = _UNIT if mode == "training" else _SIGNED
    return np.repeat(table[pixels][..., None], 3, axis=-1)


def load_rgb(path: Source, size: int) -> np.ndarray:
    """Returns the picture as float32[size, size, 3] in [-1, 1]; see `read_rgb`."""
    return scale_rgb(read_rgb(path, size))


def load_depth(path: Source, size: int, mode: str = "training") -> np.ndarray:
    """Returns float32[size, size, 3] in [0, 1] ("training") or [-1, 1]; see `read_depth`."""
    return scale_depth(read_depth(path, size, mode), mode)


def open_picture(path: str | Path | BinaryIO, name: str | Path | None = None) -> Image.Image:
    """Reads a picture's header; its pixels are decoded on first use.

    path: the file, or its content; name: what messages call it, by default the path. Raises DataError if the file is missing, is not a
    picture or has more than MOST_PIXELS.
    """
    name = path if name is None else name
    too_large = DataError(f"picture {name} has more than {MOST_PIXELS:,} pixels, the most that is decoded")
    # A process-wide switch of Pillow that other libraries turn on: grey halves of truncated pictures would be trained on without a
    # word.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        picture = Image.open(path)
    except FileNotFoundError as error:
        raise DataError(f"picture {name} is missing") from error
    except Image.DecompressionBombError as error:
        raise too_large from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"picture {name} is not a picture file ({_one_line(error)})") from error
    if picture.width * picture.height > MOST_PIXELS:
        picture.close()
        raise too_large
    # What later messages about its pixels call it.
    picture.filename = str(name)
    return picture


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[tuple[Image.Image, str]]:
    """The picture and what messages call it."""
    if isinstance(source, Image.Image):
        yield source, getattr(source, "filename", None) or "in memory"
    else:
        with open_picture(source) as picture:
            yield picture, str(source)


def _decode(
    source: Source, convert: Callable[[Image.Image, str], Image.Image], size: int, resampling: Image.Resampling
) -> np.ndarray:
    with _opened(source) as (picture, name):
        try:
            picture = convert(picture, name)
        except DataError:
            raise
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"picture {name} is truncated or corrupt ({_one_line(error)})") from error
    if picture.size != (size, size):
        picture = picture.resize((size, size), resampling)
    return np.array(picture)


def _rgb(picture: Image.Image, path: str) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        raise DataError(f"picture {path} is of mode {picture.mode}, expected 8 bits per channel")
    return picture.convert("RGB")


def _grey(picture: Image.Image, path: str) -> Image.Image:
    if picture.mode in ("1", "L", "LA"):
        return picture.convert("L")
    if picture.mode not in ("P", "RGB", "RGBA"):
        raise DataError(f"depth picture {path} is of mode {picture.mode}, expected 8-bit grey")
    red, *others = picture.convert("RGB").split()
    if any(channel.tobytes() != red.tobytes() for channel in others):
        raise DataError(f"depth picture {path} is coloured, expected grey")
    return red


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
