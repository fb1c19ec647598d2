"""What the readers share: from records as they stand in a file to pictures with checked questions."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from smolrgpt_jax.data.images import picture_size
from smolrgpt_jax.data.masks import IMAGE, MASK, RLE
from smolrgpt_jax.data.records import BadRecords, Picture, Question, check_question, normalize_answer, record_id
from smolrgpt_jax.data.regions import read_boxes, read_masks
from smolrgpt_jax.data.sources.archives import still_packed
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json

# Windows' separator, and what no file system takes or no terminal shows: control characters and halves of surrogate pairs.
_NO_FILE_NAME = re.compile(r"[\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HALF = 200  # characters of the beginning and of the end that are kept of a long message

_DEPTH_MARK = re.compile(rf"{MASK}\s*<depth>")
_MASK_TOKENS = re.compile(r"<mask_rgb>\s*<mask_depth>")
_OTHER_MARKS = re.compile(r"<depth>|<mask_rgb>|<mask_depth>")

# A record of any type, the file it is from and its place there, counted from 0.
Located = tuple[Path, int, Any]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A record as its reader found it, still unchecked; `id`, `image`, `depth` and `category` are texts."""

    id: str
    image: str  # file name relative to the folder of the pictures
    depth: str | None
    category: str
    texts: Sequence[object]  # what the user and the assistant say in turn
    normalized_answer: object = None
    masks: object = None  # see `read_masks`
    boxes: object = None  # a list of [x1, y1, x2, y2], used where there are no masks


def json_records(root: str | Path, annotations: str) -> Iterator[Located]:
    """The records of a JSON list; raises DataError if it is unreadable."""
    file = Path(root, annotations)
    return ((file, place, record) for place, record in enumerate(read_json(file, list)))


def collect_pictures(
    records: Iterable[Located],
    parse: Callable[[Any], Entry],
    root: Path,
    images: str = "images",
    depths: str | None = "depths",
    *,
    categories: Sequence[str] | None = None,
    need_answer: bool = True,
    on_bad_record: BadRecords = BadRecords(),
) -> list[Picture]:
    """Checks records and groups them by picture, in the order of their first question.

    Args:
      records: with their places, by which messages name them beside their "id" or else their picture.
      parse: raises ValueError for a record it cannot read.
      images, depths: folders of the pictures under `root`, outside of which no file is looked at; depths None reads none. Whether
        pictures can be decoded shows on decoding.
      categories: the categories that may occur; None accepts any.
      need_answer: False for splits without answers.
      on_bad_record: policy and collector of reasons.

    Raises:
      DataError: under "error", naming file and record.
    """
    grouped: dict[tuple[Path, Path | None], list[Question]] = {}
    known: dict[RLE, RLE] = {}
    seen: set[str] = set()

    packed = functools.cache(still_packed)

    @functools.cache
    def find(image: str, depth: str | None, beside: Path) -> tuple[tuple[Path, Path | None], tuple[int, int]]:
        try:
            file = _inside(root / images, image)
            under = None if depths is None or depth is None else _inside(root / depths, depth)
            return (file, under), picture_size(file)
        except _MissingError as missing:
            missing.hint = packed(missing.folder, beside)
            raise

    for file, place, record in records:
        try:
            entry = parse(record)
            files, size = find(entry.image, entry.depth, file.parent)
            earlier, prompt, answer = split_turns(entry.texts)
            value = normalize_answer(entry.category, entry.normalized_answer)
            regions = read_masks(entry.masks, size, known) or read_boxes(entry.boxes, size)
            question = Question(entry.id, entry.category, prompt, answer, value, regions, earlier)
            if question.id in seen:
                raise ValueError("the id occurs twice")
            check_question(question, categories=categories, need_answer=need_answer)
        except ValueError as error:
            reason = _shorten(" ".join(str(error).split())) + getattr(error, "hint", "")
            on_bad_record.reject(DataError(f"{file}: {_name(place, record)}: {reason}"))
            continue
        seen.add(question.id)
        grouped.setdefault(files, []).append(question)
    return [
        Picture(str(image.relative_to(root / images).with_suffix("")), image, depth, tuple(questions))
        for (image, depth), questions in grouped.items()
    ]


def user_text(text: str) -> str:
    """A user's text with one "<mask>" per region and without the picture's mark at either end.

    A region is written "<mask>", "<mask> <depth>" (Open Spatial Dataset) or "<mask_rgb><mask_depth>" (SmolRGPT's parquet).
    Raises ValueError for a mark that is left over.
    """
    text = _MASK_TOKENS.sub(MASK, _DEPTH_MARK.sub(MASK, text)).strip()
    text = text.removeprefix(IMAGE).removesuffix(IMAGE).strip()
    left = _OTHER_MARKS.search(text)
    if left:
        raise ValueError(f"the question holds {left[0]} without its partner")
    return text


def split_turns(texts: Sequence[Any]) -> tuple[tuple[tuple[str, str], ...], str, str | None]:
    """Texts of the user and the assistant in turn -> (earlier turns, last prompt, last answer or None).

    Raises ValueError for a turn without text.
    """
    if not texts:
        raise ValueError("the conversation is empty")
    missing = [i for i, text in enumerate(texts) if not isinstance(text, str)]
    if missing:
        raise ValueError(f"turn {missing[0]} of the conversation has no text")
    turns = [user_text(text) if i % 2 == 0 else text.strip() for i, text in enumerate(texts)]
    answer = turns.pop() if len(turns) % 2 == 0 else None
    earlier = tuple(zip(turns[:-1:2], turns[1::2]))
    if not all(text for turn in earlier for text in turn):
        raise ValueError("a turn of the conversation is empty")
    return earlier, turns[-1], answer


def chat_texts(conversation: object) -> list[object]:
    """The texts of [{"from": "human", "value": ...}, {"from": "gpt", ...}, ...]; raises ValueError for other speakers."""
    turns = conversation if isinstance(conversation, list) else []
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in turns]
    if not turns or speakers != [("human", "gpt")[i % 2] for i in range(len(turns))]:
        raise ValueError(f"the conversation's speakers are {speakers[:6]}, expected human and gpt in turn")
    return [turn.get("value") for turn in turns]


class _MissingError(DataError):
    def __init__(self, file: Path, folder: Path):
        super().__init__(f"picture {file} is missing")
        self.folder, self.hint = folder, ""


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
        raise _MissingError(file, folder)
    return file


def _name(place: int, record: object) -> str:
    """How a message names a record: its id and place, or its picture and place where it has no usable id."""
    if not isinstance(record, dict):
        return f"record {place}"
    try:
        return f"record {_shorten(repr(record_id(record.get('id'))))} (number {place})"
    except ValueError:
        info = record.get("image_info")
        fields = {**(info if isinstance(info, dict) else {}), **record}
        picture = next(filter(None, map(fields.get, ("image", "filename", "rgb_image", "file_path"))), None)
        return f"record {place}" + (f" of picture {_shorten(repr(picture))}" if picture else "")


def _shorten(text: str) -> str:
    return text if len(text) <= 2 * _HALF else f"{text[:_HALF]}...{text[-_HALF:]}"
