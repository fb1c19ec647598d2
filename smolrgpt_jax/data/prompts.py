"""Pictures -> batches of generation prompts, for evaluation.

A row holds one picture's prefix and its questions one after another, as packed rows of training do:

    U I I I q q q a  q q a  q q q q a | pad        a: the assistant's header, after which the answer is generated

Rows have one of a few lengths, chosen from the data so that they leave the least padding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from smolrgpt_jax.data.pictures import FileLoader
from smolrgpt_jax.data.plan import check_fit
from smolrgpt_jax.data.records import BadRecords, Picture, Region
from smolrgpt_jax.data.rows import PackedPicture, RowShape, TokenisedQuestions, empty_batch, fill_text
from smolrgpt_jax.errors import DataError

LENGTH_STEP = 32  # row lengths are multiples of it
MOST_LENGTHS = 4
ROWS_PER_LENGTH = 16


@dataclasses.dataclass(frozen=True)
class PromptRow:
    """A picture with some of its questions.

    Attributes:
      part: the indices of the picture and its questions.
      tokens: length of the row, and lengths: of each question in it, in tokens.
    """

    part: PackedPicture
    tokens: int
    lengths: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What is asked.

    Attributes:
      pictures, questions: the records and their tokens, without answers.
      rows: every question that can be asked once.
      shape: image sizes and most regions of a row; its tokens are the longest a row may be.
    """

    pictures: Sequence[Picture]
    questions: TokenisedQuestions
    rows: list[PromptRow]
    shape: RowShape

    @property
    def prefix(self) -> int:
        """Tokens before a picture's questions."""
        return self.questions.tokenizer.prefix(self.shape.image_tokens).size

    @property
    def longest(self) -> int:
        """Tokens of the longest question with its picture's prefix."""
        return self.prefix + max((max(row.lengths) for row in self.rows), default=0)


def plan_prompts(
    pictures: Sequence[Picture],
    questions: TokenisedQuestions,
    shape: RowShape,
    *,
    row_tokens: int = 2048,
    answered: Collection[str] = (),
    on_bad_record: BadRecords | None = None,
) -> Prompts:
    """Puts every picture's questions into a row, or into several where they are too long for one.

    Args:
      pictures: the records; answers are not used.
      questions: their tokens, without answers.
      shape: ``tokens`` is the longest prompt; ``regions`` and ``pictures`` are not used.
      row_tokens: rows of more tokens are only made for single questions that are longer.
      answered: ids of questions that are left out.
      on_bad_record: what to do with a question that does not fit.

    Raises:
      DataError: under "error", for a question that does not fit.
    """
    on_bad_record = on_bad_record or BadRecords("error")
    most = max((len(set(q.regions)) for p in pictures for q in p.questions), default=0)
    shape = dataclasses.replace(shape, pictures=1, regions=most)
    prefix = questions.tokenizer.prefix(shape.image_tokens).size
    rows: list[PromptRow] = []
    for index, picture in enumerate(pictures):
        chosen: list[int] = []
        for number, question in enumerate(picture.questions):
            if question.id in answered:
                continue
            try:
                ids = questions[index, number][0]
                check_fit(picture, question, ids, prefix, shape, questions.tokenizer)
            except DataError as error:
                on_bad_record.reject(error)
                continue
            chosen.append(number)
        sizes = {number: questions[index, number][0].size for number in chosen}
        while chosen:
            room = row_tokens - prefix - np.cumsum([sizes[number] for number in chosen])
            count = max(1, int(np.count_nonzero(room >= 0)))
            taken, chosen = tuple(chosen[:count]), chosen[count:]
            lengths = tuple(sizes[number] for number in taken)
            rows.append(PromptRow(PackedPicture(index, taken), prefix + sum(lengths), lengths))
    most = max((len(_regions(pictures, row)) for row in rows), default=0) if most else 0
    return Prompts(pictures, questions, rows, dataclasses.replace(shape, regions=most))


def _regions(pictures: Sequence[Picture], row: PromptRow) -> set[Region]:
    picture = pictures[row.part.picture]
    return {region for number in row.part.questions for region in picture.questions[number].regions}


