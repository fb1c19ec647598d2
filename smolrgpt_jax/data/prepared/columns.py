"""The questions of a prepared split by columns: as objects, half a million would take ten seconds of every start and a gigabyte."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smolrgpt_jax.data.masks import MASK
from smolrgpt_jax.data.records import Question, StoredRegion, normalize_answer
from smolrgpt_jax.errors import DataError

SCHEMA = pa.schema(
    {
        "picture": pa.int32(),
        "name": pa.string(),
        "has_depth": pa.bool_(),
        "id": pa.string(),
        "category": pa.string(),
        "turns": pa.list_(pa.string()),
        "normalized_answer": pa.string(),
        "regions": pa.list_(pa.int32()),
    }
)

_region = functools.cache(StoredRegion)


@dataclasses.dataclass(frozen=True, eq=False)
class QuestionColumns:
    """Questions, each made when it is asked for.

    ids, categories, answers: object[N], answers in the type of their category; turns: object[T] of all questions' texts, None where
    they were left out; regions: int32[M]; turn_ends, region_ends: int64[N + 1], where each question's begin and end.
    """

    ids: np.ndarray
    categories: np.ndarray
    answers: np.ndarray
    turns: np.ndarray | None
    turn_ends: np.ndarray
    regions: np.ndarray
    region_ends: np.ndarray

    def __getitem__(self, index: int) -> Question:
        first, end = self.region_ends[index : index + 2]
        regions = tuple(map(_region, self.regions[first:end].tolist()))
        common = self.ids[index], self.categories[index]
        if self.turns is None:
            return Question(*common, "", None, self.answers[index], regions)
        first, end = self.turn_ends[index : index + 2]
        turns = self.turns[first:end].tolist()
        users, answers = turns[::2], turns[1::2]
        answer = answers[-1] if len(answers) == len(users) else None
        return Question(*common, users[-1], answer, self.answers[index], regions, tuple(zip(users[:-1], answers)))

    @functools.cached_property
    def without_texts(self) -> "QuestionColumns":
        return dataclasses.replace(self, turns=None)


class PictureQuestions(Sequence[Question]):
    """Those of one picture."""

    __slots__ = "_columns", "_numbers"

    def __init__(self, columns: QuestionColumns, numbers: range):
        self._columns, self._numbers = columns, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Question: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Question, ...]: ...
    def __getitem__(self, place: int | slice) -> Question | tuple[Question, ...]:
        chosen = self._numbers[place]
        return self._columns[chosen] if isinstance(chosen, int) else tuple(map(self._columns.__getitem__, chosen))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def without_texts(self) -> "PictureQuestions":
        return PictureQuestions(self._columns.without_texts, self._numbers)


def read_columns(file: Path, table: pa.Table) -> QuestionColumns:
    """The questions of a table of SCHEMA; raises DataError, which names the file and the picture, for one that cannot be used."""
    _check_filled(file, table)
    turn_ends, region_ends = (_ends(table[name]) for name in ("turns", "regions"))
    texts = pc.list_flatten(table["turns"])
    ids, categories, given, turns = map(_objects, (table["id"], table["category"], table["normalized_answer"], texts))
    answers, reasons = _answers(categories, given)
    for index in np.flatnonzero(np.diff(turn_ends) == 0):
        reasons.setdefault(int(index), "a question without a turn")
    marks = pc.count_substring(texts, MASK).to_numpy().astype(np.int64)
    # Every other text of a question, from its first, is the user's.
    marks[(np.arange(len(marks)) - np.repeat(turn_ends[:-1], np.diff(turn_ends))) % 2 == 1] = 0
    held = np.diff(np.concatenate([[0], np.cumsum(marks)])[turn_ends])
    for index in np.flatnonzero(held != np.diff(region_ends)):
        regions = region_ends[index + 1] - region_ends[index]
        held_for = f"holds {held[index]} {MASK} for {regions} regions"
        reasons.setdefault(int(index), f"question {ids[index]!r} {held_for}")
    if reasons:
        row = table.slice(min(reasons), 1).to_pylist()[0]
        raise DataError(f"{file}: picture {row['picture']} ({row['name']!r}): {reasons[min(reasons)]}")
    regions = pc.list_flatten(table["regions"]).to_numpy()
    return QuestionColumns(ids, categories, answers, turns, turn_ends, regions, region_ends)


def _answers(categories: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Normalised answers, object[N], and why those of which rows cannot be."""
    found, wrong = np.empty(len(given), object), {}
    known = functools.cache(normalize_answer)  # few of half a million differ
    for index, pair in enumerate(zip(categories, given)):
        try:
            found[index] = known(*pair)
        except ValueError as error:
            wrong[index] = str(error)
    return found, wrong


def _check_filled(file: Path, table: pa.Table) -> None:
    """Raises DataError where a question lacks something that every one has, or two have one id."""
    for name, column in zip(table.column_names, table.columns):
        lacking = 0 if name == "normalized_answer" else column.null_count
        if pa.types.is_list(column.type):
            lacking += sum(chunk.flatten().null_count for chunk in column.chunks)
        if lacking:
            raise DataError(f"{file}: the column {name} lacks {lacking} value{'s' * (lacking != 1)}")
    if len(table["id"].unique()) < len(table):
        twice = next(count["values"] for count in table["id"].value_counts().to_pylist() if count["counts"] > 1)
        raise DataError(f"{file}: the id {twice!r} occurs twice")


def _ends(lists: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy(), dtype=np.int64)])


def _objects(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)
