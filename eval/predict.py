"""Answers one question about one picture and draws the regions it speaks of.

    python -m eval.predict --checkpoint DIR --image I.png --depth D.png --boxes 10,20,200,220 300,40,420,200 \\
        --question "How far is the pallet <mask> from the pallet <mask>?" --out annotated.png
    python -m eval.predict --checkpoint DIR --image I.png --depth D.png --masks first.png second.png --question "..."
    python -m eval.predict --checkpoint DIR --image I.png --depth D.png --masks val.json --record ID

The question holds one "<mask>" per region, in the order of the masks or boxes. --masks is PNG files, one per region,
black outside of it; or a JSON file with a list of {size, counts} (COCO's compressed encoding), one record with such a
list under "rle", or a list of records, of which --record names one; a record also brings its question. From Python:
`eval.answering.answer`.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from eval.answering.asking import add_model_arguments
from eval.answering.one_picture import answer, check_marks, read_regions
from eval.command_line import command_line
from eval.report.overlay import draw_regions
from smolrgpt_jax.data.images import open_picture, picture_size
from smolrgpt_jax.data.masks import RLE, read_rles
from smolrgpt_jax.data.records import IMAGE, MASK
from smolrgpt_jax.data.sources.collect import first_text
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import file_aside, read_json


def read_masks(path: str | Path, record_id: str | None = None) -> tuple[tuple[RLE, ...], str | None]:
    """The regions of a JSON file, and the question without "<image>" if it has one; record_id: which of its records.

    Raises DataError where the file is unreadable or holds neither masks nor that record.
    """
    content = read_json(path)
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
        return read_rles(masks), first_text(content).replace(IMAGE, "").strip() or None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def find_regions(
    masks: Sequence[Path], record_id: str | None, boxes: Sequence[str], size: tuple[int, int]
) -> tuple[tuple[RLE, ...], str | None]:
    """The regions the command line names, and the question of their record if they have one.

    masks: PNG files, or one JSON file and which of its records; boxes: texts "x1,y1,x2,y2" in pixels, instead of masks;
    size: (height, width) of the picture. Raises DataError where one cannot be used for a picture of that size.
    """
    pictures = [file for file in masks if file.suffix.lower() == ".png"]
    if len(pictures) < len(masks):
        if len(masks) > 1:
            raise DataError("--masks takes one JSON file, or PNG files")
        regions, question = read_masks(masks[0], record_id)
        return read_regions(regions, None, size), question
    if record_id is not None:
        raise DataError("--record names a record of a JSON file, give one with --masks")
    return read_regions(pictures, [_numbers(box) for box in boxes], size), None


def _numbers(box: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in box.split(","))
    except ValueError as error:
        raise DataError(f"box {box!r} is not x1,y1,x2,y2 in pixels") from error


def picture_format(path: Path) -> str:
    """Pillow's name of the format that a file's suffix stands for; raises DataError where there is none to write."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise DataError(f"{path}: {path.suffix or 'no suffix'} is not the suffix of a picture format")
    return kind


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line("eval.predict", __doc__)
    add_model_arguments(parser)
    parser.add_argument("--image", required=True, type=Path, help="RGB picture")
    parser.add_argument("--depth", type=Path, help="8-bit grey depth picture; needed with regions")
    where = parser.add_mutually_exclusive_group()
    about = "the regions: PNG files, or one JSON file"
    where.add_argument("--masks", nargs="+", type=Path, default=[], metavar="FILE", help=about)
    where.add_argument("--boxes", nargs="+", default=[], metavar="X1,Y1,X2,Y2", help="the regions as boxes, in pixels")
    parser.add_argument("--record", help="id of the record to take from a JSON file of --masks")
    parser.add_argument("--question", help=f"the question with one {MASK} per region; a record may bring it")
    parser.add_argument("--out", type=Path, help="where to write the picture with its regions drawn in")
    args = parser.parse_args(arguments)

    # Pictures that are too large are refused by us, in one sentence.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    print(f"asking {args.checkpoint} about {args.image}" + (f", writing {args.out}" if args.out else ""))
    if args.out:
        picture_format(args.out)
    regions, question = find_regions(args.masks, args.record, args.boxes, picture_size(args.image))
    question = args.question or question
    if not question:
        raise DataError("there is no question, give one with --question")
    if args.depth is not None:
        picture_size(args.depth)
    elif regions:
        raise DataError("regions need a depth picture, give one with --depth")
    check_marks(question, regions)
    # Imported late: neither --help nor a mistyped path should wait for JAX.
    from smolrgpt_jax import load

    model = load(args.checkpoint, compute_dtype=args.dtype)
    how = {"depth": args.depth, "masks": regions, "max_new_tokens": args.max_new_tokens}
    found = answer(model, args.image, question, **how)
    if args.out:
        with open_picture(args.image) as image, file_aside(args.out) as aside:
            draw_regions(image, regions).save(aside, picture_format(args.out))
    print(f"question: {question}\nanswer: {found.text}")
    if found.category is not None:
        value = "unreadable" if found.normalized_answer is None else found.normalized_answer
        print(f"{found.category}: {value}")
    if found.cut_off:
        print("the answer was cut off at the longest length (--max_new_tokens)")


if __name__ == "__main__":
    main()