def choose_lengths(tokens: Sequence[int], most: int) -> list[int]:
    """At most so many row lengths (multiples of ``LENGTH_STEP``) that leave rows of these tokens the least padding."""
    rounded = [-(-number // LENGTH_STEP) * LENGTH_STEP for number in tokens]
    lengths, counts = np.unique(rounded, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    # cost[k][i]: tokens of the rows of the first i lengths, in k + 1 buckets; the last one ends at length i.
    cost = [np.where(below == 0, 0.0, np.inf)]
    cuts = []
    for _ in range(min(most, len(lengths))):
        best, cut = np.full(len(below), np.inf), np.zeros(len(below), int)
        best[0] = 0.0
        for end in range(1, len(below)):
            totals = cost[-1][:end] + (below[end] - below[:end]) * float(lengths[end - 1])
            cut[end], best[end] = int(totals.argmin()), totals.min()
        cost.append(best)
        cuts.append(cut)
    chosen, end = [], len(lengths)
    for cut in reversed(cuts):
        if end:
            chosen.append(int(lengths[end - 1]))
            end = cut[end]
    return sorted(chosen)


@dataclasses.dataclass(frozen=True)
class PromptBatch:
    """Rows of one length.

    Attributes:
      arrays: those of ``empty_batch`` with P = 1, without targets. Rows past the last are padding.
      asked: for each question (picture, question, row, first token, tokens); those of an unreadable picture are missing.
      questions: most questions of any batch of this length.
    """

    arrays: dict[str, np.ndarray]
    asked: list[tuple[int, int, int, int, int]]
    questions: int


def prompt_batches(
    prompts: Prompts,
    load: FileLoader,
    *,
    most_lengths: int = MOST_LENGTHS,
    batch_tokens: int = 1024,
    multiple: int = 1,
    on_bad_record: BadRecords | None = None,
) -> Iterator[PromptBatch]:
    """Yields every row of the prompts once, the longest first.

    Args:
      load: as for `PackedRows`.
      most_lengths: most different row lengths; fewer for few rows, since every one costs a compilation.
      batch_tokens: a batch has so many rows that it holds about so many tokens for every one of ``multiple``.
      multiple: rows of a batch are a multiple of it.
      on_bad_record: what to do with a picture that cannot be read.

    Raises:
      DataError: under "error", for an unreadable picture.
    """
    on_bad_record = on_bad_record or BadRecords("error")
    most_lengths = min(most_lengths, 1 + len(prompts.rows) // ROWS_PER_LENGTH)
    lengths = choose_lengths([row.tokens for row in prompts.rows], most_lengths)
    shorter = [0, *lengths]
    for least, length in zip(reversed(shorter[:-1]), reversed(lengths)):
        rows = [row for row in prompts.rows if least < row.tokens <= length]
        count = multiple * max(1, min(batch_tokens // length, -(-len(rows) // multiple)))
        batches = [rows[begin : begin + count] for begin in range(0, len(rows), count)]
        questions = max(sum(len(row.lengths) for row in batch) for batch in batches)
        shape = dataclasses.replace(prompts.shape, tokens=length)
        for batch in batches:
            arrays, asked = _fill(prompts, batch, count, shape, load, on_bad_record)
            yield PromptBatch(arrays, asked, questions)


def _fill(
    prompts: Prompts,
    rows: Sequence[PromptRow],
    count: int,
    shape: RowShape,
    load: FileLoader,
    on_bad_record: BadRecords,
) -> tuple[dict[str, np.ndarray], list[tuple[int, int, int, int, int]]]:
    arrays = empty_batch(count, shape, prompts.questions.tokenizer.pad_id)
    del arrays["targets"]
    asked = []
    for place, row in enumerate(rows):
        out = {name: value[place] for name, value in arrays.items()}
        out["targets"] = np.zeros(shape.tokens, np.int32)
        (regions,) = fill_text(out, (row.part,), prompts.pictures, prompts.questions, shape)
        try:
            load.fill(out, 0, prompts.pictures[row.part.picture], regions)
        except DataError as error:
            on_bad_record.reject(error)
            continue
        begin = prompts.prefix
        for number, length in zip(row.part.questions, row.lengths):
            asked.append((row.part.picture, number, place, begin, length))
            begin += length
    return arrays, asked
