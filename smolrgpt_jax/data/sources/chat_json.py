"""Shared by the readers of chat-style JSON: a list of records with an image and a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from smolrgpt_jax.data.records import BadRecords, Picture, Question, normalize_answer, record_id
from smolrgpt_jax.data.sources.collect import Entry, PictureFiles, collect_pictures, located
from smolrgpt_jax.data.sources.conversation import chat_texts, split_turns
from smolrgpt_jax.files import read_json


def read_chat_json(
    root: Path,
    annotations: str,
    *,
    images: str,
    depths: str | None,
    categories: Sequence[str],
    default_category: str = "",
    on_bad_record: BadRecords | None = None,
) -> list[Picture]:
    """Reads a list of {id, image, conversations, rle, category, normalized_answer} records.

    Args:
      root: the data set's folder; no record can name a file outside it.
      annotations: the JSON file, relative to ``root``.
      images: folder of the pictures, relative to ``root``.
      depths: folder of the depth pictures ("NAME_depth.png"), or None if the data set has none.
      categories: the categories that may occur.
      default_category: category of records that name none.
      on_bad_record: policy and collector of reasons; None stops at the first bad record.

    Returns:
      The pictures in the order of their first question.
    """
    file = root / annotations
    records = read_json(file, list)

    def parse(record: object) -> Entry:
        name, own_id = _name_and_id(record)
        path = PurePosixPath(name)
        depth = str(path.with_name(f"{path.stem}_depth.png")) if depths is not None and path.name else None
        return Entry(name, depth, lambda regions: [_question(record, own_id, default_category, regions.read)])

    return collect_pictures(
        located(file, records),
        parse,
        PictureFiles(root / images, None if depths is None else root / depths),
        picture_field="image",
        categories=categories,
        need_answer=any(map(_has_answer, records)),
        on_bad_record=on_bad_record,
    )


def _has_answer(record: object) -> bool:
    """Whether a record is whole and answered: a broken one must not make a test split one with answers."""
    try:
        return isinstance(record, dict) and bool(split_turns(chat_texts(record.get("conversations")))[-1])
    except ValueError:
        return False


def _name_and_id(record: object) -> tuple[str, str]:
    if not isinstance(record, dict):
        raise ValueError(f"is a {type(record).__name__}, expected an object")
    name = record_id(record.get("id"))
    if not isinstance(record.get("image"), str):
        raise ValueError("names no image")
    return record["image"], name


def _question(record: dict, own_id: str, default_category: str, read_regions) -> Question:
    earlier, prompt, answer = split_turns(chat_texts(record.get("conversations")))
    category = str(record.get("category") or default_category)
    return Question(
        id=own_id,
        category=category,
        prompt=prompt,
        answer=answer,
        normalized_answer=normalize_answer(category, record.get("normalized_answer")),
        regions=read_regions(record.get("rle")),
        earlier=earlier,
    )
