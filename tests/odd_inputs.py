"""What people feed the system, by its line in docs/inputs.md, which says what comes of it.

Every entry changes a picture, its depth or its region in some way. What is read is read as if it had not.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from pycocotools import mask as coco

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 91\n"
HEIGHT, WIDTH = 48, 64
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
RGB, DEPTH = PIXELS[..., :3], PIXELS[..., 3]
DEPTH[:4, :8], DEPTH[4, 0] = 255, 0
DEPTH[:, 2::4] = DEPTH[:, 1::4]  # the columns that a picture of 16 pixels keeps: `with_holes` takes them out
X1, Y1, X2, Y2 = 8, 12, 24, 30
REGION = np.zeros((HEIGHT, WIDTH), np.uint8)
REGION[Y1:Y2, X1:X2] = 1
COUNTS = coco.encode(np.asfortranarray(REGION))["counts"].decode()
RUNS = [X1 * HEIGHT + Y1, *[Y2 - Y1, HEIGHT - (Y2 - Y1)] * (X2 - X1 - 1), Y2 - Y1, (WIDTH - X2) * HEIGHT + HEIGHT - Y2]
RLE = {"size": [HEIGHT, WIDTH], "counts": COUNTS}


def rectangle(x1, y1, x2, y2):
    return [x1, y1, x2, y1, x2, y2, x1, y2]


@dataclass
class Given:
    """A picture with one region, in a folder of its own; `masks`: the region as JSON, for a record or a file."""

    folder: Path
    region: np.ndarray = field(default_factory=lambda: REGION)  # what is expected of it
    masks: object = field(default_factory=lambda: [RLE])
    pictures: list[Path] = field(default_factory=list)
    boxes: list | None = None
    encoding: str = "utf-8"  # of JSON files

    def __post_init__(self):
        self.image, self.depth = self.folder / "image.png", self.folder / "depth.png"
        Image.fromarray(RGB).save(self.image)
        Image.fromarray(DEPTH).save(self.depth)

    def json(self, name, value):
        (self.folder / name).write_bytes(json.dumps(value).encode(self.encoding))
        return self.folder / name


def turned(file: Path, turn: Image.Transpose, orientation: int | None) -> None:
    """Rewrites a picture as a camera on its side stores it, without a word about it if `orientation` is None."""
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    with Image.open(file) as picture:
        picture.transpose(turn).save(file, exif=exif)


def on_its_side(given: Given, depth: int | None) -> None:
    turned(given.image, Image.Transpose.ROTATE_90, 6)
    turned(given.depth, Image.Transpose.ROTATE_90, depth)


def beside_upright_depth(given: Given) -> None:
    on_its_side(given, 6)
    save_depth(given, DEPTH)


def text_chunk(given: Given) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("scene", "pallet " * 500_000, zip=True)
    Image.fromarray(RGB).save(given.image, pnginfo=text)


def bomb(file: Path) -> None:
    """A PNG of some bytes that says it has 400 million pixels."""
    fields = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + fields + struct.pack(">I", zlib.crc32(fields))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 2**31 - 1) + b"IDAT")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:2000])


def save_depth(given: Given, depth: np.ndarray) -> None:
    """A depth of any numbers; the file's content tells its format, not its name."""
    stream = io.BytesIO()
    Image.fromarray(depth).save(stream, "TIFF" if depth.dtype == np.float32 else "PNG")
    given.depth.write_bytes(stream.getvalue())


def with_holes(depth: np.ndarray, *holes: float) -> np.ndarray:
    """Gaps where the pixel before has the same depth, as neighbours mostly have."""
    depth, same = depth.copy(), DEPTH[:, 1:] == DEPTH[:, :-1]
    depth[:, 1:][same] = np.resize(holes, np.count_nonzero(same))
    return depth


