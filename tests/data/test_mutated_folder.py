"""A data folder with one damaged file: what is read is right, or is told; nothing is read as something else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from smolrgpt_jax.data import masks
from smolrgpt_jax.data.images import read_depth, read_rgb
from smolrgpt_jax.data.prepared.reader import check_prepared, load_stored
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.formats import read_source
from smolrgpt_jax.errors import DataError
from tests.mutations import changed, changed_copy, files_of, numbers_of_examples, reproducible

HEIGHT, WIDTH, SIZE = 24, 32, 16


def record(number: int) -> dict:
    region = masks.encode(masks.box_mask((1 + number, 1, 9, 9), HEIGHT, WIDTH))
    turns = [
        {"from": "human", "value": f"<image>\nHow far is pallet {number} <mask>?"},
        {"from": "gpt", "value": f"It is {number}.5 meters away."},
    ]
    return {
        "id": f"id {number}",
        "image": f"{number // 2}.png",
        "conversations": turns,
        "rle": [{"size": [HEIGHT, WIDTH], "counts": region.counts.decode()}],
        "category": "distance",
        "normalized_answer": number + 0.5,
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "data"
    noise = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    for kind in ("images", "depths"):
        (folder / "train" / kind).mkdir(parents=True)
    for number, picture in enumerate(noise):
        Image.fromarray(picture).save(folder / f"train/images/{number}.png")
        Image.fromarray(picture[..., 0]).save(folder / f"train/depths/{number}_depth.png")
    (folder / "train.json").write_text(json.dumps([record(number) for number in range(4)]))
    return folder


@pytest.fixture(scope="module")
def prepared(raw):
    folder = raw.parent / "prepared"
    pictures = read_source({"format": "warehouse", "root": raw, "split": "train"})
    prepare({"train": pictures}, folder, PrepareConfig(SIZE, SIZE), workers=1)
    return folder


def decoded(picture):
    if hasattr(picture, "folder") and picture.number is not None:
        check_prepared(picture, SIZE, SIZE, "training")
        return load_stored(picture)
    return read_rgb(picture.image, SIZE), read_depth(picture.depth, SIZE, "training")


def read(form, root):
    """{id: (question, arrays of its picture)}, and what was told."""
    bad, found, told = BadRecords("report"), {}, []
    try:
        pictures = read_source({"format": form, "root": root, "split": "train"}, bad)
    except DataError as error:
        return {}, [str(error)]
    for picture in pictures:
        try:
            arrays = tuple(np.asarray(array) for array in decoded(picture))
        except DataError as error:
            told.append(str(error))
            continue
        found |= {question.id: (question, arrays) for question in picture.questions}
    return found, [*told, *bad.reasons]


def same(one, other):
    return one[0] == other[0] and all(np.array_equal(a, b) for a, b in zip(one[1], other[1], strict=True))


@numbers_of_examples(few=20)
@pytest.mark.parametrize("form", ["warehouse", "prepared"])
def test_a_damaged_file_is_told_or_makes_no_difference(request, tmp_path, form, examples):
    source = request.getfixturevalue("raw" if form == "warehouse" else "prepared")
    files, (valid, told), folders = files_of(source), read(form, source), iter(range(10**6))
    assert len(valid) == 4 and not told

    @reproducible(examples)
    @given(changed(files))
    def one_change(change):
        name, content = change
        # A new name each time, since readers keep what they know of a folder.
        root = changed_copy(source, tmp_path / str(next(folders)), name, content)
        found, told = read(form, root)
        for sentence in told:
            assert str(root) in sentence and "\n" not in sentence and len(sentence) < 2000
        asked = valid
        if name == "train.json" and isinstance(content, bytes) and not told:
            # A record that was changed to another valid one is what the file now says.
            records = json.loads(content)
            asked = {f"id {n}": valid[f"id {n}"] for n in range(4) if record(n) in records}
        for key, meaning in asked.items():
            assert same(found[key], meaning) if key in found else told, key

    one_change()
