"""Pictures -> batches of generation prompts, for evaluation.

A row holds one picture's prefix and its questions one after another, as packed rows of training do:

    U I I I q q q a  q q a  q q q q a | pad        a: the assistant's header, after which the answer is generated

Rows have one of a few lengths, chosen from the data so that they leave the least padding.
"""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.plan import check_fit
from smolrgpt_jax.data.records import BadRecords, Picture, Question
from smolrgpt_jax.data.rows import FileLoader, PackedPicture, RowShape, TokenisedQuestions, empty_batch, fill_text
from smolrgpt_jax.errors import DataError

LENGTH_STEP = 32  # row lengths are multiples of it
MOST_LENGTHS = 4
ROWS_PER_LENGTH = 16
BATCH_TOKENS = 1024


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What is asked."""

    pictures: Sequence[Picture]
    questions: TokenisedQuestions  # without answers
    rows: list[PackedPicture]  # every question that can be asked once, each row with one picture
    shape: RowShape  # image sizes and most regions of a row; its tokens are the longest a row may be

    @property
    def tokenizer(self) -> ChatTokenizer:
        return self.questions.tokenizer

    @property
    def prefix(self) -> int:
        """Tokens before a picture's questions."""
        return self.tokenizer.prefix(self.shape.image_tokens).size

    @property
    def longest(self) -> int:
        """Tokens of the longest question with its picture's prefix."""
        return self.prefix + max((size for row in self.rows for size in self.lengths(row)), default=0)

    def asked(self, row: PackedPicture) -> list[Question]:
        return [self.pictures[row.picture].questions[number] for number in row.questions]

    def lengths(self, row: PackedPicture) -> list[int]:
        """Tokens of each question of a row."""
        return [self.questions.size(row.picture, number) for number in row.questions]


def prompt_shape(config: SmolRGPTConfig) -> RowShape:
    """What `plan_prompts` has to know of a model."""
    tokens = config.decoder.max_positions
    return RowShape(tokens, 1, 0, config.image_tokens, config.vision.image_size, config.mask_grid)


def plan_prompts(
    pictures: Sequence[Picture],
    tokenizer: ChatTokenizer,
    shape: RowShape,
    *,
    row_tokens: int = 2048,
    answered: Collection[str] = (),
    on_bad_record: BadRecords = BadRecords(),
) -> Prompts:
    """Puts every picture's questions into a row, or into several where they are too long for one.

    shape: `tokens` is the longest prompt, `regions` and `pictures` are not used; row_tokens: rows of more tokens are only made for
    single questions that are longer; answered: ids of questions that are left out; on_bad_record: what to do with a question that
    does not fit.

    Raises:
      DataError: under "error", for a question that does not fit.
    """
    questions = TokenisedQuestions(pictures, tokenizer, with_answers=False)
    most = max((len(set(q.regions)) for p in pictures for q in p.questions), default=0)
    shape = dataclasses.replace(shape, pictures=1, regions=most)
    prefix = tokenizer.prefix(shape.image_tokens).size
    rows: list[PackedPicture] = []
    for index, picture in enumerate(pictures):
        fitting = []
        for number, question in enumerate(picture.questions):
            try:
                if question.id not in answered:
                    check_fit(picture, question, questions[index, number][0], prefix, shape, tokenizer)
                    fitting.append(number)
            except DataError as error:
                on_bad_record.reject(error)
        while fitting:
            tokens = prefix + np.cumsum([questions.size(index, number) for number in fitting])
            count = max(1, int(np.count_nonzero(tokens <= row_tokens)))
            rows.append(PackedPicture(index, tuple(fitting[:count])))
            fitting = fitting[count:]
    prompts = Prompts(pictures, questions, rows, shape)
    regions = [len({region for question in prompts.asked(row) for region in question.regions}) for row in rows]
    return dataclasses.replace(prompts, shape=dataclasses.replace(shape, regions=max(regions, default=0)))


def choose_lengths(tokens: Sequence[int], most: int) -> list[int]:
    """At most so many row lengths (multiples of `LENGTH_STEP`) that leave rows of these tokens the least padding."""
    counts = Counter(-(-number // LENGTH_STEP) * LENGTH_STEP for number in tokens)
    lengths = sorted(counts)
    below = [0, *itertools.accumulate(counts[length] for length in lengths)]

    @functools.cache
    def best(end: int, left: int) -> tuple[float, tuple[int, ...]]:
        """The padded tokens of the rows of the first `end` lengths where `left` may be chosen, and the chosen ones."""
        if not end or not left:
            return (math.inf if end else 0), ()
        last = lengths[end - 1]
        shorter = [(begin, *best(begin, left - 1)) for begin in range(end)]
        return min((cost + last * (below[end] - below[begin]), (*chosen, last)) for begin, cost, chosen in shorter)

    return list(best(len(lengths), most)[1])


@dataclasses.dataclass(frozen=True)
class PromptBatch:
    """Rows of one length."""

    arrays: dict[str, np.ndarray]  # those of `empty_batch` with P = 1, without targets; rows past the last are padding
    asked: list[tuple[Question, int, int, int]]  # question, row, first token, tokens; none of an unreadable picture
    questions: int  # most of any batch of this length


def prompt_batches(
    prompts: Prompts, load: FileLoader, *, multiple: int = 1, on_bad_record: BadRecords = BadRecords()
) -> Iterator[PromptBatch]:
    """Yields every row of the prompts once, the longest first.

    There are at most MOST_LENGTHS different row lengths; fewer for few rows, since every one costs a compilation. A batch has so many
    rows, a multiple of `multiple`, that it holds about BATCH_TOKENS for every one of `multiple`.

    Raises:
      DataError: for an unreadable picture, unless `on_bad_record` lets it pass.
    """
    most_lengths = min(MOST_LENGTHS, 1 + len(prompts.rows) // ROWS_PER_LENGTH)
    tokens = [prompts.prefix + sum(prompts.lengths(row)) for row in prompts.rows]
    lengths = choose_lengths(tokens, most_lengths)
    for least, length in reversed(list(itertools.pairwise([0, *lengths]))):
        rows = [row for row, size in zip(prompts.rows, tokens) if least < size <= length]
        count = multiple * max(1, min(BATCH_TOKENS // length, -(-len(rows) // multiple)))
        batches = [rows[begin : begin + count] for begin in range(0, len(rows), count)]
        questions = max(sum(len(row.questions) for row in batch) for batch in batches)
        shape = dataclasses.replace(prompts.shape, tokens=length)
        for batch in batches:
            arrays = empty_batch(count, shape, prompts.tokenizer.pad_id)
            asked: list[tuple[Question, int, int, int]] = []
            for place, row in enumerate(batch):
                out = {name: value[place] for name, value in arrays.items()}
                (regions,) = fill_text(out, (row,), prompts.pictures, prompts.questions, shape)
                try:
                    load.fill(out, 0, prompts.pictures[row.picture], regions)
                except DataError as error:
                    on_bad_record.reject(error)
                    continue
                sizes = prompts.lengths(row)
                begins = itertools.accumulate(sizes, initial=prompts.prefix)
                asked += [(q, place, begin, size) for q, begin, size in zip(prompts.asked(row), begins, sizes)]
            del arrays["targets"]
            yield PromptBatch(arrays, asked, questions)