MILLIMETRES = DEPTH.astype(np.uint16) * 40 + 500
TOO_FAR = np.where(DEPTH == 255, 65535, MILLIMETRES).astype(np.uint16)
TOO_FAR[np.unravel_index(np.argmax(DEPTH), DEPTH.shape)] = MILLIMETRES.max()
METRES = (DEPTH / 16 + 0.5).astype(np.float32)

PICTURES = {
    "a picture that EXIF turns, its depth as viewers show the picture": beside_upright_depth,
    "both turned by EXIF": lambda g: on_its_side(g, 6),
    "a picture that EXIF turns by a quarter, its depth as the sensor stores it": lambda g: on_its_side(g, None),
    "a PNG with up to 64 MB of text, as render tools write": text_chunk,
    "an empty file": lambda g: g.image.write_bytes(b""),
    "a text, or a format that Pillow does not know": lambda g: g.image.write_text("no picture"),
    "PostScript (EPS), which is a program": lambda g: Image.fromarray(RGB).save(g.image, "EPS"),
    "what a download left in place of a picture, such as a Git LFS pointer": lambda g: g.image.write_bytes(POINTER),
    "a file that is not there": lambda g: g.image.unlink(),
    "a picture cut short": lambda g: cut(g.image),
    "a decompression bomb": lambda g: bomb(g.image),
    "a picture of one channel with 16 bits or floats": lambda g: Image.fromarray(MILLIMETRES).save(g.image),
    "depth of 8 bits in one channel or three equal ones": lambda g: save_depth(g, DEPTH[..., None].repeat(3, axis=2)),
    "depth of 16 bits, as depth cameras write millimetres": lambda g: save_depth(g, MILLIMETRES),
    "depth in floats (TIFF), of any unit": lambda g: save_depth(g, METRES),
    "0, negative or NaN in such depth: no measurement": lambda g: save_depth(
        g, with_holes(METRES, 0, -2.5, np.nan, -np.inf)
    ),
    "65535 or infinity in such depth: too far": lambda g: save_depth(g, TOO_FAR),
    "depth without any measurement": lambda g: save_depth(g, 0 * MILLIMETRES),
    "depth in colours, which is a colour map": lambda g: save_depth(g, RGB),
    "depth cut short": lambda g: cut(g.depth),
    "depth of another shape than its picture": lambda g: save_depth(g, np.repeat(DEPTH, 2, axis=0)),
}


def coded(masks: object) -> Callable[[Given], None]:
    return lambda given: setattr(given, "masks", masks)


def annotation(**fields) -> Callable[[Given], None]:
    return coded([{"id": 1, "image_id": 7, "category_id": 1, **fields}])


POLYGON = [rectangle(X1, Y1, X2, Y2)]
HALVES = [rectangle(X1, Y1, 16, Y2), rectangle(15, Y1, X2, Y2)]
MASKS = {
    "`{size, counts}` of COCO, compressed": coded([RLE]),
    "the same with the list of run lengths": coded([RLE | {"counts": RUNS}]),
    "sizes written as floats": coded([RLE | {"size": [float(HEIGHT), float(WIDTH)]}]),
    "sizes written as text": coded([RLE | {"size": [str(HEIGHT), str(WIDTH)]}]),
    "one mask instead of a list": coded(RLE),
    "polygons `[[x, y, x, y, ...], ...]`, several of one region": coded([HALVES]),
    "an annotation of COCO with polygons": annotation(segmentation=POLYGON, bbox=[0, 0, 1, 1], iscrowd=0),
    "an annotation of COCO with run lengths (iscrowd)": annotation(segmentation=RLE | {"counts": RUNS}, iscrowd=1),
    "an annotation of COCO with a box alone": annotation(bbox=[X1, Y1, X2 - X1, Y2 - Y1], segmentation=[]),
    "JSON with a byte order mark (Notepad)": lambda g: setattr(g, "encoding", "utf-8-sig"),
    "JSON in UTF-16 (Notepad, PowerShell)": lambda g: setattr(g, "encoding", "utf-16"),
    "a mask of another size than its upright picture": coded([RLE | {"size": [WIDTH, HEIGHT]}]),
    "counts of another size": coded([RLE | {"counts": RUNS[:-2]}]),
    "characters that are no counts": coded([RLE | {"counts": "\x7f"}]),
    "sizes that are no whole numbers": coded([RLE | {"size": [47.5, WIDTH]}]),
    "a polygon of two points": coded([[[1, 2, 3, 4]]]),
}

