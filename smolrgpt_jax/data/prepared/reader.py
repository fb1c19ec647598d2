"""Reads prepared data: questions from the split's parquet file, pictures one by one from ArrayRecord files."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds

from smolrgpt_jax.data.prepared import schema
from smolrgpt_jax.data.records import BadRecords, PreparedPicture, Question, StoredRegion, normalize_answer
from smolrgpt_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Stored:
    """One picture as prepared: image uint8[S, S, 3], depth uint8[S, S] or None, weights float32[R, g, g]."""

    image: np.ndarray
    depth: np.ndarray | None
    weights: np.ndarray


def read_prepared(root: str | Path, split: str, on_bad_record: BadRecords | None = None) -> list[PreparedPicture]:
    """Reads the questions of one split of what `launch.prepare_data` wrote; no picture is opened.

    Args:
      root: the prepared folder.
      split: its split.
      on_bad_record: unused, as bad records were dealt with when the data was prepared.

    Raises:
      DataError: the folder is no prepared data set or lacks the split.
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
    pictures: list[PreparedPicture] = []
    for batch in table.to_batches(4096):
        for row in batch.to_pylist():
            question = _question(row)
            if pictures and pictures[-1].number == row["picture"]:
                last = pictures[-1]
                pictures[-1] = dataclasses.replace(last, questions=(*last.questions, question))
                continue
            image = folder / split / str(row["picture"])
            pictures.append(
                PreparedPicture(
                    id=row["name"],
                    image=image,
                    depth=image if row["has_depth"] else None,
                    questions=(question,),
                    folder=folder,
                    split=split,
                    number=row["picture"],
                )
            )
    return pictures


def _question(row: dict) -> Question:
    turns = row["turns"]
    answer = turns[-1] if len(turns) % 2 == 0 else None
    users = turns[::2]
    return Question(
        id=row["id"],
        category=row["category"],
        prompt=users[-1],
        answer=answer,
        normalized_answer=normalize_answer(row["category"], row["normalized_answer"]),
        regions=tuple(StoredRegion(number) for number in row["regions"]),
        earlier=tuple(zip(users[:-1], turns[1::2])),
    )


@functools.lru_cache(maxsize=64)
def settings(folder: Path) -> dict:
    """The sizes a folder was prepared with; raises DataError if it holds no prepared data."""
    try:
        found = json.loads((folder / schema.SETTINGS_FILE).read_text())
        return {name: found[name] for name in ("image_size", "mask_grid", "depth_mode")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is no prepared data set (no readable {schema.SETTINGS_FILE})") from error


@functools.lru_cache(maxsize=64)
def _source(folder: Path, split: str) -> tfds.data_sources.PythonDataSource:
    builder = tfds.builder_from_directory(folder)
    return builder.as_data_source(split)


def load_stored(picture: PreparedPicture) -> Stored:
    """Reads one picture.

    Raises:
      DataError: the record cannot be read or is another picture's.
    """
    try:
        found = _source(picture.folder, picture.split)[picture.number]
    except Exception as error:  # ArrayRecord's own errors have no common class
        raise DataError(
            f"{picture.folder}: picture {picture.number} of {picture.split} cannot be read ({error})"
        ) from error
    name = found["picture"].decode() if isinstance(found["picture"], bytes) else str(found["picture"])
    if name != picture.id:
        raise DataError(
            f"{picture.folder}: picture {picture.number} of {picture.split} is {name!r}, the questions are about "
            f"{picture.id!r}"
        )
    size = found["image"].shape[0]
    depth = found["depth"].reshape(size, size) if found["depth"].size else None
    return Stored(found["image"], depth, schema.unpack_masks(found["masks"], found["mask_sizes"]))


def check_prepared(picture: PreparedPicture, image_size: int, mask_grid: int, depth_mode: str) -> None:
    """Raises DataError if the picture was prepared for another model or another reading of depth."""
    made = settings(picture.folder)
    wanted = {"image_size": image_size, "mask_grid": mask_grid}
    if picture.depth is not None:
        wanted["depth_mode"] = depth_mode
    for name, value in wanted.items():
        if made[name] != value:
            raise DataError(f"{picture.folder} was prepared with {name} {made[name]}, this run needs {value}")
