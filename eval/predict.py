"""Answers one question about one picture and draws the regions it speaks of.

    python -m eval.predict --checkpoint DIR --image I.png --depth D.png --boxes 10,20,200,220 300,40,420,200 \\
        --question "How far is the pallet <mask> from the pallet <mask>?" --out annotated.png
    python -m eval.predict --checkpoint DIR --image I.png --depth D.png --masks val.json --record ID

The question holds one "<mask>" per region, in the order of the masks or boxes. --masks is a JSON
file with a list of {size, counts} (COCO's compressed encoding), one record with such a list under
"rle", or a list of records, of which --record names one; a record also brings its question.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from eval import DTYPES
from eval.answers import normalized_answer, question_category
from eval.overlay import draw_regions
from eval.warehouse import answer_questions
from smolrgpt_jax.data.images import picture_size
from smolrgpt_jax.data.masks import box_mask
from smolrgpt_jax.data.records import IMAGE, MASK, DataError, Picture, Question, RLE, check_question
from smolrgpt_jax.data.sources.collect import Regions


def read_masks(path: str | Path, record_id: str | None = None) -> tuple[tuple[RLE, ...], str | None]:
    """Reads regions, and the question if the file has one.

    Args:
      path: JSON: a list of {size, counts}, a record with "rle", or a list of records.
      record_id: which of a list of records.

    Returns:
      The regions and the record's question without "<image>", None if there is none.

    Raises:
      DataError: the file is unreadable or holds neither masks nor that record.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from error
    items = content if isinstance(content, list) else []
    records = [item for item in items if isinstance(item, dict) and "rle" in item]
    if record_id is not None:
        content = next((record for record in records if str(record.get("id")) == record_id), None)
        if content is None:
            raise DataError(f"{path}: holds no record {record_id!r}")
    elif records:
        raise DataError(f"{path}: holds {len(records)} records, name one with --record")
    masks = content.get("rle") if isinstance(content, dict) else content
    try:
        return Regions().read(masks), _asked(content)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _asked(record: object) -> str | None:
    try:
        return record["conversations"][0]["value"].replace(IMAGE, "").strip()
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def box_region(text: str, height: int, width: int) -> RLE:
    """Returns the region of a box written "x1,y1,x2,y2", in pixels of a picture of that size.

    Raises:
      DataError: the text is no such box, or the box lies outside the picture.
    """
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
        mask = box_mask((x1, y1, x2, y2), height, width)
    except ValueError as error:
        raise DataError(
            f"box {text!r} is not x1,y1,x2,y2 inside the picture of {width}x{height} pixels"
        ) from error
    from pycocotools import mask as coco

    return RLE(height, width, coco.encode(np.asfortranarray(mask))["counts"])


def make_picture(image: Path, depth: Path | None, question: str, regions: Sequence[RLE]) -> Picture:
    """Checks one question and its files and returns them as the data readers do.

    Raises:
      DataError: a file is missing or the question and regions do not fit together.
    """
    size = picture_size(image)
    if depth is not None:
        picture_size(depth)
    elif regions:
        raise DataError("regions need a depth picture, give one with --depth")
    asked = Question("question", "", question, None, None, tuple(regions))
    try:
        check_question(asked, size=size, categories=(), need_answer=False)
    except ValueError as error:
        raise DataError(str(error)) from error
    return Picture(image.stem, image, depth, (asked,))


def picture_format(path: Path) -> str:
    """Returns Pillow's name of the format that a file's suffix stands for.

    Raises:
      DataError: there is none that can be written.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise DataError(f"{path}: {path.suffix or 'no suffix'} is not the suffix of a picture format")
    return kind


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture in the format of the file's suffix, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        picture.save(aside, picture_format(path))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="checkpoint of ours, training folder or PyTorch folder"
    )
    parser.add_argument("--image", required=True, type=Path, help="RGB picture")
    parser.add_argument("--depth", type=Path, help="8-bit depth picture; needed with regions")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--masks", type=Path, help="JSON file with the regions' masks")
    where.add_argument(
        "--boxes", nargs="+", default=[], metavar="X1,Y1,X2,Y2", help="the regions as boxes, in pixels"
    )
    parser.add_argument("--record", help="id of the record to take from --masks")
    parser.add_argument("--question", help=f"the question with one {MASK} per region; a record may bring it")
    parser.add_argument("--max_new_tokens", type=int, default=120, help="longest answer, in tokens")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the model's products")
    parser.add_argument("--out", type=Path, help="where to write the picture with its regions drawn in")
    args = parser.parse_args(arguments)

    print(f"asking {args.checkpoint} about {args.image}" + (f", writing {args.out}" if args.out else ""))
    try:
        if args.out:
            picture_format(args.out)
        height, width = picture_size(args.image)
        if args.masks:
            regions, question = read_masks(args.masks, args.record)
        else:
            regions, question = tuple(box_region(box, height, width) for box in args.boxes), None
        question = args.question or question
        if not question:
            raise DataError("there is no question, give one with --question")
        picture = make_picture(args.image, args.depth, question, regions)
        # Imported late: neither --help nor a mistyped path should wait for JAX.
        from smolrgpt_jax import load

        model = load(args.checkpoint, compute_dtype=args.dtype)
        answer = answer_questions(model, [picture], 1, args.max_new_tokens)[0]
        if args.out:
            with Image.open(args.image) as image:
                save_picture(draw_regions(image, regions), args.out)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"question: {question}\nanswer: {answer}")
    category = question_category(question)
    if category is not None:
        value = normalized_answer(category, question, answer)
        print(f"{category}: {'unreadable' if value is None else value}")


if __name__ == "__main__":
    main()
