"""Picture files -> upright 8-bit arrays of the encoder's size, which prepared data stores too -> floats, by a table look-up.

A copy of this file lies in every exported folder. What it takes and refuses: docs/inputs.md.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from smolrgpt_jax.data.masks import inside
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import stand_in

DEPTH_MODES = ("training", "submission")

# Largest picture that is decoded, in pixels: a file of a few kilobytes can ask for all memory. Below the size at which Pillow begins
# to warn, in words that say less.
MOST_PIXELS = 80_000_000
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Palette images with Transparency")
# Render tools write their scene into a PNG as text; Pillow alone takes 1 MB of it.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 * 2**20

# A file; a picture that Pillow has opened already and whose caller closes it; uint8[H, W, 3] or, of depth and masks, numbers [H, W].
Source = str | Path | Image.Image | np.ndarray

# What sets EXIF's orientations from 2 on upright; from 5 on they lie on their side.
_TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90".split()
_DEEP = ("I", "F")  # beginnings of the modes with one channel of more than 8 bits
_doubted: set[tuple[Path, str]] = set()  # what was warned about

# The arithmetic of transformers' SigLIP processor: rescale by 1/255, then mean 0.5, std 0.5.
_UNIT = (np.arange(256) * (1 / 255)).astype(np.float32)
_SIGNED = (_UNIT - np.float32(0.5)) / np.float32(0.5)


def picture_size(path: Source) -> tuple[int, int]:
    """Returns (height, width) in pixels of the upright picture from the file's header; raises DataError as `open_picture`."""
    with _opened(path) as (picture, _):
        return picture.size if _orientation(picture) > 4 else picture.size[::-1]


def upright_rgb(path: Source) -> Image.Image:
    """Decodes a picture of any size as viewers show it, turned as its EXIF orientation says; of 16-bit colours the upper 8 bits.

    Raises DataError as `open_picture`; or it is truncated, corrupt, or of one channel of more than 8 bits, which Pillow would clip.
    """
    return _decode(path, _rgb)


def upright_depth(path: Source, beside: Source | None = None) -> Image.Image:
    """Decodes a depth picture of any size to 8-bit grey (mode "L"): near is dark, far is bright, scaled within the picture.

    8 bits are taken as they are; for more, such as a camera's millimetres, see `_measured`. beside: the picture it is the depth of.
    Where that lay on its side and the depth fits only what it was then, the depth is turned with it. A depth of another shape is
    logged, once for each folder and size. Raises DataError as `upright_rgb`; or it is coloured, or holds no measurement.
    """
    depth = _decode(path, _grey)
    if beside is not None:
        with _opened(beside) as (picture, _):
            size, orientation = picture_size(picture)[::-1], picture.info.get("turned") or _orientation(picture)
        doubt = other_view(depth.size, size)
        if doubt and orientation > 4 and not other_view(depth.size, size[::-1]):
            return depth.transpose(Image.Transpose[_TURNS[orientation - 2]])
        name = path if isinstance(path, str | Path) else "in memory"
        if doubt and (Path(name).parent, doubt) not in _doubted:
            _doubted.add((Path(name).parent, doubt))
            logging.getLogger(__name__).warning("depth picture %s: %s", name, doubt)
    return depth


def stored_depth(path: Source) -> np.ndarray:
    """A depth picture's own numbers [H, W], upright: uint8 of grey, else whole numbers or floats; raises DataError as `upright_depth`."""

    def kept(picture: Image.Image, name: str) -> Image.Image:
        return picture if picture.mode.startswith(_DEEP) else _grey(picture, name)

    return np.asarray(_decode(path, kept))


def other_view(depth: tuple[int, int], picture: tuple[int, int]) -> str:
    """A sentence where the sizes (width, height) of a depth and its picture differ in shape, else ""."""
    (width, height), (wide, high) = depth, picture
    # Half a pixel of either side is rounding; a few hundredths are the odd modes of cameras.
    if abs(width * high - height * wide) <= max((wide + high) / 2, 0.03 * height * wide):
        return ""
    return "the depth is {}x{} pixels, its picture {}x{}: are they of the same view?".format(*depth, *picture)


def read_mask(path: Source) -> np.ndarray:
    """Which pixels of a mask are `inside`, bool[H, W]: the opaque or, without transparency, the bright ones; DataError as above."""
    return inside(np.asarray(_decode(path, _mask)))


def read_rgb(path: Source, size: int) -> np.ndarray:
    """`upright_rgb` squashed to a square with Pillow's bilinear (antialiased) filter: uint8[size, size, 3]."""
    return np.array(upright_rgb(path).resize((size, size), Image.Resampling.BILINEAR))


def read_depth(path: Source, size: int, mode: str = "training", beside: Source | None = None) -> np.ndarray:
    """`upright_depth` squashed to a square: uint8[size, size].

    Mode "training" takes the nearest pixel, as the published model was trained; "submission" filters bilinearly, as the published
    challenge submission did.
    """
    if mode not in DEPTH_MODES:
        raise ValueError(f"depth mode is {mode!r}, must be one of {DEPTH_MODES}")
    resampling = Image.Resampling.NEAREST if mode == "training" else Image.Resampling.BILINEAR
    return np.array(upright_depth(path, beside).resize((size, size), resampling))


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


def load_depth(path: Source, size: int, mode: str = "training", beside: Source | None = None) -> np.ndarray:
    """Returns float32[size, size, 3] in [0, 1] ("training") or [-1, 1]; see `read_depth`."""
    return scale_depth(read_depth(path, size, mode, beside), mode)


