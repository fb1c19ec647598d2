"""What a prepared data set holds, one example per picture.

    picture      its name
    image        uint8[image_size, image_size, 3]
    depth        uint8[image_size * image_size], empty where the picture has none
    masks        uint8[R, grid, grid / 2], the distinct masks: two points of the grid per byte, each the four bits of
                 `masks.corner_bits`, the first one in the low half
    mask_sizes   int32[R, 2], height and width of the masks in pixels, which the interpolation needs
    questions    JSON list of {id, category, turns, normalized_answer, regions}

The same questions stand in `questions-<split>.parquet`, so that rows can be packed without reading any picture.
"""

import functools
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smolrgpt_jax.data import masks, records
from smolrgpt_jax.data.images import DEPTH_MODES
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.prepared.columns import SCHEMA, PictureQuestions, read_columns
from smolrgpt_jax.data.records import Picture, PreparedPicture
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json, stand_in

NAME = "prepared_pictures"
VERSION = "1.0.0"
SETTINGS_FILE = "prepared.json"
DIGEST = b"pictures (digest)"  # in the metadata of a split's questions


def pack_masks(regions: Sequence[RLE], grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks -> (uint8[R, grid, grid / 2], int32[R, 2]), see the module's text."""
    bits = np.zeros((len(regions), grid, grid), np.uint8)
    for place, region in enumerate(regions):
        bits[place] = masks.corner_bits(region, grid)
    sizes = np.array([(r.height, r.width) for r in regions], np.int32).reshape(-1, 2)
    return bits[..., 0::2] | bits[..., 1::2] << 4, sizes


def unpack_masks(packed: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The inverse up to the interpolation: float32[R, grid, grid], what `masks.resample_rle` gives."""
    bits = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], 2 * packed.shape[2])
    weights = np.empty(bits.shape, np.float32)
    for height, width in np.unique(sizes, axis=0):
        same = (sizes == (height, width)).all(axis=1)
        weights[same] = masks.weights(bits[same], int(height), int(width))
    return weights


def question_rows(picture: Picture) -> tuple[list[dict[str, Any]], list[Any]]:
    """A picture's questions as plain values, and its distinct masks, which the questions' `regions` number."""
    numbers: dict[records.Region, int] = {}
    rows = [
        {
            "id": question.id,
            "category": question.category,
            "turns": question.turns,
            "normalized_answer": None if question.normalized_answer is None else str(question.normalized_answer),
            "regions": [numbers.setdefault(region, len(numbers)) for region in question.regions],
        }
        for question in picture.questions
    ]
    return rows, list(numbers)


def to_json(rows: list[dict[str, Any]]) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


class Stored(NamedTuple):
    """One picture as prepared: image uint8[S, S, 3], depth uint8[S, S] or None, weights float32[R, g, g]."""

    image: np.ndarray
    depth: np.ndarray | None
    weights: np.ndarray


def read_prepared(
    root: str | Path, split: str, on_bad_record: records.BadRecords = records.BadRecords()
) -> list[PreparedPicture]:
    """Reads the questions of one split of what `launch.prepare_data` wrote; no picture is opened.

    Bad records were dealt with then. Raises DataError for a folder that is no prepared data set or lacks the split.
    """
    folder = Path(root).absolute()
    file = folder / f"questions-{split}.parquet"
    settings(folder)
    if not file.is_file():
        raise DataError(f"{folder} has no prepared split {split!r}")
    try:
        table = pq.read_table(file, schema=SCHEMA, page_checksum_verification=True)
        table.validate(full=True)  # texts too
        columns = read_columns(file, table)
        numbers, names, depths = (
            table[name].to_numpy(zero_copy_only=False) for name in ("picture", "name", "has_depth")
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = stand_in(file) or " ".join(str(error).split())
        raise DataError(f"{file}: is not a readable parquet file ({reason})") from error
    changes = [column[1:] != column[:-1] for column in (numbers, names, depths)]
    begins = [0, *(1 + np.flatnonzero(np.logical_or.reduce(changes))).tolist()] if len(table) else []
    pictures = []
    for begin, end in itertools.pairwise([*begins, len(table)]):
        number, questions = int(numbers[begin]), PictureQuestions(columns, range(begin, end))
        image = folder / split / str(number)
        depth = image if depths[begin] else None
        pictures.append(
            PreparedPicture(names[begin], image, depth, questions, folder=folder, split=split, number=number)
        )
    return pictures


@functools.lru_cache(maxsize=64)
def settings(folder: Path) -> dict[str, Any]:
    """The sizes a folder was prepared with; raises DataError if it holds no prepared data."""
    try:
        found = read_json(folder / SETTINGS_FILE, dict)
        made = {name: found[name] for name in ("image_size", "mask_grid", "depth_mode")}
    except (DataError, KeyError) as error:
        raise DataError(f"{folder} is no prepared data set (no readable {SETTINGS_FILE})") from error
    for name, value in made.items():
        if value not in DEPTH_MODES if name == "depth_mode" else type(value) is not int or value < 1:
            raise DataError(f"{folder / SETTINGS_FILE}: {name} is {value!r}, which no data is prepared with")
    return made


@functools.lru_cache(maxsize=64)
def _source(folder: Path, split: str) -> Sequence[dict[str, Any]]:
    # Imported where needed: it takes seconds.
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(folder).as_data_source(split)


def load_stored(picture: PreparedPicture) -> Stored:
    """Reads one picture; raises DataError if the record cannot be read or is another picture's."""
    where, made = f"{picture.folder}: picture {picture.number} of {picture.split}", settings(picture.folder)
    size, grid = made["image_size"], made["mask_grid"]
    try:
        found = _source(picture.folder, picture.split)[picture.number]
        shapes = {"image": (size, size, 3), "masks": (-1, grid, grid // 2), "mask_sizes": (len(found["masks"]), 2)}
        image, packed, sizes = (found[name].reshape(shape) for name, shape in shapes.items())
        depth = found["depth"].reshape(size, size) if found["depth"].size else None
        stored = Stored(image, depth, unpack_masks(packed, sizes))
        name = str(found["picture"], "utf-8") if isinstance(found["picture"], bytes) else str(found["picture"])
    except Exception as error:  # ArrayRecord's own errors have no common class
        reason = " ".join(str(error).split())[:500]
        raise DataError(f"{where} cannot be read from {NAME}-{picture.split}.array_record-* ({reason})") from error
    if name != picture.id:
        raise DataError(f"{where} is {name!r}, the questions are about {picture.id!r}")
    if (depth is None) != (picture.depth is None):
        raise DataError(f"{where} has {'no' if depth is None else 'a'} depth, its questions say otherwise")
    check_regions(picture, {region for question in picture.questions for region in question.regions}, len(packed))
    return stored


def check_regions(picture: PreparedPicture, regions: Iterable[Any], masks: int) -> None:
    """Raises DataError for a region that is none of the picture's so many masks."""
    for region in regions:
        if not 0 <= region.number < masks:
            where = f"{picture.folder}: picture {picture.number} of {picture.split}"
            raise DataError(f"{where} has {masks} masks, a question is about mask {region.number}")


def told_by(picture: Picture) -> object:
    """What tells a picture's pixels from others: the sizes of its files in bytes, or its prepared split's digest of all pictures."""
    if isinstance(picture, PreparedPicture):
        return _digest(picture.folder, picture.split)
    files = [file for file in (picture.image, picture.depth) if file is not None]
    return [file.stat().st_size if file.is_file() else None for file in files]


@functools.lru_cache(maxsize=64)
def _digest(folder: Path, split: str) -> bytes:
    """Empty for data that was prepared by older releases."""
    return (pq.read_schema(folder / f"questions-{split}.parquet").metadata or {}).get(DIGEST, b"")


def check_prepared(picture: PreparedPicture, image_size: int, mask_grid: int, depth_mode: str) -> None:
    """Raises DataError if the picture was prepared for another model or another reading of depth."""
    wanted = {"image_size": image_size, "mask_grid": mask_grid, "depth_mode": depth_mode}
    for name, made in settings(picture.folder).items():
        if made != wanted[name] and (name != "depth_mode" or picture.depth is not None):
            raise DataError(f"{picture.folder} was prepared with {name} {made}, this run needs {wanted[name]}")
