"""Regions as people give them -> RLEs: masks in every form that COCO writes, mask pictures, arrays, boxes, and what names them.

A copy of this file lies in every exported folder. What it takes and refuses: docs/inputs.md.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from smolrgpt_jax.data.images import picture_size, read_mask
from smolrgpt_jax.data.masks import IMAGE, MASK, RLE, box_mask, encode, encode_polygon, union
from smolrgpt_jax.data.records import Question, check_question
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json

MaskLike = Mapping[str, Any] | RLE | str | Path | Image.Image | np.ndarray
Size = tuple[int, int]  # (height, width) of the upright picture


def read_masks(masks: Any, size: Size, known: dict[RLE, RLE] | None = None, pictures: bool = False) -> tuple[RLE, ...]:
    """One mask, or a list of them, or None -> RLEs of a picture of that size.

    A mask is one of: {size, counts}, the counts as text, as bytes or as the list of run lengths; polygons [[x, y, x, y, ...], ...];
    an annotation of COCO, {segmentation: either of them}, or {bbox: [x, y, width, height]} where it has none. A region without any
    pixel weighs nothing. Raises DataError naming the mask that is unreadable or of another size.

    known: the RLEs read so far; equal ones share one object, and only new ones are checked. pictures: whether a mask may be a
    picture or an array, see `images.read_mask`, which must mark a pixel. An iterator's pictures are decoded one at a time.
    """
    alone = Mapping | RLE | str | Path | Image.Image if pictures else Mapping | RLE
    if isinstance(masks, alone) or isinstance(masks, np.ndarray) and masks.ndim == 2:
        masks = [masks]
    if not isinstance(masks, list | tuple | np.ndarray | Iterator | None):
        raise DataError("the masks are not a list")
    known, regions = {} if known is None else known, []
    for index, mask in enumerate(() if masks is None else masks):
        drawn = pictures and not isinstance(mask, Mapping | list | RLE)
        name = f"mask {mask if drawn and isinstance(mask, str | Path) else index}"
        try:
            if drawn:
                pixels = read_mask(mask)
                if not pixels.any():
                    raise DataError(f"{name} marks no pixel")
                mask = encode(pixels)
            region = mask if isinstance(mask, RLE) else _coded(mask, size)
            if region not in known:
                region.runs()
        except DataError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
            forms = "expected {size, counts}, polygons or an annotation of COCO"
            raise DataError(f"{name} is unreadable: {error if type(error) is ValueError else forms}") from error
        if (region.height, region.width) != tuple(size):
            found = f"{name} is {region.width}x{region.height} pixels (width x height)"
            raise DataError(f"{found} but the upright picture is {size[1]}x{size[0]}")
        regions.append(known.setdefault(region, region))
    return tuple(regions)


def read_boxes(boxes: object, size: Size) -> tuple[RLE, ...]:
    """[[x1, y1, x2, y2], ...] or None, see `masks.box_mask` -> RLEs; raises DataError naming the box that is empty or outside."""
    if not isinstance(boxes, list | tuple | np.ndarray | None):
        raise DataError("the boxes are not a list")
    regions = []
    for box in () if boxes is None else boxes:
        try:
            x1, y1, x2, y2 = map(float, box if not isinstance(box, str) else ())
            regions.append(encode(box_mask((x1, y1, x2, y2), *size)))
        except (TypeError, ValueError, OverflowError) as error:
            shown = ",".join(map(str, box)) if isinstance(box, list | tuple) else repr(box)
            wanted = "x1,y1,x2,y2 with x1 < x2 and y1 < y2 inside the picture of {1}x{0} pixels".format(*size)
            shown = shown if shown.isprintable() else ascii(shown)
            raise DataError(f"box {shown} is not {wanted}") from error
    return tuple(regions)


def read_regions(masks: MaskLike | Sequence[MaskLike] | None, boxes: Any, size: Size) -> tuple[RLE, ...]:
    """`read_masks`, of pictures too, or `read_boxes`; raises DataError where both are given."""
    regions = read_masks(masks, size, pictures=True)
    if regions and boxes is not None and len(boxes):
        raise DataError("regions are given both as masks and as boxes, expected one of them")
    return regions or read_boxes(boxes, size)


def parse_arguments(parser: Any, arguments: Sequence[str] | None) -> Any:
    """Adds the arguments of a question about one picture to a command's parser, and parses."""
    add = parser.add_argument
    add("--image", required=True, type=Path, help="RGB picture")
    add("--depth", type=Path, help="needed with regions: 8-bit grey, near dark, or distances in 16 bits or floats")
    where = parser.add_mutually_exclusive_group()
    about = "the regions: mask pictures, one each, or one JSON file"
    where.add_argument("--masks", nargs="+", type=Path, default=[], metavar="FILE", help=about)
    where.add_argument("--boxes", nargs="+", default=[], metavar="X1,Y1,X2,Y2", help="the regions as boxes, in pixels")
    add("--record", help="id of the record to take from a JSON file of --masks")
    add("--question", help=f"the question with one {MASK} per region; a record may bring it")
    given = sys.argv[1:] if arguments is None else arguments
    # A box that begins with a minus is not taken for an option after a space.
    return parser.parse_args([f" {text}" if re.match(r"-[\d.]\S*,", text) else text for text in given])


