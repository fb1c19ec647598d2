"""What the readers share: JSON lists, picture files inside one folder, and grouping of records by picture."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from smolrgpt_jax.data.images import picture_size
from smolrgpt_jax.data.records import RLE, BadRecords, Picture, Question, check_question, record_id
from smolrgpt_jax.errors import DataError

# Windows' separator, and what no file system takes or no terminal shows: control characters and halves of surrogate pairs.
_NO_FILE_NAME = re.compile(r"[\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HALF = 200  # characters of the beginning and of the end that are kept of a long message


class PictureFiles:
    """The picture files of one split; every file is looked at once, and none lies outside the two folders.

    Args:
      images: folder of the pictures.
      depths: folder of the depth pictures, None where there are none.
    """

    def __init__(self, images: Path, depths: Path | None):
        self._images, self._depths = images, depths
        self._known: dict[tuple[str, str | None], tuple[int, int] | DataError] = {}

    def image(self, name: str) -> Path:
        return self._images / name

    def depth(self, name: str | None) -> Path | None:
        return None if self._depths is None or name is None else self._depths / name

    def size(self, image: str, depth: str | None) -> tuple[int, int]:
        """Returns (height, width) of a picture; raises DataError if it or its depth is missing."""
        if (image, depth) not in self._known:
            try:
                self._known[image, depth] = self._check(image, depth)
            except DataError as error:
                self._known[image, depth] = error
        known = self._known[image, depth]
        if isinstance(known, DataError):
            raise DataError(str(known))
        return known

    def _check(self, image: str, depth: str | None) -> tuple[int, int]:
        for name in filter(None, (image, depth)):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or _NO_FILE_NAME.search(name) or not path.name:
                raise DataError(f"picture {name!r} is not a file inside the data folder")
        for file in (self.image(image), self.depth(depth)):
            try:
                missing = file is not None and not file.is_file()
            except OSError as error:
                raise DataError(f"picture {file} cannot be looked up ({error.strerror})") from error
            if missing:
                raise DataError(f"picture {file} is missing")
        return picture_size(self.image(image))


class Regions:
    """Masks of one picture's questions; equal masks share one object."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, str], RLE] = {}

    def read(self, masks: object) -> tuple[RLE, ...]:
        """[{"size": [height, width], "counts": text}, ...] or None -> RLEs; raises ValueError for an unreadable mask."""
        if masks is None:
            return ()
        if not isinstance(masks, list):
            raise ValueError("rle is not a list")
        regions = []
        for index, mask in enumerate(masks):
            try:
                (height, width), counts = mask["size"], mask["counts"]
                if type(height) is not int or type(width) is not int or min(height, width) < 1:
                    raise TypeError("no size in pixels")
                key = (height, width, counts)
                if key not in self._known:
                    region = RLE(height, width, counts.encode("ascii"))
                    region.runs()
                    self._known[key] = region
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                reason = error if type(error) is ValueError else "expected {size, counts}"
                raise ValueError(f"mask {index} is unreadable: {reason}") from error
            regions.append(self._known[key])
        return tuple(regions)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A record as its reader understood it.

    Attributes:
      image, depth: file names relative to the folders of the pictures; depth None where there is none.
      questions: function from the picture's masks to the record's questions; raises ValueError.
    """

    image: str
    depth: str | None
    questions: Callable[[Regions], Sequence[Question]]


class Located(NamedTuple):
    """A record of any type, the file it is from and its place there, counted from 0."""

    file: Path
    place: int
    record: Any


def located(file: Path, records: Iterable[Any]) -> Iterator[Located]:
    """The records of one file with their places."""
    return (Located(file, place, record) for place, record in enumerate(records))


def collect_pictures(
    records: Iterable[Located],
    parse: Callable[[Any], Entry],
    files: PictureFiles,
    *,
    picture_field: str,
    categories: Sequence[str] | None,
    need_answer: bool = True,
    on_bad_record: BadRecords | None = None,
) -> list[Picture]:
    """Groups records by picture.

    Args:
      records: with their places, by which messages name them beside the "id" (of a dict) or else the picture.
      parse: raises ValueError for a record it cannot read.
      files: where the pictures are.
      picture_field: name of the field that holds the picture's file name; "a.b" is field b of field a.
      categories: the categories that may occur; None accepts any.
      need_answer: False for splits without answers.
      on_bad_record: policy and collector of reasons; None stops at the first bad record. A record is used whole or not at all.

    Returns:
      The pictures in the order of their first question.

    Raises:
      DataError: under "error", naming file and record.
    """
    on_bad_record = on_bad_record or BadRecords("error")
    grouped: dict[tuple[str, str | None], list[Question]] = {}
    regions: dict[str, Regions] = {}
    seen: set[str] = set()
    for found in records:
        try:
            entry = parse(found.record)
            size = files.size(entry.image, entry.depth)
            image = str(PurePosixPath(entry.image))  # "./a.png" is "a.png"
            questions = entry.questions(regions.setdefault(image, Regions()))
            if any(question.id in seen for question in questions):
                raise ValueError("the id occurs twice")
            for question in questions:
                check_question(question, size=size, categories=categories, need_answer=need_answer)
        except ValueError as error:
            reason = _shorten(" ".join(str(error).split()))
            on_bad_record.reject(DataError(f"{found.file}: {_name(found, picture_field)}: {reason}"))
            continue
        seen.update(question.id for question in questions)
        grouped.setdefault((image, entry.depth), []).extend(questions)
    return [
        Picture(
            id=str(PurePosixPath(image).with_suffix("")),
            image=files.image(image),
            depth=files.depth(depth),
            questions=tuple(questions),
        )
        for (image, depth), questions in grouped.items()
    ]


def _name(found: Located, picture_field: str) -> str:
    """How a message names a record: its id and place, or its picture and place where it has no usable id."""
    if not isinstance(found.record, dict):
        return f"record {found.place}"
    try:
        return f"record {_shorten(repr(record_id(found.record.get('id'))))} (number {found.place})"
    except ValueError:
        picture: Any = found.record
    for field in picture_field.split("."):
        picture = picture.get(field) if isinstance(picture, dict) else None
    return f"record {found.place}" + (f" of picture {_shorten(repr(picture))}" if picture else "")


def _shorten(text: str) -> str:
    return text if len(text) <= 2 * _HALF else f"{text[:_HALF]}...{text[-_HALF:]}"
