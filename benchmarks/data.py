"""Questions per second and core: a plain per-question loader, ours from the raw folder, ours from prepared data."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from benchmarks.shared import TOKENIZER, by_turns, make_questions, markdown, show
from eval.command_line import command_line
from smolrgpt_jax.data import images
from smolrgpt_jax.data.batches import PackedRows
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.prepared.reader import read_prepared
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.data.rows import FileLoader, RowShape
from smolrgpt_jax.errors import told

SHAPE = RowShape(tokens=1024, pictures=1, regions=18, image_tokens=64, image_size=256, mask_grid=64)


def plain_loader(pictures: Sequence[Picture], tokenizer: ChatTokenizer) -> int:
    """Every question by itself; returns how many."""
    asked = [(picture, question) for picture in pictures for question in picture.questions]
    for picture, question in asked:
        images.load_rgb(picture.image, SHAPE.image_size)
        images.load_depth(picture.depth, SHAPE.image_size)
        for region in question.regions:
            coco.decode({"size": [region.height, region.width], "counts": region.counts}).astype(np.float32)
        tokenizer.question(question.prompt, question.answer)
    return len(asked)


def packed_loader(pictures: Sequence[Picture], tokenizer: ChatTokenizer) -> int:
    """Every packed row once; returns the number of questions."""
    rows = PackedRows(pictures, tokenizer, SHAPE, load=FileLoader(SHAPE))
    for index in range(len(rows)):
        rows.batch([index])
    return sum(len(part.questions) for row in rows.plan.rows for part in row)


def table(rates: Mapping[str, float]) -> str:
    first = next(iter(rates.values()))
    rows = (f"{name} | {rate:,.1f} | {rate / first:.1f} x" for name, rate in rates.items())
    return markdown("loader | questions/s per core | ratio", rows)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    a = command_line("benchmarks.data", __doc__).parse_args(arguments)
    print(f"making {a.scenes} scenes of {a.width}x{a.height} pixels, then {a.rounds} passes of each loader", flush=True)
    tokenizer = ChatTokenizer.load(TOKENIZER)
    with tempfile.TemporaryDirectory() as folder:
        raw = make_questions(Path(folder) / "data", a.scenes, a.width, a.height)
        prepared = Path(folder) / "prepared"
        prepare({"train": raw}, prepared, PrepareConfig(SHAPE.image_size, SHAPE.mask_grid))
        ready = read_prepared(prepared, "train")
        loaders = {
            "plain, per question": lambda: plain_loader(raw, tokenizer),
            "packed rows from the raw folder": lambda: packed_loader(raw, tokenizer),
            "packed rows from prepared data": lambda: packed_loader(ready, tokenizer),
        }
        seconds = by_turns(list(loaders.values()), a.rounds)
    questions = sum(len(picture.questions) for picture in raw)
    show(table({name: questions / taken for name, taken in zip(loaders, seconds)}), a.out)
    print(f"{questions / len(raw):.1f} questions per picture")


if __name__ == "__main__":
    main()
