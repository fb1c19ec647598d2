"""What the readers share: from records as they stand in a file to pictures with checked questions."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from smolrgpt_jax.data.images import picture_size
from smolrgpt_jax.data.masks import RLE, read_boxes, read_rles
from smolrgpt_jax.data.records import BadRecords, Picture, Question, check_question, normalize_answer, record_id
from smolrgpt_jax.data.sources.conversation import split_turns
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json

# Windows' separator, and what no file system takes or no terminal shows: control characters and halves of surrogate pairs.
_NO_FILE_NAME = re.compile(r"[\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HALF = 200  # characters of the beginning and of the end that are kept of a long message

# A record of any type, the file it is from and its place there, counted from 0.
Located = tuple[Path, int, Any]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A record as its reader found it, still unchecked; `id`, `image`, `depth` and `category` are texts.

    Attributes:
      image, depth: file names relative to the folders of the pictures; depth None where there is none.
      texts: what the user and the assistant say in turn.
      masks: a list of {size, counts}, and boxes: a list of [x1, y1, x2, y2], used where there are no masks.
    """

    id: str
    image: str
    depth: str | None
    category: str
    texts: Sequence[object]
    normalized_answer: object = None
    masks: object = None
    boxes: object = None


def json_records(file: Path) -> Iterator[Located]:
    """The records of a JSON list; raises DataError if it is unreadable."""
    return ((file, place, record) for place, record in enumerate(read_json(file, list)))


def collect_pictures(
    records: Iterable[Located],
    parse: Callable[[Any], Entry],
    images: Path,
    depths: Path | None,
    *,
    categories: Sequence[str] | None,
    need_answer: bool = True,
    on_bad_record: BadRecords | None = None,
) -> list[Picture]:
    """Checks records and groups them by picture.

    Args:
      records: with their places, by which messages name them beside their "id" or else their picture.
      parse: raises ValueError for a record it cannot read.
      images, depths: folders of the pictures, outside of which no file is looked at; depths None reads none.
      categories: the categories that may occur; None accepts any.
      need_answer: False for splits without answers.
      on_bad_record: policy and collector of reasons; None stops at the first bad record.

    Returns:
      The pictures in the order of their first question. Whether they can be decoded shows on decoding.

    Raises:
      DataError: under "error", naming file and record.
    """
    on_bad_record = on_bad_record or BadRecords("error")
    grouped: dict[tuple[Path, Path | None], list[Question]] = {}
    known: dict[RLE, RLE] = {}
    seen: set[str] = set()

    @functools.cache
    def find(image: str, depth: str | None) -> tuple[tuple[Path, Path | None], tuple[int, int]]:
        file = _inside(images, image)
        return (file, None if depths is None or depth is None else _inside(depths, depth)), picture_size(file)

    for file, place, record in records:
        try:
            entry = parse(record)
            files, size = find(entry.image, entry.depth)
            earlier, prompt, answer = split_turns(entry.texts)
            value = normalize_answer(entry.category, entry.normalized_answer)
            boxed = entry.boxes is not None and not entry.masks
            regions = read_boxes(entry.boxes, *size) if boxed else read_rles(entry.masks, known)
            question = Question(entry.id, entry.category, prompt, answer, value, regions, earlier)
            if question.id in seen:
                raise ValueError("the id occurs twice")
            check_question(question, size=size, categories=categories, need_answer=need_answer)
        except ValueError as error:
            reason = _shorten(" ".join(str(error).split()))
            on_bad_record.reject(DataError(f"{file}: {_name(place, record)}: {reason}"))
            continue
        seen.add(question.id)
        grouped.setdefault(files, []).append(question)
    return [
        Picture(str(image.relative_to(images).with_suffix("")), image, depth, tuple(questions))
        for (image, depth), questions in grouped.items()
    ]


def _inside(folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or _NO_FILE_NAME.search(name) or not path.name:
        raise DataError(f"picture {name!r} is not a file inside the data folder")
    file = folder / path
    try:
        missing = not file.is_file()
    except OSError as error:
        raise DataError(f"picture {file} cannot be looked up ({error.strerror})") from error
    if missing:
        raise DataError(f"picture {file} is missing")
    return file


def _name(place: int, record: object) -> str:
    """How a message names a record: its id and place, or its picture and place where it has no usable id."""
    if not isinstance(record, dict):
        return f"record {place}"
    try:
        return f"record {_shorten(repr(record_id(record.get('id'))))} (number {place})"
    except ValueError:
        info = record.get("image_info")
        fields = [
            *map(record.get, ("image", "filename", "rgb_image")),
            isinstance(info, dict) and info.get("file_path"),
        ]
        picture = next(filter(None, fields), None)
        return f"record {place}" + (f" of picture {_shorten(repr(picture))}" if picture else "")


def _shorten(text: str) -> str:
    return text if len(text) <= 2 * _HALF else f"{text[:_HALF]}...{text[-_HALF:]}"