ANNOTATIONS = {
    "images": [{"id": 7, "file_name": "images/image.png"}, {"id": 8, "file_name": "other.png"}],
    "annotations": [{"image_id": 8, "segmentation": [[0, 0, 1, 0, 1, 1]]}, {"image_id": 7, "segmentation": POLYGON}],
}
OTHERS = ANNOTATIONS | {"images": ANNOTATIONS["images"][1:]}
WINDOWS = ANNOTATIONS | {"images": [{"id": 7, "file_name": "images\\image.png"}]}
TWO = ANNOTATIONS | {"images": [{"id": number, "file_name": f"{number}/image.png"} for number in (7, 8)]}
MASK_FILES = {
    "an annotation file of COCO about many pictures": coded(ANNOTATIONS),
    "one with the separators of Windows": coded(WINDOWS),
    "one that does not know the picture": coded(OTHERS),
    "one that knows two pictures of the name": coded(TWO),
}


def drawn(pixels: np.ndarray, mode: str | None = None, **saved) -> Callable[[Given], None]:
    def change(given: Given) -> None:
        given.pictures = [given.folder / "mask.png"]
        picture = Image.fromarray(pixels)
        if mode == "P":
            picture.putpalette([255, 255, 255, 200, 0, 0])
        picture.save(given.pictures[0], **saved)

    return change


def cut_mask(given: Given) -> None:
    drawn(PIXELS[..., 0])(given)
    cut(given.pictures[0])


CUT_OUT = np.dstack([RGB, 255 * REGION])
SOFT = np.where(REGION, 128, 127).astype(np.uint8)
SOFT[Y1 + 1 : Y2 - 1, X1 + 1 : X2 - 1] = 255
TURNED = np.ascontiguousarray(np.rot90(REGION))
MASK_PICTURES = {
    "black outside, of any other colour inside": drawn(REGION[..., None] * np.uint8([180, 0, 0])),
    "0 outside, 1 inside, of 8 or 16 bits": drawn(REGION.astype(np.uint16)),
    "transparent outside, opaque inside": drawn(CUT_OUT),
    "a palette's transparent colour outside": drawn(REGION, "P", transparency=0),
    "all of one opacity, as an overlay is": drawn(np.dstack([255 * REGION] * 3 + [0 * REGION + 100])),
    "a soft mask, or a soft edge": drawn(SOFT),
    "all black, or all transparent": drawn(0 * CUT_OUT),
    "a mask picture of another size": drawn(TURNED),
    "a mask picture cut short": cut_mask,
}


def boxed(*box) -> Callable[[Given], None]:
    def change(given: Given) -> None:
        given.boxes, given.region = [list(box)], np.zeros_like(REGION)
        given.region[box[1] : box[3], max(0, box[0]) : box[2]] = 1

    return change


BOXES = {
    "a box `x1,y1,x2,y2` in pixels of the upright picture": boxed(X1, Y1, X2, Y2),
    "a box over the edge, also `--boxes -3,12,24,30`": boxed(-3, Y1, X2, Y2),
    "a box of two lefts or two tops": boxed(5, 5, 5, 9),
    "a box outside of the picture": boxed(64, 5, 70, 9),
}

TABLES = {
    "Pictures and depth": PICTURES,
    "Masks in records and JSON files": MASKS,
    "Annotation files of COCO for `--masks`": MASK_FILES,
    "Mask pictures": MASK_PICTURES,
    "Boxes": BOXES,
}
