"""Shared by the readers of chat-style JSON: a list of records with an image and a conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from smolrgpt_jax.data.images import picture_size
from smolrgpt_jax.data.records import (
    IMAGE,
    BadRecords,
    DataError,
    Picture,
    Question,
    RLE,
    check_question,
    normalize_answer,
)


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
      depths: folder of the depth pictures, or None if the data set has none.
      categories: the categories that may occur.
      default_category: category of records that name none.
      on_bad_record: policy and collector of reasons; None stops at the first bad record.

    Returns:
      The pictures in the order of their first question.
    """
    on_bad_record = on_bad_record or BadRecords("error")
    file = root / annotations
    records = _load_list(file)
    need_answer = any(isinstance(record, dict) and len(_turns(record)) > 1 for record in records)
    folders = _Folders(root, images, depths)
    grouped: dict[str, list[Question]] = {}
    interned: dict[str, dict[tuple, RLE]] = {}
    seen: set[str] = set()
    for index, record in enumerate(records):
        try:
            name, record_id = _name_and_id(record)
            if record_id in seen:
                raise ValueError("the id occurs twice")
            size = folders.size(name)
            question = _question(record, record_id, default_category, interned.setdefault(name, {}))
            check_question(question, size=size, categories=categories, need_answer=need_answer)
        except ValueError as error:
            record_id = record.get("id") if isinstance(record, dict) else None
            where = f"record {index}" if record_id is None else f"record {str(record_id)!r}"
            on_bad_record.reject(DataError(f"{file}: {where}: {error}"))
            continue
        seen.add(record_id)
        grouped.setdefault(name, []).append(question)
    return [
        Picture(
            id=str(PurePosixPath(name).with_suffix("")),
            image=folders.image(name),
            depth=folders.depth(name),
            questions=tuple(questions),
        )
        for name, questions in grouped.items()
    ]


class _Folders:
    """The picture files of one split; every file is looked at once."""

    def __init__(self, root: Path, images: str, depths: str | None):
        self._images = root / images
        self._depths = None if depths is None else root / depths
        self._known: dict[str, tuple[int, int] | DataError] = {}

    def image(self, name: str) -> Path:
        return self._images / name

    def depth(self, name: str) -> Path | None:
        if self._depths is None:
            return None
        path = PurePosixPath(name)
        return self._depths / path.with_name(f"{path.stem}_depth.png")

    def size(self, name: str) -> tuple[int, int]:
        """Returns (height, width) of a picture; raises DataError if it or its depth is missing."""
        if name not in self._known:
            try:
                self._known[name] = self._check(name)
            except DataError as error:
                self._known[name] = error
        known = self._known[name]
        if isinstance(known, DataError):
            raise DataError(str(known))
        return known

    def _check(self, name: str) -> tuple[int, int]:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not path.name:
            raise DataError(f"picture {name!r} is not a file inside the data folder")
        for file in (self.image(name), self.depth(name)):
            if file is not None and not file.is_file():
                raise DataError(f"picture {file} is missing")
        return picture_size(self.image(name))


def _load_list(file: Path) -> list:
    try:
        with open(file, encoding="utf-8") as stream:
            records = json.load(stream)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{file}: is not valid JSON ({error})") from error
    if not isinstance(records, list):
        raise DataError(f"{file}: holds a {type(records).__name__}, expected a list of records")
    return records


def _turns(record: dict) -> list:
    turns = record.get("conversations")
    return turns if isinstance(turns, list) else []


def _name_and_id(record: object) -> tuple[str, str]:
    if not isinstance(record, dict):
        raise ValueError(f"is a {type(record).__name__}, expected an object")
    if not isinstance(record.get("id"), (str, int)):
        raise ValueError("has no id")
    if not isinstance(record.get("image"), str):
        raise ValueError("names no image")
    return record["image"], str(record["id"])


def _question(record: dict, record_id: str, default_category: str, interned: dict[tuple, RLE]) -> Question:
    turns = _turns(record)
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in turns]
    if speakers not in (["human"], ["human", "gpt"]):
        raise ValueError(f"the conversation's speakers are {speakers}, expected human and gpt")
    texts = [turn.get("value") for turn in turns]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a turn of the conversation has no text")
    category = str(record.get("category") or default_category)
    return Question(
        id=record_id,
        category=category,
        prompt=_without_image_mark(texts[0]),
        answer=texts[1].strip() if len(texts) > 1 else None,
        normalized_answer=normalize_answer(category, record.get("normalized_answer")),
        regions=_regions(record.get("rle"), interned),
    )


def _without_image_mark(text: str) -> str:
    """Drops the picture's mark at either end; what is left of it elsewhere is an error later."""
    return text.strip().removeprefix(IMAGE).removesuffix(IMAGE).strip()


def _regions(masks: object, interned: dict[tuple, RLE]) -> tuple[RLE, ...]:
    """Returns the record's masks; equal masks of a picture's questions share one object."""
    if masks is None:
        return ()
    if not isinstance(masks, list):
        raise ValueError("rle is not a list")
    regions = []
    for index, mask in enumerate(masks):
        try:
            (height, width), counts = mask["size"], mask["counts"]
            key = (int(height), int(width), counts)
            if key not in interned:
                region = RLE(key[0], key[1], counts.encode("ascii"))
                region.runs()
                interned[key] = region
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = error if type(error) is ValueError else "expected {size, counts}"
            raise ValueError(f"mask {index} is unreadable: {reason}") from error
        regions.append(interned[key])
    return tuple(regions)
