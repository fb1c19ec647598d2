"""Reads prepared data: questions from the split's parquet file, pictures one by one from ArrayRecord files."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smolrgpt_jax.data.prepared import schema
from smolrgpt_jax.data.records import BadRecords, PreparedPicture
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json


class Stored(NamedTuple):
    """One picture as prepared: image uint8[S, S, 3], depth uint8[S, S] or None, weights float32[R, g, g]."""

    image: np.ndarray
    depth: np.ndarray | None
    weights: np.ndarray


def read_prepared(root: str | Path, split: str, on_bad_record: BadRecords | None = None) -> list[PreparedPicture]:
    """Reads the questions of one split of what `launch.prepare_data` wrote; no picture is opened.

    Bad records were dealt with then. Raises DataError for a folder that is no prepared data set or lacks the split.
    """
    folder = Path(root).absolute()
    file = folder / f"questions-{split}.parquet"
    settings(folder)
    if not file.is_file():
        raise DataError(f"{folder} has no prepared split {split!r}")
    try:
        table = pq.read_table(file, schema=schema.QUESTION_COLUMNS)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: is not a readable parquet file ({' '.join(str(error).split())})") from error
    rows = (row for batch in table.to_batches(4096) for row in batch.to_pylist())
    pictures = []
    for (number, name, has_depth), asked in itertools.groupby(
        rows, lambda row: (row["picture"], row["name"], row["has_depth"])
    ):
        image = folder / split / str(number)
        questions = tuple(map(schema.question_of, asked))
        depth = image if has_depth else None
        pictures.append(PreparedPicture(name, image, depth, questions, folder=folder, split=split, number=number))
    return pictures


@functools.lru_cache(maxsize=64)
def settings(folder: Path) -> dict[str, Any]:
    """The sizes a folder was prepared with; raises DataError if it holds no prepared data."""
    try:
        found = read_json(folder / schema.SETTINGS_FILE, dict)
        return {name: found[name] for name in ("image_size", "mask_grid", "depth_mode")}
    except (DataError, KeyError) as error:
        raise DataError(f"{folder} is no prepared data set (no readable {schema.SETTINGS_FILE})") from error


@functools.lru_cache(maxsize=64)
def _source(folder: Path, split: str) -> Sequence[dict[str, Any]]:
    # Imported where needed: it takes seconds.
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(folder).as_data_source(split)


def load_stored(picture: PreparedPicture) -> Stored:
    """Reads one picture; raises DataError if the record cannot be read or is another picture's."""
    where = f"{picture.folder}: picture {picture.number} of {picture.split}"
    try:
        found = _source(picture.folder, picture.split)[picture.number]
    except Exception as error:  # ArrayRecord's own errors have no common class
        raise DataError(f"{where} cannot be read ({error})") from error
    name = found["picture"].decode() if isinstance(found["picture"], bytes) else str(found["picture"])
    if name != picture.id:
        raise DataError(f"{where} is {name!r}, the questions are about {picture.id!r}")
    depth = found["depth"].reshape(found["image"].shape[:2]) if found["depth"].size else None
    return Stored(found["image"], depth, schema.unpack_masks(found["masks"], found["mask_sizes"]))


def check_prepared(picture: PreparedPicture, image_size: int, mask_grid: int, depth_mode: str) -> None:
    """Raises DataError if the picture was prepared for another model or another reading of depth."""
    wanted = {"image_size": image_size, "mask_grid": mask_grid, "depth_mode": depth_mode}
    for name, made in settings(picture.folder).items():
        if made != wanted[name] and (name != "depth_mode" or picture.depth is not None):
            raise DataError(f"{picture.folder} was prepared with {name} {made}, this run needs {wanted[name]}")
