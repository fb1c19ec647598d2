"""Which questions share a row: a plan made once from the data.

The questions of a picture are kept together as far as a row takes them, and rows are filled best fit decreasing. Then the
emptiest rows are dissolved: their questions go into the gaps of other rows as long as all of them find a place, which costs
nothing but a repeated prefix in a picture slot that was empty. grain's packing keeps neither a picture's questions together
nor a bound on pictures and regions, so it does not serve here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import BadRecords, Picture, Question, Region
from smolrgpt_jax.data.rows import PackedPicture, Row, RowShape, TokenisedQuestions
from smolrgpt_jax.errors import DataError

ROW_STEP = 128  # row lengths that are chosen are multiples of it, the width of a TPU's vector unit


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which pictures and questions make up each row, and how well they fill it.

    Attributes:
      rows: every usable question of the data exactly once.
      fill: share of the rows' tokens that is not padding.
      questions_per_row, pictures_per_row: means.
    """

    rows: tuple[Row, ...]
    fill: float
    questions_per_row: float
    pictures_per_row: float

    def __str__(self) -> str:
        return (
            f"{len(self.rows)} rows, {self.fill:.1%} filled, {self.questions_per_row:.1f} "
            f"questions and {self.pictures_per_row:.1f} pictures per row"
        )


def plan_rows(
    pictures: Sequence[Picture],
    questions: TokenisedQuestions,
    shape: RowShape,
    on_bad_record: BadRecords | None = None,
    chosen: Sequence[int] | None = None,
) -> Plan:
    """Packs questions into rows: first fit within a picture, best fit decreasing over the rows, emptiest rows dissolved.

    The questions of a picture that do not fit one row are continued in another, with the prefix
    repeated. The same data and shape always give the same plan.

    Args:
      pictures: the records.
      questions: their tokens.
      shape: limits of a row.
      on_bad_record: policy for questions that fit no row or lack an answer; None stops.
      chosen: indices of the pictures to plan for; None for all.

    Raises:
      DataError: under "error", naming the question.
    """
    on_bad_record = on_bad_record or BadRecords("error")
    prefix = questions.tokenizer.prefix(shape.image_tokens).size
    parts: list[tuple[int, PackedPicture]] = []
    for index in range(len(pictures)) if chosen is None else chosen:
        picture = pictures[index]
        usable = []
        for number, question in enumerate(picture.questions):
            if question.answer is None:
                on_bad_record.reject(DataError(f"{picture.image}: question {question.id!r} has no answer to train on"))
                continue
            try:
                check_fit(picture, question, questions[index, number][0], prefix, shape, questions.tokenizer)
            except DataError as error:
                on_bad_record.reject(error)
                continue
            usable.append(number)
        parts += _split(index, picture, usable, questions, prefix, shape)
    rows = _Rows(pictures, questions, prefix, shape)
    for size, part in sorted(parts, key=lambda item: (-item[0], item[1].picture, item[1].questions)):
        rows.place(part, size)
    rows.dissolve()
    return rows.plan()


def choose_row_tokens(
    data: Sequence[tuple[Sequence[Picture], TokenisedQuestions]],
    shape: RowShape,
    most: int,
    sampled_pictures: int = 2000,
) -> int:
    """The row length for which the fewest tokens are padding.

    Tried are the multiples of 128 from the one that takes the longest question up to ``most``; of lengths whose fill differs by
    less than one percent the shortest is taken. The same data always gives the same length.

    Args:
      data: (pictures, their tokens) of every data set that the rows are for.
      shape: the other limits of a row; its ``tokens`` is not used.
      most: the longest row to try, in tokens.
      sampled_pictures: pictures of each data set, evenly spread, on which lengths are tried.

    Raises:
      DataError: the longest question with its picture takes more than ``most`` tokens.
    """
    prefix = data[0][1].tokenizer.prefix(shape.image_tokens).size
    longest = prefix + max(questions.longest() for _, questions in data)
    lengths = range(-(-longest // ROW_STEP) * ROW_STEP, most + 1, ROW_STEP)
    if not lengths:
        raise DataError(f"the longest question takes {longest} tokens with its picture, a row at most {most}")
    samples = []
    for pictures, questions in data:
        chosen = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), sampled_pictures)).astype(int))
        samples.append((pictures, questions, chosen))

    def fill(tokens: int) -> float:
        tried = dataclasses.replace(shape, tokens=tokens)
        plans = [plan_rows(*sample[:2], tried, BadRecords("report"), sample[2]) for sample in samples]
        return sum(plan.fill * len(plan.rows) for plan in plans) / max(1, sum(len(plan.rows) for plan in plans))

    fills = {tokens: fill(tokens) for tokens in lengths}
    return next(tokens for tokens in lengths if fills[tokens] > max(fills.values()) - 0.01)


