"""Which questions share a row: a plan made once from the data.

A picture's questions are kept together as far as a row takes them, and rows are filled best fit decreasing. Then the emptiest rows are
dissolved into the gaps of others as long as all their questions find a place: 3 to 6 % fewer rows. grain's packing keeps neither a
picture's questions together nor a bound on pictures and regions.
"""

import bisect
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.kept import kept_json
from smolrgpt_jax.data.records import BadRecords, Picture, Question
from smolrgpt_jax.data.rows import PackedPicture, Row, RowShape, TokenisedQuestions
from smolrgpt_jax.errors import DataError

ROW_STEP = 128  # row lengths that are chosen are multiples of it, the width of a TPU's vector unit
SAMPLED = 2000  # pictures of each data set, evenly spread, on which row lengths are tried


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which pictures and questions make up each row: every usable question of the data exactly once."""

    rows: tuple[Row, ...]
    fill: float  # share of the rows' tokens that is not padding
    questions_per_row: float  # mean
    pictures_per_row: float
    answers: int  # the most answer tokens in one row

    def __str__(self) -> str:
        return (
            f"{len(self.rows)} rows, {self.fill:.1%} filled, {self.questions_per_row:.1f} "
            f"questions and {self.pictures_per_row:.1f} pictures per row"
        )


def plan_rows(
    pictures: Sequence[Picture],
    questions: TokenisedQuestions,
    shape: RowShape,
    on_bad_record: BadRecords = BadRecords(),
    chosen: Iterable[int] | None = None,
) -> Plan:
    """Packs questions into rows.

    The questions of a picture that do not fit one row are continued in another, with the prefix repeated. The same data and shape
    always give the same plan. chosen: indices of the pictures to plan for; None for all. Raises DataError under "error" for a question
    that fits no row or lacks an answer.
    """
    rows = _Rows(pictures, questions, shape)
    parts = []
    for index in range(len(pictures)) if chosen is None else chosen:
        picture, usable = pictures[index], []
        for number, question in enumerate(picture.questions):
            try:
                if question.answer is None:
                    raise DataError(f"{picture.image}: question {question.id!r} has no answer to train on")
                check_fit(picture, question, questions[index, number][0], rows.prefix, shape, questions.tokenizer)
                usable.append(number)
            except DataError as error:
                on_bad_record.reject(error)
        parts += [(index, part) for part in rows.split(index, usable)]
    for index, part in sorted(parts, key=lambda item: (-rows.tokens(*item), *item)):
        rows.place(index, part)
    rows.dissolve()
    return rows.plan()


def keep_plan(
    pictures: Sequence[Picture], questions: TokenisedQuestions, shape: RowShape, on_bad_record: BadRecords
) -> Plan:
    """`plan_rows`, or what was kept of it."""

    def make() -> dict[str, Any]:
        bad = BadRecords("report")
        plan = plan_rows(pictures, questions, shape, bad)
        return {
            **vars(plan),
            "rows": [[(part.picture, part.questions) for part in row] for row in plan.rows],
            "bad": bad.reasons,
        }

    folders = sorted({str(picture.image.parent) for picture in pictures})  # which reasons name
    found = kept_json(questions.place, f"plan and answers {shape} {folders}", make)
    for reason in found.pop("bad"):
        on_bad_record.reject(DataError(reason))
    rows = (tuple(PackedPicture(picture, tuple(asked)) for picture, asked in row) for row in found.pop("rows"))
    return Plan(tuple(rows), **found)


def choose_row_tokens(data: Sequence[tuple[Sequence[Picture], TokenisedQuestions]], shape: RowShape, most: int) -> int:
    """The row length for which the fewest tokens are padding.

    Tried are the multiples of ROW_STEP from the one that takes the longest question up to `most`; of lengths whose fill differs by
    less than one percent the shortest is taken. The same data always gives the same length.

    data: (pictures, their tokens) of every data set that the rows are for; shape: the other limits of a row. Raises DataError if the
    longest question with its picture takes more than `most` tokens.
    """
    prefix = data[0][1].tokenizer.prefix(shape.image_tokens).size
    longest = prefix + max(questions.longest() for _, questions in data)
    lengths = range(-(-longest // ROW_STEP) * ROW_STEP, most + 1, ROW_STEP)
    if not lengths:
        raise DataError(f"the longest question takes {longest} tokens with its picture, a row at most {most}")

    def fill(tokens: int) -> float:
        tried, plans = dataclasses.replace(shape, tokens=tokens), []
        for pictures, questions in data:
            chosen = np.linspace(0, len(pictures) - 1, min(len(pictures), SAMPLED)).astype(int)
            plans.append(plan_rows(pictures, questions, tried, BadRecords("report"), np.unique(chosen)))
        return sum(plan.fill * len(plan.rows) for plan in plans) / max(1, sum(len(plan.rows) for plan in plans))

    fills = {tokens: fill(tokens) for tokens in lengths}
    return next(tokens for tokens in lengths if fills[tokens] > max(fills.values()) - 0.01)


def check_fit(
    picture: Picture, question: Question, ids: np.ndarray, prefix: int, shape: RowShape, tokenizer: ChatTokenizer
) -> None:
    """Checks that one question can stand in a row by itself.

    Raises DataError: too many tokens or regions for the row, or tokens that do not match the regions.
    """
    tokens, regions = prefix + ids.size, len(set(question.regions))
    marks = [np.count_nonzero(ids == token) for token in (tokenizer.mask_rgb_id, tokenizer.mask_depth_id)]
    wrong = [count for count in marks if count != len(question.regions)]
    if tokens > shape.tokens:
        reason = f"takes {tokens} tokens with its picture, more than the {shape.tokens} of a row"
    elif np.any(ids == tokenizer.image_id):
        reason = "holds the image token in its text"
    elif not shape.regions:
        return
    elif regions > shape.regions:
        reason = f"has {regions} regions, more than the {shape.regions} of a row's picture"
    elif wrong:
        reason = f"holds {wrong[0]} mask tokens for {len(question.regions)} regions"
    elif question.regions and picture.depth is None:
        reason = "has regions but its picture has no depth"
    else:
        return
    raise DataError(f"{picture.image}: question {question.id!r} {reason}")


class _Rows:
    """Rows that grow; those that can take another picture are known by their free tokens."""

    def __init__(self, pictures: Sequence[Picture], questions: TokenisedQuestions, shape: RowShape):
        self.prefix = questions.tokenizer.prefix(shape.image_tokens).size
        self._questions, self._shape = questions, shape
        # Asked for again and again, and made anew from prepared data each time.
        self._regions = functools.cache(lambda index: [question.regions for question in pictures[index].questions])
        self._parts: list[dict[int, list[int]]] = []  # of a row: picture -> its questions
        self._space: list[int] = []  # free tokens of a row
        # Free tokens -> rows, the last changed one at the end.
        self._open: defaultdict[int, dict[int, None]] = defaultdict(dict)
        self._spaces: list[int] = []  # free tokens of open rows, in order

    def tokens(self, picture: int, questions: Sequence[int]) -> int:
        """What questions of a picture take in a row, with its prefix."""
        sizes = [self._questions.size(picture, question) for question in questions]
        return self.prefix + sum(sizes) if sizes else 0

    def split(self, picture: int, questions: Sequence[int]) -> list[list[int]]:
        """Cuts a picture's questions into parts that each fit a row: every question goes into the first part that takes it."""
        parts: list[list[int]] = []
        for question in questions:
            part = next((part for part in parts if self._fit(picture, [*part, question], self._shape.tokens)), None)
            if part is None:
                parts.append(part := [])
            part.append(question)
        return parts

    def place(self, picture: int, questions: list[int]) -> None:
        """Puts a part into the fullest row that takes it, else into a new one."""
        row = self._fullest(self.tokens(picture, questions), picture)
        if row is None:
            row = len(self._parts)
            self._parts.append({})
            self._space.append(self._shape.tokens)
        self._set(row, picture, questions)

    def dissolve(self) -> None:
        """Empties rows, the emptiest first, into the others until one of them does not go."""
        holders: defaultdict[int, list[int]] = defaultdict(list)
        for row, parts in enumerate(self._parts):
            for picture in parts:
                holders[picture].append(row)
        for row in sorted(range(len(self._parts)), key=lambda row: (-self._space[row], row)):
            self._close(row)
            moved: list[tuple[int, int, int]] = []
            if not all(self._move(row, picture, holders[picture], moved) for picture in self._parts[row]):
                for target, picture, question in moved:
                    self._set(target, picture, [n for n in self._parts[target][picture] if n != question])
                return
            self._parts[row], self._space[row] = {}, self._shape.tokens

    def plan(self) -> Plan:
        rows = [parts for parts in self._parts if parts]
        total = max(1, len(rows))
        return Plan(
            rows=tuple(tuple(PackedPicture(p, tuple(found)) for p, found in parts.items()) for parts in rows),
            fill=sum(self.tokens(*part) for parts in rows for part in parts.items()) / (total * self._shape.tokens),
            questions_per_row=sum(len(found) for parts in rows for found in parts.values()) / total,
            pictures_per_row=sum(map(len, rows)) / total,
            answers=max((sum(map(self._answers, parts.items())) for parts in rows), default=0),
        )

    def _answers(self, part: tuple[int, Sequence[int]]) -> int:
        picture, questions = part
        return sum(self._questions.answer_size(picture, question) for question in questions)

    def _move(self, row: int, picture: int, holders: list[int], moved: list[tuple[int, int, int]]) -> bool:
        """Puts a picture's questions of one row into others, those that hold the picture first; False where one finds no place."""
        size = functools.partial(self._questions.size, picture)
        rest = sorted(self._parts[row][picture], key=lambda question: (-size(question), question))
        targets = [target for target in holders if target != row and picture in self._parts[target]]
        rest = self._add(targets, picture, rest, moved)
        while rest:
            target = self._fullest(self.tokens(picture, rest), picture)
            if target is None:
                target = self._first_of(reversed(self._spaces), picture)
            chosen = [] if target is None else [target]
            left = self._add(chosen, picture, rest, moved)
            if left == rest:
                return False
            holders += chosen
            rest = left
        return True

    def _add(
        self, rows: Sequence[int], picture: int, questions: Sequence[int], moved: list[tuple[int, int, int]]
    ) -> list[int]:
        """Puts each question into the first of the rows that takes it, noted as (row, picture, question); returns the rest."""
        rest = []
        for question in questions:
            row = next((row for row in rows if self._takes(row, picture, question)), None)
            if row is None:
                rest.append(question)
            else:
                self._set(row, picture, [*self._parts[row].get(picture, ()), question])
                moved.append((row, picture, question))
        return rest

    def _takes(self, row: int, picture: int, question: int) -> bool:
        before = self._parts[row].get(picture, [])
        if not before and len(self._parts[row]) == self._shape.pictures:
            return False
        return self._fit(picture, [*before, question], self._space[row] + self.tokens(picture, before))

    def _fit(self, picture: int, questions: Sequence[int], space: int) -> bool:
        """Whether questions of a picture can stand together in so many tokens of a row."""
        most = self._shape.regions
        return self.tokens(picture, questions) <= space and (
            not most or len({region for number in questions for region in self._regions(picture)[number]}) <= most
        )

    def _set(self, row: int, picture: int, questions: list[int]) -> None:
        self._close(row)
        parts = self._parts[row]
        self._space[row] += self.tokens(picture, parts.get(picture, ())) - self.tokens(picture, questions)
        parts[picture] = questions
        if not questions:
            del parts[picture]
        if len(parts) < self._shape.pictures:
            space = self._space[row]
            if not self._open[space]:
                bisect.insort(self._spaces, space)
            self._open[space][row] = None

    def _close(self, row: int) -> None:
        rows = self._open[self._space[row]]
        if row in rows:
            del rows[row]
            if not rows:
                self._spaces.remove(self._space[row])

    def _fullest(self, size: int, picture: int) -> int | None:
        """The fullest row with `size` free tokens that does not hold the picture: a row holds a picture once."""
        return self._first_of(self._spaces[bisect.bisect_left(self._spaces, size) :], picture)

    def _first_of(self, spaces: Iterable[int], picture: int) -> int | None:
        rows = (row for space in spaces for row in reversed(self._open[space]) if picture not in self._parts[row])
        return next(rows, None)
