"""What every data source is read into, and all that comes after knows: a picture with its questions, and the checks on both."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smolrgpt_jax.data.masks import IMAGE, MASK, RLE
from smolrgpt_jax.errors import DataError

WAREHOUSE_CATEGORIES = ("left_right", "count", "mcq", "distance")
CAPTION_CATEGORIES = ("caption", "region_caption")
_CHAT_TOKEN = re.compile(r"<\|(?:im_start|im_end|image)\|>|<mask_(?:rgb|depth)>")
SPATIAL_CATEGORY = "spatial"  # of questions about regions whose source names no category


@dataclasses.dataclass(frozen=True)
class StoredRegion:
    """A region whose mask lies with its prepared picture; `number` among the picture's distinct masks."""

    number: int


Region = RLE | StoredRegion


@dataclasses.dataclass(frozen=True)
class Question:
    """One question about a picture.

    Attributes:
      id: the record's id, unique in its file.
      category: one of the source's categories; "" where the source gives none (test records).
      prompt: the question's text with one `<mask>` per region, without `<image>`.
      answer: the free-text answer, None where it is not published.
      normalized_answer: "left" or "right" (left_right), int (count, and mcq: the region's number), float metres (distance), None
        where there is none.
      regions: the i-th `<mask>` of the whole conversation is regions[i].
      earlier: (prompt, answer) of the turns before this one, where a record is a conversation.
    """

    id: str
    category: str
    prompt: str
    answer: str | None
    normalized_answer: str | int | float | None
    regions: tuple[Region, ...] = ()
    earlier: tuple[tuple[str, str], ...] = ()

    @property
    def turns(self) -> list[str]:
        """Texts of the user and the assistant in turn; the last is the answer where there is one."""
        texts = [text for turn in self.earlier for text in turn] + [self.prompt]
        return texts if self.answer is None else [*texts, self.answer]

    @property
    def mask_marks(self) -> int:
        """Number of `<mask>` in the user's turns."""
        return sum(text.count(MASK) for text in self.turns[::2])


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture with all its questions.

    Attributes:
      id: the picture's name in its data set, without folder and suffix.
      image: the RGB file.
      depth: the depth file, None where the data set has none.
      questions: in the order of the source file.
    """

    id: str
    image: Path
    depth: Path | None
    questions: Sequence[Question]


@dataclasses.dataclass(frozen=True)
class PreparedPicture(Picture):
    """A picture whose pixels and masks lie in prepared data: the split's `number`-th; `image` is only its name."""

    folder: Path = Path()
    split: str = ""
    number: int = 0


class BadRecords:
    """What to do with records that cannot be used, and the reasons collected, also by several threads.

    "error" stops at the first one; "report" leaves it out, counts it and keeps the reason, for the caller to print `summary()`.
    A file that cannot be read at all stops under both, as nobody knows how many records it held.
    """

    POLICIES = ("error", "report")

    def __init__(self, policy: str = "error"):
        if policy not in self.POLICIES:
            raise ValueError(f"policy for bad records is {policy!r}, must be one of {self.POLICIES}")
        self.policy = policy
        self._reasons: dict[str, int] = {}  # with the number of records that each left out

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process collects what it finds itself.
        return BadRecords, (self.policy,)

    @property
    def reasons(self) -> list[str]:
        """One sentence for each distinct problem, in the order of their discovery."""
        return list(self._reasons)

    def reject(self, error: DataError, records: int = 1) -> None:
        """Raises `error` under "error", else records its message and how many records it leaves out."""
        if self.policy == "error":
            raise error
        self._reasons[str(error)] = records

    def summary(self, shown: int = 5) -> str:
        """Returns a few lines for people: how many records were left out and the first reasons."""
        reasons = self.reasons
        if not reasons:
            return "no bad records"
        records = sum(self._reasons.values())
        more = [f"  and {len(reasons) - shown} more reasons"] if len(reasons) > shown else []
        return "\n".join(
            [f"{records} bad record{'s' * (records != 1)} left out:", *(f"  {r}" for r in reasons[:shown]), *more]
        )


def normalize_answer(category: str, value: object) -> str | int | float | None:
    """Returns a published normalized answer in the type of its category; numbers may come as strings.

    Raises ValueError: the value does not fit the category.
    """
    if value is None:
        return None
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"normalized answer {value!r} is neither a number nor text")
    text = str(value).strip()
    if category == "left_right":
        if text.lower() not in ("left", "right"):
            raise ValueError(f"normalized answer {value!r} is neither left nor right")
        return text.lower()
    if category not in ("mcq", "count", "distance"):
        return text
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if isinstance(value, bool) or not 0 <= number < float("inf"):
        raise ValueError(f"normalized answer {value!r} of a {category} question is no number")
    if category == "distance":
        return number
    if number != int(number):
        raise ValueError(f"normalized answer {value!r} of a {category} question is not whole")
    return int(number)


