"""Packing pictures and their questions into rows of fixed shape.

A row holds up to P pictures, each with its prefix once and then its questions:

    tokens        U I I I q q q a a  q q a | U I I I q q a a | pad
    picture_ids   1 1 1 1 1 1 1 1 1  1 1 1 | 2 2 2 2 2 2 2 2 | 0
    question_ids  0 0 0 0 1 1 1 1 1  2 2 2 | 0 0 0 0 3 3 3 3 | 0
    positions     0 1 2 3 4 5 6 7 8  4 5 6 | 0 1 2 3 4 5 6 7 | 0

A token attends to the earlier ones of its picture that are in the prefix or in its own question, so
every question sees what it would see alone. The plan (which questions share a row) is a list made
once from the data; shuffling, sharding and resuming are arithmetic on its indices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from smolrgpt_jax.data.records import BadRecords, DataError, Picture, Question, Region
from smolrgpt_jax.data.text import IGNORE, ChatTokenizer


@dataclasses.dataclass(frozen=True)
class RowShape:
    """The static sizes of a row.

    Attributes:
      tokens: S, length of the row in tokens.
      pictures: P, most pictures in it.
      regions: R, most distinct regions of one picture in it. 0 makes the run RGB only: no depth,
        no masks, and "<mask>" tokens keep their own embedding.
      image_tokens: T, tokens a picture takes in the sequence.
      image_size: height and width of the encoder's input in pixels.
      mask_grid: g, height and width of the map on which regions are pooled.
    """

    tokens: int
    pictures: int
    regions: int
    image_tokens: int
    image_size: int
    mask_grid: int


class TokenisedQuestions:
    """The ids of all questions of a list of pictures, kept as one flat array.

    Indexed by (picture, question), both positions in the lists given.
    """

    def __init__(self, pictures: Sequence[Picture], tokenizer: ChatTokenizer, with_answers: bool = True):
        """Tokenises; ``with_answers`` False leaves generation prompts."""
        questions = [question for picture in pictures for question in picture.questions]
        encoded = tokenizer.conversations(
            [
                question.turns if with_answers or question.answer is None else question.turns[:-1]
                for question in questions
            ]
        )
        self.tokenizer = tokenizer
        self._ids = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in encoded)])
        self._counted = np.concatenate([np.zeros(0, bool), *(counted for _, counted in encoded)])
        self._ends = np.cumsum([0] + [ids.size for ids, _ in encoded])
        self._first = np.cumsum([0] + [len(picture.questions) for picture in pictures])

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids after the picture's prefix, int32[N], and which of them are answers, bool[N]."""
        index = self._first[key[0]] + key[1]
        span = slice(self._ends[index], self._ends[index + 1])
        return self._ids[span], self._counted[span]


@dataclasses.dataclass(frozen=True)
class PackedPicture:
    """A picture's place in a row: its index and the indices of those of its questions that are in."""

    picture: int
    questions: tuple[int, ...]


Row = tuple[PackedPicture, ...]


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
) -> Plan:
    """Packs questions into rows: first fit within a picture, best fit decreasing over the rows.

    The questions of a picture that do not fit one row are continued in another, with the prefix
    repeated. The same data and shape always give the same plan.

    Args:
      pictures: the records.
      questions: their tokens.
      shape: limits of a row.
      on_bad_record: policy for questions that fit no row or lack an answer; None stops.

    Raises:
      DataError: under "error", naming the question.
    """
    on_bad_record = on_bad_record or BadRecords("error")
    prefix = questions.tokenizer.prefix(shape.image_tokens).size
    parts: list[tuple[int, PackedPicture]] = []
    for index, picture in enumerate(pictures):
        usable = []
        for number, question in enumerate(picture.questions):
            if question.answer is None:
                on_bad_record.reject(
                    DataError(f"{picture.image}: question {question.id!r} has no answer to train on")
                )
                continue
            try:
                check_fit(picture, question, questions[index, number][0], prefix, shape, questions.tokenizer)
            except DataError as error:
                on_bad_record.reject(error)
                continue
            usable.append(number)
        parts += _split(index, picture, usable, questions, prefix, shape)
    rows = _best_fit_decreasing(parts, shape)
    total = max(1, len(rows))
    return Plan(
        rows=rows,
        fill=sum(size for size, _ in parts) / (total * shape.tokens),
        questions_per_row=sum(len(part.questions) for _, part in parts) / total,
        pictures_per_row=len(parts) / total,
    )


def check_fit(
    picture: Picture,
    question: Question,
    ids: np.ndarray,
    prefix: int,
    shape: RowShape,
    tokenizer: ChatTokenizer,
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
            f"{name} has {len(set(question.regions))} regions, "
            f"more than the {shape.regions} of a row's picture"
        )
    for token in (tokenizer.mask_rgb_id, tokenizer.mask_depth_id):
        if np.count_nonzero(ids == token) != len(question.regions):
            raise DataError(
                f"{name} holds {np.count_nonzero(ids == token)} mask tokens for "
                f"{len(question.regions)} regions"
            )
    if question.regions and picture.depth is None:
        raise DataError(f"{name} has regions but its picture has no depth")