def check_fit(
    picture: Picture, question: Question, ids: np.ndarray, prefix: int, shape: RowShape, tokenizer: ChatTokenizer
) -> None:
    """Checks that one question can stand in a row by itself.

    Raises:
      DataError: too many tokens or regions for the row, or tokens that do not match the regions.
    """
    name = f"{picture.image}: question {question.id!r}"
    if prefix + ids.size > shape.tokens:
        raise DataError(
            f"{name} takes {prefix + ids.size} tokens with its picture, more than the {shape.tokens} of a row"
        )
    if np.any(ids == tokenizer.image_id):
        raise DataError(f"{name} holds the image token in its text")
    if not shape.regions:
        return
    if len(set(question.regions)) > shape.regions:
        raise DataError(
            f"{name} has {len(set(question.regions))} regions, more than the {shape.regions} of a row's picture"
        )
    for token in (tokenizer.mask_rgb_id, tokenizer.mask_depth_id):
        if np.count_nonzero(ids == token) != len(question.regions):
            raise DataError(
                f"{name} holds {np.count_nonzero(ids == token)} mask tokens for {len(question.regions)} regions"
            )
    if question.regions and picture.depth is None:
        raise DataError(f"{name} has regions but its picture has no depth")


def _split(
    index: int, picture: Picture, usable: Sequence[int], questions: TokenisedQuestions, prefix: int, shape: RowShape
) -> list[tuple[int, PackedPicture]]:
    """Cuts a picture's questions into parts that fit a row: (tokens, part)."""
    sizes: list[int] = []
    members: list[list[int]] = []
    regions: list[set[Region]] = []
    for number in usable:
        size = questions[index, number][0].size
        needed = set(picture.questions[number].regions) if shape.regions else set()
        for part, taken in enumerate(sizes):
            if taken + size <= shape.tokens and (not shape.regions or len(regions[part] | needed) <= shape.regions):
                break
        else:
            part = len(sizes)
            sizes.append(prefix)
            members.append([])
            regions.append(set())
        sizes[part] += size
        members[part].append(number)
        regions[part] |= needed
    return [(size, PackedPicture(index, tuple(numbers))) for size, numbers in zip(sizes, members)]