def depth_to_grey(depth: np.ndarray) -> np.ndarray:
    """Depth float[H, W] of any unit as data sets store it, uint8[H, W]: near dark, far bright, scaled from the least to the most."""
    finite = depth[np.isfinite(depth)]
    low, high = float(finite.min()), float(finite.max())
    return np.round((depth - low) * (255.0 / max(high - low, 1e-9))).clip(0, 255).astype(np.uint8)


def open_picture(path: str | Path | BinaryIO, name: object = None) -> Image.Image:
    """Reads a picture's header; its pixels are decoded on first use.

    path: the file, or its content; name: what messages call it, by default the path. Raises DataError if the file is missing, is not a
    picture, or PostScript, or has more than MOST_PIXELS.
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
    except UnidentifiedImageError as error:
        what = stand_in(path) or "not a picture file"
        raise DataError(f"picture {name} is {'an empty file' if what == 'empty' else what}") from error
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None)
        wrong = f"cannot be read ({reason})" if reason else f"is not a picture file ({_one_line(error)})"
        raise DataError(f"picture {name} {wrong}") from error
    if picture.format == "EPS":  # which Pillow has Ghostscript run, through files on disk
        picture.close()
        raise DataError(f"picture {name} is PostScript, a program that is not run: save it as PNG")
    if picture.width * picture.height > MOST_PIXELS:
        picture.close()
        raise too_large
    # What later messages about its pixels call it.
    picture.filename = str(name)
    return picture


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[tuple[Image.Image, str]]:
    """The picture and what messages call it."""
    if isinstance(source, np.ndarray):
        kind, shape = source.dtype, source.shape
        try:
            kept = kind if kind == np.uint8 else np.float32 if kind.kind == "f" else np.int32
            source = Image.fromarray(source.astype(kept))
        except (TypeError, ValueError) as error:
            wanted = "uint8[H, W, 3] or, of depth and masks, numbers [H, W]"
            raise DataError(f"an array {kind}{list(shape)} is no picture, expected {wanted}") from error
    if isinstance(source, Image.Image):
        yield source, getattr(source, "filename", None) or "in memory"
    else:
        with open_picture(source) as picture:
            yield picture, str(source)


def _decode(source: Source, convert: Callable[[Image.Image, str], Image.Image]) -> Image.Image:
    """The upright picture as `convert` makes it of that and its name."""
    with _opened(source) as (picture, name):
        orientation = _orientation(picture)
        try:
            picture.load()
            if orientation > 1:
                kept: dict[Any, Any] = {key: value for key, value in picture.info.items() if key == "transparency"}
                picture = picture.transpose(Image.Transpose[_TURNS[orientation - 2]])
                # Without the EXIF block, by which it would be turned again.
                picture.info = kept | {"turned": orientation}
            return convert(picture, name)
        except DataError:
            raise
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"picture {name} is truncated or corrupt ({_one_line(error)})") from error


def _orientation(picture: Image.Image) -> int:
    """EXIF's, by the header alone; 1, upright, where there is none or none that can be read."""
    try:
        # Not by the PNG reader's own method, which decodes the pixels to look behind them. TIFFs are turned by Pillow.
        found = 1 if picture.format == "TIFF" else Image.Image.getexif(picture).get(ExifTags.Base.Orientation)
    except Exception:  # of many classes: nobody checks these blocks when writing them
        return 1
    return found if isinstance(found, int) and found in range(2, 9) else 1


def _rgb(picture: Image.Image, path: str) -> Image.Image:
    if picture.mode.startswith(_DEEP):
        raise DataError(f"picture {path} is of mode {picture.mode}, expected 8 bits per channel")
    return picture.convert("RGB")


def _mask(picture: Image.Image, path: str) -> Image.Image:
    if picture.mode.startswith(_DEEP):
        return picture
    if picture.has_transparency_data:
        alpha = picture.convert("RGBA").getchannel("A")
        least, most = np.asarray(alpha).min(), np.asarray(alpha).max()
        if most == 0 or least < most:  # one opacity all over, as of an overlay, tells nothing
            return alpha
    # The brightest channel, so that a region may have any colour.
    return Image.fromarray(np.asarray(picture.convert("RGB")).max(axis=-1))


def _grey(picture: Image.Image, path: str) -> Image.Image:
    if picture.mode in ("1", "L", "LA"):
        return picture.convert("L")
    if picture.mode.startswith(_DEEP):
        return Image.fromarray(_measured(np.asarray(picture), path))
    if picture.mode not in ("P", "RGB", "RGBA"):
        raise DataError(f"depth picture {path} is of mode {picture.mode}, expected grey")
    red, *others = picture.convert("RGB").split()
    if any(channel.tobytes() != red.tobytes() for channel in others):
        raise DataError(f"depth picture {path} is coloured, expected grey")
    return red


def _measured(depth: np.ndarray, path: str) -> np.ndarray:
    """Depth of a camera [H, W] in any unit -> uint8[H, W], from 0, the nearest measurement, to 255, the farthest.

    0, less and NaN are no measurements: such a pixel takes the value to its left, or else the first of its row, or else of the rows
    above. 65535 and infinity are beyond the camera's reach: 255.
    """
    depth = np.where(depth == 65535, np.inf, depth).astype(np.float32)
    known = np.greater(depth, 0)
    if not (known & np.isfinite(depth)).any():
        raise DataError(f"depth picture {path} holds no measurement")
    return depth_to_grey(np.take_along_axis(depth, _last(known), axis=1)[_last(known.any(axis=1))])


def _last(known: np.ndarray) -> np.ndarray:
    """Where the nearest known place at or before each place of the last axis is, or else the first one."""
    places = np.where(known, np.arange(known.shape[-1]), known.argmax(axis=-1)[..., None])
    return np.maximum.accumulate(places, axis=-1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
