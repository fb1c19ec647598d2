"""Pictures -> batches for training; the iterator's state is the number of batches taken, on any number of processes and workers."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.kept import kept_json, place_of_all
from smolrgpt_jax.data.plan import Plan, keep_plan
from smolrgpt_jax.data.prepared.columns import PictureQuestions
from smolrgpt_jax.data.prepared.reader import told_by
from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.data.rows import PADDING, FileLoader, RowShape, TokenisedQuestions, empty_batch, fill_text
from smolrgpt_jax.errors import DataError

ENDLESS = 2**31  # epochs; grain's own endless sets are of a length that does not divide into batches of one row
PREFETCH, AHEAD = 4, 2  # batches that each worker builds ahead, and that have been `put` ahead


class PackedRows:
    """The packed rows of one data set, with a plan made once."""

    def __init__(
        self,
        pictures: Sequence[Picture],
        tokenizer: ChatTokenizer,
        shape: RowShape,
        *,
        load: FileLoader | None = None,
        on_bad_record: BadRecords = BadRecords(),
        questions: TokenisedQuestions | None = None,
        question_balance: float = 0.0,
    ):
        """Tokenises all questions, unless `questions` has their tokens, and packs them.

        Args:
          load: how pictures are read; by default without a cache.
          on_bad_record: "error" stops at the first question that fits no row and at the first picture that cannot be
            decoded; "report" leaves the question out, and leaves the place of the picture empty, without loss.
          question_balance: if not 0, batches have "weights", see `fill_text`.

        Raises:
          DataError: see `on_bad_record`.
        """
        self.shape = shape
        self.bad = on_bad_record  # the policy, and those found so far
        self._questions = questions or TokenisedQuestions(pictures, tokenizer)
        self._load, self._balance = load or FileLoader(shape), question_balance
        # Which questions share a row, and the fill rate; `len(plan.rows)` rows.
        self.plan: Plan = keep_plan(pictures, self._questions, shape, self.bad)
        # The texts are in the tokens now; with them, half a million questions would take a gigabyte per worker process.
        self._pictures = [_without_texts(picture) for picture in pictures]

    def __len__(self) -> int:
        return len(self.plan.rows)

    def question_ids(self, index: int) -> list[str]:
        """Ids of the questions in one row."""
        parts = self.plan.rows[index]
        return [self._pictures[part.picture].questions[number].id for part in parts for number in part.questions]

    def batch(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Returns the rows with these numbers as one batch; -1 gives a padding row."""
        return _batch([self], indices)

    def empty(self, count: int) -> dict[str, np.ndarray]:
        """A batch of so many padding rows."""
        return empty_batch(count, self.shape, self._questions.tokenizer.pad_id, self._balance != 0)

    def fill(self, index: int, out: dict[str, np.ndarray]) -> None:
        """Writes one row into arrays of `empty` without their first dimension."""
        row = self.plan.rows[index]
        slots = fill_text(out, row, self._pictures, self._questions, self.shape, self._balance)
        for place, (packed, regions) in enumerate(zip(row, slots)):
            try:
                self._load.fill(out, place, self._pictures[packed.picture], regions)
            except DataError as error:
                self.bad.reject(error)
                lost = out["picture_ids"] == place + 1
                for key, value in (PADDING | {"weights": 0}).items():
                    if key in out:
                        out[key][lost] = value


@dataclasses.dataclass(frozen=True)
class Order:
    """Which rows make up each global batch."""

    batch_rows: int  # of all processes together
    seed: int  # decides the order together with the epoch
    # Share of each data set in the mixture, which then never ends; None takes every row of every data set once per epoch.
    weights: Sequence[float] | None = None
    num_epochs: int | None = None  # None for no end; the last batch of the last one may be shorter
    # Rows that are taken once in this order, instead of all; for validation.
    chosen: Sequence[int] | np.ndarray | None = None

    def batches(self, rows: Sequence[PackedRows]) -> grain.MapDataset:
        """The row numbers of each batch; the rows of several data sets are numbered one after another.

        Raises ValueError: a data set has no rows, several have other shapes, or weights that do not fit.
        """
        if not rows or not all(map(len, rows)):
            raise ValueError("a data set without rows cannot be trained on")
        if len({source.shape for source in rows}) > 1:
            raise ValueError("data sets that are mixed need rows of one shape")
        if self.chosen is not None:
            order = grain.MapDataset.source(np.asarray(self.chosen))
        elif self.weights is None:
            order = self._epochs(0, sum(map(len, rows)), self.seed)
        else:
            if len(self.weights) != len(rows) or self.num_epochs is not None:
                raise ValueError("a mixture needs one weight per data set and has no epochs")
            ends = np.cumsum([0, *map(len, rows)])
            parts = [self._epochs(ends[index], ends[index + 1], self.seed + index) for index in range(len(rows))]
            order = grain.MapDataset.mix(parts, weights=list(self.weights))
        return order.batch(self.batch_rows, drop_remainder=False)

    def _epochs(self, begin: int, end: int, seed: int) -> grain.MapDataset:
        epochs = ENDLESS if self.num_epochs is None else self.num_epochs
        return grain.MapDataset.source(np.arange(begin, end)).seed(seed).shuffle().repeat(epochs)


