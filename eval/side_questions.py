"""Asks left or right about records whose pictures are not at hand: from their masks alone."""

import itertools
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from eval.command_line import command_line
from smolrgpt_jax.data import masks
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import MASK
from smolrgpt_jax.data.regions import read_masks
from smolrgpt_jax.data.sources.formats import chat_entry
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import new_folder, read_json, write_json

KINDS = ("pallet", "buffer", "transporter", "shelf", "shelves")
MARGIN = 0.02  # of the picture's width, between two centroids that are compared
GREY = 128
QUESTION = "Is the {noun} <mask> to the left or right of the {noun} <mask>?"
NOUNS = {"buffer": "buffer region", "shelves": "shelf"}


def region_kinds(prompt: str) -> list[str]:
    """The kind of each "<mask>" of a prompt: the one last named before it, "" where none is."""
    kinds, last = [], ""
    for piece in prompt.split(MASK)[:-1]:
        named = re.findall("|".join(KINDS), piece)
        last = named[-1] if named else last
        kinds.append(last)
    return kinds


def centre(rle: RLE) -> float:
    """Centroid of a mask across the picture, as a share of its width; ValueError for one that is unreadable or empty."""
    columns = np.flatnonzero(masks.decode(rle).T.ravel()) // rle.height
    if not columns.size:
        raise ValueError("the mask is empty")
    return float(columns.mean() + 0.5) / rle.width


def side_questions(record: dict) -> list[dict]:
    """left_right questions about a record, as records; raises DataError, naming it, for masks that cannot be read."""
    try:
        kinds = region_kinds(str(chat_entry(record).texts[0]))
        height, width = map(int, record["rle"][0]["size"])
        centres = [centre(rle) for rle in read_masks(record["rle"], (height, width))]
        pairs = list(itertools.permutations(range(len(centres)), 2))
        pairs = [(a, b) for a, b in pairs if kinds[a] == kinds[b] != "" and abs(centres[a] - centres[b]) > MARGIN]
    except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
        name = f"record {record.get('id')!r}" if isinstance(record, dict) else f"{record!r:.80}"
        raise DataError(f"{name} has no readable masks ({error})") from error
    questions = []
    for a, b in pairs:
        noun, side = NOUNS.get(kinds[a], kinds[a]), "left" if centres[a] < centres[b] else "right"
        answer = f"The first {noun} is on the {side}."
        turns = [{"from": "human", "value": QUESTION.format(noun=noun)}, {"from": "gpt", "value": answer}]
        asked = {"id": f"{record['id']}-{a}-{b}", "image": record["image"], "conversations": turns}
        said = {"category": "left_right", "normalized_answer": side, "freeform_answer": answer}
        questions.append({**asked, "rle": [record["rle"][a], record["rle"][b]], **said})
    return questions


def write_side_questions(records: Sequence[dict], out: Path, pictures: Path | None = None) -> tuple[int, int]:
    """Writes the folder `out`, whole or not at all; returns the numbers of questions and of records with a picture.

    pictures: folder with images/ and depths/ of some of the records. Raises DataError for masks that cannot be read and
    records that give no question, CheckpointError for an `out` that exists.
    """
    questions = [question for record in records for question in side_questions(record)]
    if not questions:
        raise DataError("no two regions of one kind stand beside each other in the records")
    seen = 0
    with new_folder(out) as whole:
        for record in records:
            name, (height, width) = Path(record["image"]).stem, map(int, record["rle"][0]["size"])
            for file, mode in ((f"images/{name}.png", "RGB"), (f"depths/{name}_depth.png", "L")):
                target = whole / "val" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                if pictures is not None and (pictures / file).is_file():
                    shutil.copyfile(pictures / file, target)
                    seen += mode == "RGB"
                else:
                    Image.new("L", (width, height), GREY).convert(mode).save(target)
        write_json(whole / "val.json", questions)
    return len(questions), seen


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.side_questions", __doc__).parse_args(arguments)
    print(f"writing questions about the masks of {args.records} to {args.out}")
    records = read_json(args.records, list)
    number, seen = write_side_questions(records, args.out, args.pictures)
    print(f"{number} questions about {len(records)} records, {seen} of them with their picture")


if __name__ == "__main__":
    main()