def record_id(value: object) -> str:
    """Returns a record's id as text; raises ValueError unless it is text or a whole number."""
    if value is None or value == "":
        raise ValueError("has no id")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"its id {value!r} is neither text nor a whole number")
    return str(value)


def check_question(question: Question, *, categories: Sequence[str] | None, need_answer: bool = True) -> None:
    """Checks one question, whose regions are of its picture's size.

    categories: those the source may use; None leaves them unchecked. need_answer: False for test records, which have neither category
    nor answer. Raises DataError saying what is wrong, without the file and record id, which the reader adds.
    """
    if categories is not None and question.category not in categories and (need_answer or question.category):
        raise DataError(f"unknown category {question.category!r}, expected one of {list(categories)}")
    if not question.prompt:
        raise DataError("the question is empty")
    value = question.normalized_answer
    for text in (question.id, question.category, *question.turns, value if isinstance(value, str) else ""):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{text[error.start]!r} in its text is no Unicode character") from error
    for place, text in enumerate(question.turns):
        if found := _CHAT_TOKEN.search(text):
            who = ("question", "answer")[place % 2]
            raise DataError(f"the {who} holds {found[0]}, which only the chat format may write")
    if any(IMAGE in text for text in question.turns[::2]):
        raise DataError(f"the question holds {IMAGE} at an unexpected place")
    if need_answer and not question.answer:
        raise DataError("the answer is missing")
    marks = question.mask_marks
    if marks != len(question.regions):
        count = len(question.regions)
        raise DataError(f"the question holds {marks} {MASK} but {count} mask{'s' * (count != 1)}")
    if question.category == "mcq" and isinstance(value, int) and value >= marks:
        raise DataError(f"the answer is region {value} of only {marks}")


def merge_pictures(collections: Iterable[Sequence[Picture]], on_bad_record: BadRecords = BadRecords()) -> list[Picture]:
    """Joins lists of pictures; questions about the same image file end up in one picture.

    Pictures and questions keep the order of their first appearance. A picture has a depth file if any of its occurrences has one;
    an occurrence that names another one is a bad record.
    """
    merged: dict[Path, Picture] = {}
    for picture in (picture for pictures in collections for picture in pictures):
        known = merged.get(picture.image)
        if known is None:
            merged[picture.image] = picture
            continue
        if known.depth and picture.depth and known.depth != picture.depth:
            reason = f"two depth files are named for it, {known.depth} and {picture.depth}"
            on_bad_record.reject(DataError(f"{picture.image}: {reason} ({records_of(picture)})"))
            continue
        questions = (*known.questions, *picture.questions)
        merged[picture.image] = dataclasses.replace(known, depth=known.depth or picture.depth, questions=questions)
    return list(merged.values())


def spread(total: int, count: int) -> np.ndarray:
    """Numbers of `count` out of `total` things in a row (all, if there are fewer), int[N]: one is drawn from each of as many equal
    stretches, always the same one. However the row is sorted, every part of it has its share."""
    count = min(total, count)
    ends = np.arange(count + 1) * total // max(count, 1)
    return np.random.default_rng(0).integers(ends[:-1], ends[1:])


def spread_questions(pictures: Sequence[Picture], count: int | None) -> list[Picture]:
    """`count` of the questions with their pictures, `spread` over all of them; None for all."""
    ends = np.cumsum([0, *(len(picture.questions) for picture in pictures)])
    numbers = spread(ends[-1], ends[-1] if count is None else count)
    kept: dict[int, list[Question]] = {}
    for number, index in zip(numbers, np.searchsorted(ends, numbers, side="right") - 1):
        kept.setdefault(index, []).append(pictures[index].questions[number - ends[index]])
    return [dataclasses.replace(pictures[index], questions=tuple(asked)) for index, asked in kept.items()]


def describe(pictures: Sequence[Picture]) -> str:
    """Returns one line for people: number of pictures, questions and questions per category."""
    counts = Counter(question.category or "without category" for picture in pictures for question in picture.questions)
    parts = ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))
    return f"{len(pictures)} pictures, {sum(counts.values())} questions ({parts})"


def records_of(picture: Picture) -> str:
    """How messages name all records of a picture: "record 'a' and 2 more of its picture"."""
    ids = [question.id for question in picture.questions]
    if len(ids) < 2:
        return f"record {ids[0]!r}" if ids else f"picture {picture.id!r} without questions"
    return f"record {ids[0]!r} and {len(ids) - 1} more of its picture"