def train_batches(
    rows: Sequence[PackedRows],
    order: Order,
    *,
    share: Sequence[int] | np.ndarray | None = None,
    num_threads: int = 2,
    workers: int = 0,
    put: Callable[[dict[str, np.ndarray]], Any] | None = None,
) -> grain.DatasetIterator:
    """Batches of packed rows; raises ValueError for sizes that do not divide or fit together.

    Args:
      rows: data sets of one shape.
      order: which rows make up a batch; one that is short is filled up with padding rows, which have no loss.
      share: which rows of the global batch are built here, as `sharding.process_rows` has them; None for all.
      num_threads: batches built at the same time in each worker; Pillow and NumPy release the interpreter's lock.
      workers: spawned processes that build batches in turn; 0 builds them in this process.
      put: applied to every batch ahead of its use, in a thread of its own, such as the transfer to the devices.

    Returns:
      The dicts of `empty_batch` with B rows, those of `share`, or what `put` makes of them; with `get_state` / `set_state`, which
      `grain.checkpoint.CheckpointSave` uses, and `close`, which ends the workers.
    """
    batches = order.batches(rows)
    own = np.arange(order.batch_rows) if share is None else np.asarray(share)

    def build(numbers: np.ndarray) -> tuple[dict[str, np.ndarray], list[list[str]]]:
        numbers = np.pad(numbers, (0, order.batch_rows - len(numbers)), constant_values=-1)
        batch = _batch(rows, numbers[own])
        return batch, [source.bad.reasons for source in rows]

    def receive(built: tuple[dict[str, np.ndarray], list[list[str]]]) -> dict[str, np.ndarray]:
        # What a worker process found it has counted only for itself.
        for source, found in zip(rows, built[1]):
            for reason in found if workers else ():
                source.bad.reject(DataError(reason))
        return built[0]

    def batches_from(begin: int) -> grain.IterDataset:
        options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=PREFETCH)
        made = batches[begin:].map(build).to_iter_dataset(options)
        if workers:
            # grain asks absl for its own flags, which a script without absl.app never parses.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            made = made.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=PREFETCH))
        made = made.map(receive)
        if put is None:
            return made
        return grain.experimental.ThreadPrefetchIterDataset(made.map(put), prefetch_buffer_size=AHEAD)

    return _BatchIterator(batches_from)


def data_facts(rows: Sequence[PackedRows], name: str) -> dict[str, int | str]:
    """What tells the data sets called `name` from others: counts, and digests of all tokens, of which share a row, and of the
    pictures: names, categories, values, masks and what tells their pixels (see `told_by`)."""
    parts = [(len(row), part) for source in rows for row in source.plan.rows for part in row]
    plan = [number for size, part in parts for number in (size, part.picture, len(part.questions), *part.questions)]
    tokens = hashlib.blake2b(digest_size=8)
    for source in rows:
        source._questions.digest(tokens)
    return {
        f"{name} pictures": sum(len(source._pictures) for source in rows),
        f"{name} questions": sum(len(part.questions) for _, part in parts),
        f"{name} rows": sum(map(len, rows)),
        f"{name} row length": rows[0].shape.tokens,
        f"{name} tokens (digest)": tokens.hexdigest(),
        f"{name} pictures (digest)": kept_json(place_of_rows(rows), "pictures", lambda: _digest(rows)),
        f"{name} rows (digest)": hashlib.blake2b(np.array(plan).tobytes(), digest_size=8).hexdigest(),
    }


def _digest(rows: Sequence[PackedRows]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for source in rows:
        with ThreadPoolExecutor(32) as pool:  # for file systems that take their time
            for picture, pixels in zip(source._pictures, pool.map(told_by, source._pictures)):
                asked = [(q.category, q.normalized_answer, q.regions) for q in picture.questions]
                digest.update(repr((picture.id, pixels, asked)).encode())
    return digest.hexdigest()


def place_of_rows(rows: Sequence[PackedRows]) -> Path | None:
    """Under which what is made of all questions of these rows is kept."""
    return place_of_all([source._questions.place for source in rows])


def batch_questions(rows: Sequence[PackedRows], order: Order, index: int) -> list[str]:
    """Ids of the questions in the global batch of this number, from 0."""
    located = (_locate(rows, number) for number in order.batches(rows)[index])
    return [name for source, row in located for name in source.question_ids(row)]


class _BatchIterator(grain.DatasetIterator):
    """Its state is the number of batches taken, however the batches are made."""

    def __init__(self, batches_from: Callable[[int], grain.IterDataset]):
        super().__init__()
        self._batches_from = batches_from
        self._taken = 0
        self._source: grain.DatasetIterator | None = None

    def __next__(self) -> Any:
        if self._source is None:
            self._source = iter(self._batches_from(self._taken))
        batch = next(self._source)
        self._taken += 1
        return batch

    def get_state(self) -> dict[str, int]:
        return {"next_index": self._taken}

    def set_state(self, state: dict[str, int]) -> None:
        self._stop()
        self._taken = int(state["next_index"])

    def close(self) -> None:
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None


def _without_texts(picture: Picture) -> Picture:
    if isinstance(picture.questions, PictureQuestions):
        return dataclasses.replace(picture, questions=picture.questions.without_texts())
    bare = (dataclasses.replace(question, prompt="", answer=None, earlier=()) for question in picture.questions)
    return dataclasses.replace(picture, questions=tuple(bare))


def _batch(rows: Sequence[PackedRows], numbers: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    batch = rows[0].empty(len(numbers))
    for place, number in enumerate(numbers):
        if number >= 0:
            source, index = _locate(rows, number)
            source.fill(index, {key: value[place] for key, value in batch.items()})
    return batch


def _locate(rows: Sequence[PackedRows], number: int) -> tuple[PackedRows, int]:
    for source in rows[:-1]:
        if number < len(source):
            return source, number
        number -= len(source)
    return rows[-1], number