def what_is_asked(args: Any) -> tuple[str, tuple[RLE, ...]]:
    """The question and the regions of arguments of `parse_arguments`; raises DataError where they cannot be used together."""
    size, suffixes, question = picture_size(args.image), Image.registered_extensions(), None
    if all(file.suffix.lower() in suffixes for file in args.masks):
        if args.record is not None:
            raise DataError("--record names a record of a JSON file, give one with --masks")
        regions = read_regions(args.masks, [box.replace("\u2212", "-").strip().split(",") for box in args.boxes], size)
    elif len(args.masks) > 1:
        raise DataError("--masks takes one JSON file, or mask pictures")
    else:
        content = read_json(args.masks[0])
        try:
            found = _chosen(content, args.record, args.image.name)
            record = found if isinstance(found, Mapping) and "rle" in found else {"rle": found}
            regions = read_masks(record["rle"], size) or read_boxes(record.get("bbox"), size)
        except DataError as error:
            raise DataError(f"{args.masks[0]}: {error}") from error
        question = first_text(record).replace(IMAGE, "").strip()
    question = args.question or question
    if not question:
        raise DataError("there is no question, give one with --question")
    if args.depth is not None:
        picture_size(args.depth)
    elif regions:
        raise DataError("regions need a depth picture, give one with --depth")
    check_marks(question, regions)
    return question, regions


def check_marks(question: str, regions: Sequence[RLE]) -> None:
    """Raises DataError unless a question can be asked and has a "<mask>" for every region, each of which has to mark a pixel.

    Records of data sets may hold masks without pixels; who asks one question by hand has made a mistake.
    """
    for index, region in enumerate(regions):
        if not region.runs()[1::2].any():
            raise DataError(f"mask {index} marks no pixel")
    check_question(Question("question", "", question, None, None, tuple(regions)), categories=(), need_answer=False)


def first_text(record: Any) -> str:
    """What the first turn of a chat record says, as it stands there; "" if the record has no such turn."""
    try:
        return str(record["conversations"][0]["value"])
    except (KeyError, IndexError, TypeError):
        return ""


def _chosen(content: Any, record: str | None, image: str) -> Any:
    """The masks, or the one record with masks, that a JSON file gives a picture of that name."""
    names: dict[str, str] = {}
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), list):
        images, content = content.get("images"), content["annotations"]
        named = [found for found in images if isinstance(found, Mapping)] if isinstance(images, list) else []
        names = {str(found.get("id")): PureWindowsPath(str(found.get("file_name"))).name for found in named}
    items = [item for item in content if isinstance(item, Mapping)] if isinstance(content, list) else []
    records = [item for item in items if "rle" in item]
    if record is not None:
        found = [item for item in records if str(item.get("id")) == record]
        if len(found) != 1:
            raise DataError(f"holds {len(found) or 'no'} record{'s' * (len(found) > 1)} {record!r}")
        return found[0]
    if records:
        raise DataError(f"holds {len(records)} records, name one with --record")
    if len({str(item.get("image_id")) for item in items}) > 1:
        content = [item for item in items if names.get(str(item.get("image_id"))) == image]
        if len({str(item["image_id"]) for item in content}) != 1:
            many = "more than one" if content else "none"
            raise DataError(f"holds annotations of several pictures, {many} of them named {image}")
    return content


def _coded(mask: Any, size: Size) -> RLE:
    if isinstance(mask, Mapping) and "counts" not in mask:
        if not mask.get("segmentation"):
            x, y, width, height = mask["bbox"]
            return encode(box_mask((x, y, x + width, y + height), *size))
        mask = mask["segmentation"]
    if isinstance(mask, Mapping):
        (height, width), counts = (_whole(side, 1) for side in mask["size"]), mask["counts"]
        if isinstance(counts, list | tuple | np.ndarray):
            return RLE.of_runs(height, width, np.array([_whole(run, 0) for run in counts]))
        return RLE(height, width, counts if isinstance(counts, bytes) else counts.encode("ascii"))
    if not isinstance(mask, list):
        raise TypeError("no mask")
    return union([encode_polygon(polygon, *size) for polygon in (mask if isinstance(mask[0], list) else [mask])])


def _whole(value: Any, least: int) -> int:
    """A number of pixels, which may be written as a float or as text."""
    number = value if type(value) is int else float(value)
    if isinstance(value, bool) or not (least <= number < 2**58 and number == int(number)):
        raise TypeError("no number of pixels")
    return int(number)
