"""Reader of the SmolRGPT parquet sets (warehouse-rgbd, osd-110k, llava-cc3m, spacial-rgpt-bench).

    <root>/data/{train-*,val*}.parquet  or  <root>/data/*.parquet
    <root>/[<split>/]{images,depths}/

Columns: id_db, id, rgb_image, depth_image, rle, texts, category, normalized_answer, dataset_name. `texts` is one
{user, assistant} or a list of them; the user's text writes a region "<mask_rgb><mask_depth>".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from smolrgpt_jax.data.records import SPATIAL_CATEGORY, BadRecords, Picture, record_id
from smolrgpt_jax.data.sources.collect import Entry, Located, collect_pictures
from smolrgpt_jax.errors import DataError

COLUMNS = ("id", "rgb_image", "depth_image", "rle", "texts", "category", "normalized_answer")
ROWS = 1024  # read at a time


def read_smolrgpt(root: str | Path, split: str | None = None, on_bad_record: BadRecords | None = None) -> list[Picture]:
    """Reads one of the parquet sets.

    Args:
      root: the set's folder, which holds `data`.
      split: "train" or "val" takes the files whose name begins with it; None takes all.
      on_bad_record: policy and collector of reasons; None stops at the first bad record.

    Returns:
      The pictures in the order of their first question. A question without category is a "caption" if it has no regions, else
      "spatial".

    Raises:
      DataError: no files, a broken file, missing columns, or, under "error", a bad record.
    """
    pattern = "*.parquet" if split is None else f"{split}*.parquet"
    data = Path(root) / "data"
    files = sorted(data.glob(pattern))
    if not files:
        raise DataError(f"{data} holds no file {pattern}")
    pictures = Path(root, split or "")
    if not (pictures / "images").is_dir():
        pictures = Path(root)
    return collect_pictures(
        _rows(files), _parse, pictures / "images", pictures / "depths", categories=None, on_bad_record=on_bad_record
    )


def _rows(files: list[Path]) -> Iterator[Located]:
    for file in files:
        place = 0
        try:
            with pq.ParquetFile(file) as parquet:
                names = parquet.schema_arrow.names
                missing = [name for name in COLUMNS[:5] if name not in names]
                if missing:
                    raise DataError(f"{file}: has no column {', '.join(missing)}")
                for batch in parquet.iter_batches(ROWS, columns=[name for name in COLUMNS if name in names]):
                    for row in batch.to_pylist():
                        yield file, place, row
                        place += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: is not a readable parquet file ({' '.join(str(error).split())})") from error


def _parse(row: dict) -> Entry:
    own_id = record_id(row["id"])
    if not isinstance(row["rgb_image"], str) or not isinstance(row["depth_image"], str | None):
        raise ValueError("names no picture or a depth picture that is no text")
    texts = row["texts"] if isinstance(row["texts"], list) else [row["texts"]]
    if not all(isinstance(turn, dict) for turn in texts):
        raise ValueError("has no texts")
    texts = [turn.get(who) for turn in texts for who in ("user", "assistant")]
    category = row.get("category") or (SPATIAL_CATEGORY if row["rle"] else "caption")
    if not isinstance(category, str):
        raise ValueError(f"category {category!r} is no text")
    answer = row.get("normalized_answer")
    return Entry(
        own_id,
        row["rgb_image"],
        row["depth_image"] or None,
        category,
        texts,
        None if answer == "" else answer,
        row["rle"],
    )
