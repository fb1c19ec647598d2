"""The warehouse data set's published folder format, which the procedural warehouse writes too.

nvidia/PhysicalAI-Spatial-Intelligence-Warehouse: `{split}.json`, a list of {id, image, conversations, rle, category,
normalized_answer}, beside `{split}/images/N.png` and `{split}/depths/N_depth.png`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, BadRecords, Picture, record_id
from smolrgpt_jax.data.sources.collect import Entry, collect_pictures, json_records
from smolrgpt_jax.data.sources.conversation import chat_texts, split_turns


def read_warehouse(
    root: str | Path,
    split: str,
    annotations: str | None = None,
    categories: Sequence[str] = WAREHOUSE_CATEGORIES,
    on_bad_record: BadRecords | None = None,
) -> list[Picture]:
    """Reads one split of the warehouse.

    Args:
      root: the data set's folder.
      split: "train", "val" or "test"; also the name of the folder with the pictures.
      annotations: file name under `root`, by default "{split}.json". Records without category and answer are accepted in a file
        whose records all lack an answer (the test split).
      categories: the categories that may occur.
      on_bad_record: see `collect_pictures`, as what is returned and raised.
    """
    records = list(json_records(Path(root) / (annotations or f"{split}.json")))
    return collect_pictures(
        records,
        chat_entry,
        Path(root, split, "images"),
        Path(root, split, "depths"),
        categories=categories,
        need_answer=any(_has_answer(record) for _, _, record in records),
        on_bad_record=on_bad_record,
    )


def chat_entry(record: object, default_category: str = "") -> Entry:
    """A record with an image and a conversation; raises ValueError for another."""
    if not isinstance(record, dict):
        raise ValueError(f"is a {type(record).__name__}, expected an object")
    own_id, image = record_id(record.get("id")), record.get("image")
    if not isinstance(image, str):
        raise ValueError("names no image")
    path = PurePosixPath(image)
    return Entry(
        own_id,
        image,
        str(path.with_name(f"{path.stem}_depth.png")) if path.name else None,
        str(record.get("category") or default_category),
        chat_texts(record.get("conversations")),
        record.get("normalized_answer"),
        record.get("rle"),
    )


def _has_answer(record: object) -> bool:
    """Whether a record is whole and answered: a broken one must not make a test split one with answers."""
    try:
        return isinstance(record, dict) and bool(split_turns(chat_texts(record.get("conversations")))[-1])
    except ValueError:
        return False