class _Rows:
    """Rows that grow.

    Rows that can take another picture are kept by their free tokens; ``_free`` has bit n set where some row has n of them, so
    that finding the fullest or the emptiest one is a shift and a bit length.
    """

    def __init__(self, pictures: Sequence[Picture], questions: TokenisedQuestions, prefix: int, shape: RowShape):
        self._pictures, self._questions, self._prefix, self._shape = pictures, questions, prefix, shape
        self._parts: list[dict[int, list[int]]] = []  # of a row: picture -> its questions
        self._space: list[int] = []
        self._by_space: list[dict[int, None]] = [{} for _ in range(shape.tokens + 1)]
        self._free = 0

    def place(self, part: PackedPicture, size: int) -> None:
        """Puts a part into the fullest row that takes it, else into a new one."""
        row = self._fullest(size, part.picture)
        if row is None:
            row = len(self._parts)
            self._parts.append({})
            self._space.append(self._shape.tokens)
        self._close(row)
        self._parts[row][part.picture] = list(part.questions)
        self._space[row] -= size
        self._open(row)

    def dissolve(self) -> None:
        """Empties rows, the emptiest first, into the others until one of them does not go."""
        holders: dict[int, list[int]] = {}
        for row, parts in enumerate(self._parts):
            for picture in parts:
                holders.setdefault(picture, []).append(row)
        for row in sorted(range(len(self._parts)), key=lambda row: (-self._space[row], row)):
            if not self._empty_into_others(row, holders):
                return

    def plan(self) -> Plan:
        """The rows as a plan."""
        rows = [parts for parts in self._parts if parts]
        used = sum(self._shape.tokens - space for space, parts in zip(self._space, self._parts) if parts)
        total = max(1, len(rows))
        return Plan(
            rows=tuple(tuple(PackedPicture(p, tuple(found)) for p, found in parts.items()) for parts in rows),
            fill=used / (total * self._shape.tokens),
            questions_per_row=sum(len(found) for parts in rows for found in parts.values()) / total,
            pictures_per_row=sum(map(len, rows)) / total,
        )

    def _empty_into_others(self, row: int, holders: dict[int, list[int]]) -> bool:
        """Moves all questions of a row into other rows; False leaves everything as it was."""
        self._close(row)
        moved: list[tuple[int, int, int]] = []
        for picture, found in self._parts[row].items():
            for target, question in self._new_homes(row, picture, found, holders):
                moved.append((target, picture, question))
        if len(moved) == sum(map(len, self._parts[row].values())):
            self._parts[row], self._space[row] = {}, self._shape.tokens
            return True
        for target, picture, question in reversed(moved):
            self._take_out(target, picture, question)
        self._open(row)
        return False

    def _new_homes(
        self, row: int, picture: int, found: Sequence[int], holders: dict[int, list[int]]
    ) -> Iterator[tuple[int, int]]:
        """Puts questions of one picture into other rows, yields (row, question) for each, ends where one finds no place."""
        rest = sorted(found, key=lambda question: (-self._size(picture, question), question))
        for question in list(rest):
            for target in holders[picture]:
                if target != row and picture in self._parts[target] and self._takes(target, picture, question):
                    self._put_in(target, picture, question)
                    rest.remove(question)
                    yield target, question
                    break
        while rest:
            target = self._fullest(self._prefix + sum(self._size(picture, question) for question in rest), picture)
            if target is None:
                target = self._emptiest(picture)
            if target is None:
                return
            into = [question for question in rest if self._put_in_if_fits(target, picture, question)]
            if not into:
                return
            holders[picture].append(target)
            yield from ((target, question) for question in into)
            rest = [question for question in rest if question not in into]

    def _put_in_if_fits(self, row: int, picture: int, question: int) -> bool:
        fits = self._takes(row, picture, question)
        if fits:
            self._put_in(row, picture, question)
        return fits

    def _takes(self, row: int, picture: int, question: int) -> bool:
        parts, needed = self._parts[row], self._size(picture, question)
        if picture not in parts:
            return len(parts) < self._shape.pictures and self._prefix + needed <= self._space[row]
        if needed > self._space[row]:
            return False
        asked = self._pictures[picture].questions
        regions = {region for number in (*parts[picture], question) for region in asked[number].regions}
        return not self._shape.regions or len(regions) <= self._shape.regions

    def _put_in(self, row: int, picture: int, question: int) -> None:
        self._close(row)
        parts = self._parts[row]
        self._space[row] -= self._size(picture, question) + (0 if picture in parts else self._prefix)
        parts.setdefault(picture, []).append(question)
        self._open(row)

    def _take_out(self, row: int, picture: int, question: int) -> None:
        self._close(row)
        parts = self._parts[row]
        parts[picture].remove(question)
        self._space[row] += self._size(picture, question)
        if not parts[picture]:
            del parts[picture]
            self._space[row] += self._prefix
        self._open(row)

    def _size(self, picture: int, question: int) -> int:
        return self._questions[picture, question][0].size

    def _fullest(self, size: int, picture: int) -> int | None:
        """The fullest row with ``size`` free tokens that does not hold the picture: a row holds a picture once."""
        candidates = self._free >> size if size <= self._shape.tokens else 0
        while candidates:
            lowest = candidates & -candidates
            for row in reversed(self._by_space[size + lowest.bit_length() - 1]):
                if picture not in self._parts[row]:
                    return row
            candidates ^= lowest
        return None

    def _emptiest(self, picture: int) -> int | None:
        """The row with the most free tokens, of those that do not hold the picture."""
        candidates = self._free
        while candidates:
            space = candidates.bit_length() - 1
            for row in reversed(self._by_space[space]):
                if picture not in self._parts[row]:
                    return row
            candidates ^= 1 << space
        return None

    def _open(self, row: int) -> None:
        if len(self._parts[row]) < self._shape.pictures:
            space = self._space[row]
            self._by_space[space][row] = None
            self._free |= 1 << space

    def _close(self, row: int) -> None:
        space = self._space[row]
        if row in self._by_space[space]:
            del self._by_space[space][row]
            if not self._by_space[space]:
                self._free &= ~(1 << space)