def empty_batch(rows: int, shape: RowShape, pad_id: int) -> dict[str, np.ndarray]:
    """Returns a batch of padding rows; they attend to nothing and contribute no loss.

    Keys and arrays, with B = rows and the letters of ``RowShape``:
      tokens int32[B, S]: input ids.
      targets int32[B, S]: id of the next token where that one is an answer's, else -100.
      positions int32[B, S]: restart after the picture prefix for every question.
      picture_ids int32[B, S]: 1..P, 0 for padding.
      question_ids int32[B, S]: 0 for prefixes and padding, 1.. counting the row's questions.
      feature_index int32[B, S]: -1 text; p*T + t image token; P*T + p*R + r RGB feature of region r;
        P*T + P*R + p*R + r its depth feature.
      images float32[B, P, H, W, 3]: in [-1, 1].
      depths float32[B, P, H, W, 3]; region_masks float32[B, P, R, g, g]: absent if R is 0.
    """

    def text(value: int) -> np.ndarray:
        return np.full((rows, shape.tokens), value, np.int32)

    pixels = (rows, shape.pictures, shape.image_size, shape.image_size, 3)
    batch = {
        "tokens": text(pad_id),
        "targets": text(IGNORE),
        "positions": text(0),
        "picture_ids": text(0),
        "question_ids": text(0),
        "feature_index": text(-1),
        "images": np.zeros(pixels, np.float32),
    }
    if shape.regions:
        batch["depths"] = np.zeros(pixels, np.float32)
        batch["region_masks"] = np.zeros(
            (rows, shape.pictures, shape.regions, shape.mask_grid, shape.mask_grid), np.float32
        )
    return batch


def fill_text(
    out: dict[str, np.ndarray],
    row: Row,
    pictures: Sequence[Picture],
    questions: TokenisedQuestions,
    shape: RowShape,
) -> list[tuple[Region, ...]]:
    """Writes the token arrays of one row.

    Args:
      out: one row of ``empty_batch`` (each array without its first dimension), written in place.
      row: its pictures and questions.
      pictures, questions, shape: as given to ``plan_rows``.

    Returns:
      For each picture of the row its distinct regions, in the order of their slots.
    """
    prefix = questions.tokenizer.prefix(shape.image_tokens)
    slots: list[tuple[Region, ...]] = []
    at = number = 0
    for place, packed in enumerate(row):
        span = slice(at, at + prefix.size)
        out["tokens"][span] = prefix
        out["positions"][span] = np.arange(prefix.size)
        out["picture_ids"][span] = place + 1
        image = np.flatnonzero(prefix == questions.tokenizer.image_id)
        out["feature_index"][at + image] = place * shape.image_tokens + np.arange(image.size)
        at += prefix.size
        regions: dict[Region, int] = {}
        for question in packed.questions:
            number += 1
            ids, counted = questions[packed.picture, question]
            span = slice(at, at + ids.size)
            out["tokens"][span] = ids
            out["positions"][span] = prefix.size + np.arange(ids.size)
            out["picture_ids"][span] = place + 1
            out["question_ids"][span] = number
            out["targets"][at - 1 + np.flatnonzero(counted)] = ids[counted]
            if shape.regions:
                used = [
                    regions.setdefault(region, len(regions))
                    for region in pictures[packed.picture].questions[question].regions
                ]
                _index_regions(out["feature_index"][span], ids, used, place, shape, questions.tokenizer)
            at += ids.size
        slots.append(tuple(regions))
    return slots


def _index_regions(
    out: np.ndarray, ids: np.ndarray, used: list[int], place: int, shape: RowShape, tokenizer: ChatTokenizer
) -> None:
    rgb = shape.pictures * shape.image_tokens + place * shape.regions + np.array(used, np.int32)
    out[ids == tokenizer.mask_rgb_id] = rgb
    out[ids == tokenizer.mask_depth_id] = rgb + shape.pictures * shape.regions


def _split(
    index: int,
    picture: Picture,
    usable: Sequence[int],
    questions: TokenisedQuestions,
    prefix: int,
    shape: RowShape,
) -> list[tuple[int, PackedPicture]]:
    """Cuts a picture's questions into parts that fit a row: (tokens, part)."""
    sizes: list[int] = []
    members: list[list[int]] = []
    regions: list[set[Region]] = []
    for number in usable:
        size = questions[index, number][0].size
        needed = set(picture.questions[number].regions) if shape.regions else set()
        for part, taken in enumerate(sizes):
            if taken + size <= shape.tokens and (
                not shape.regions or len(regions[part] | needed) <= shape.regions
            ):
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


def _best_fit_decreasing(parts: Sequence[tuple[int, PackedPicture]], shape: RowShape) -> tuple[Row, ...]:
    """Puts each part, longest first, into the fullest row that still takes it.

    Rows that can take more are kept by their free tokens; ``free`` has bit n set where some row
    has n free tokens, so that finding the fullest one is a shift and a lowest set bit.
    """
    rows: list[list[PackedPicture]] = []
    by_space: list[list[int]] = [[] for _ in range(shape.tokens + 1)]
    free = 0
    for size, part in sorted(parts, key=lambda item: (-item[0], item[1].picture, item[1].questions)):
        candidates = free >> size
        if candidates:
            space = size + (candidates & -candidates).bit_length() - 1
            row = by_space[space].pop()
            if not by_space[space]:
                free &= ~(1 << space)
        else:
            space, row = shape.tokens, len(rows)
            rows.append([])
        rows[row].append(part)
        left = space - size
        if len(rows[row]) < shape.pictures:
            by_space[left].append(row)
            free |= 1 << left
    return tuple(tuple(row) for row in rows)
