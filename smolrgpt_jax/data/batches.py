"""Pictures -> batches for training.

The order of rows is a function of seed and epoch alone, an element of the pipeline is a *global* batch of row numbers, and each
process builds its own share of it. The iterator's state is therefore the number of batches taken, the same on any number of
processes, threads and worker processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from smolrgpt_jax.data.chat import IGNORE, ChatTokenizer
from smolrgpt_jax.data.pictures import FileLoader, Loader, fill_pixels
from smolrgpt_jax.data.plan import Plan, plan_rows
from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.data.rows import RowShape, TokenisedQuestions, empty_batch, fill_text
from smolrgpt_jax.errors import DataError


class PackedRows:
    """The packed rows of one data set: a random-access sequence with a plan made once.

    Attributes:
      plan: which questions share a row, and the fill rate; ``len(plan.rows)`` rows.
      shape: the rows' static sizes.
      bad: the policy for bad records and those found so far.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        tokenizer: ChatTokenizer,
        shape: RowShape,
        load: Loader | None = None,
        depth_mode: str = "training",
        on_bad_record: BadRecords | None = None,
        questions: TokenisedQuestions | None = None,
        question_balance: float = 0.0,
    ):
        """Tokenises all questions and packs them.

        Args:
          pictures: the records.
          tokenizer: the chat tokenizer.
          shape: static sizes of a row.
          load: how pictures are read; by default from their files, without a cache.
          depth_mode: "training" or "submission", see ``images.read_depth``.
          on_bad_record: None or "error" stops at the first question that fits no row and at the
            first picture that cannot be decoded; "report" leaves the question out, and leaves the
            place of the picture empty, without loss.
          questions: the pictures' tokens where they are known; None tokenises.
          question_balance: if not 0, batches have "weights", see ``fill_text``.

        Raises:
          DataError: see ``on_bad_record``.
        """
        self.shape = shape
        self.bad = on_bad_record or BadRecords("error")
        self._questions = questions or TokenisedQuestions(pictures, tokenizer)
        self._depth_mode, self._balance = depth_mode, question_balance
        self._load = load or FileLoader(shape, depth_mode)
        self.plan: Plan = plan_rows(pictures, self._questions, shape, self.bad)
        # The texts are in the tokens now; with them, half a million questions would take a gigabyte per worker process.
        self._pictures = [_without_texts(picture) for picture in pictures]

    def __len__(self) -> int:
        return len(self.plan.rows)

    def question_ids(self, index: int) -> list[str]:
        """Ids of the questions in one row."""
        return [
            self._pictures[part.picture].questions[number].id
            for part in self.plan.rows[index]
            for number in part.questions
        ]

    def fill(self, index: int, out: dict[str, np.ndarray]) -> None:
        """Writes one row into arrays of ``empty_batch`` without their first dimension."""
        row = self.plan.rows[index]
        slots = fill_text(out, row, self._pictures, self._questions, self.shape, self._balance)
        for place, (packed, regions) in enumerate(zip(row, slots)):
            try:
                pixels = self._load(self._pictures[packed.picture], regions)
            except DataError as error:
                self.bad.reject(error)
                _blank(out, place)
                continue
            fill_pixels(out, place, pixels, self._depth_mode)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns one row: the arrays of ``empty_batch`` without their first dimension."""
        return {key: value[0] for key, value in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Returns the rows with these numbers as one batch; -1 gives a padding row."""
        batch = empty_batch(len(indices), self.shape, self._questions.tokenizer.pad_id, self._balance != 0)
        for place, index in enumerate(indices):
            if index >= 0:
                self.fill(int(index), {key: value[place] for key, value in batch.items()})
        return batch


def train_batches(
    rows: PackedRows | Sequence[PackedRows],
    *,
    batch_rows: int,
    seed: int,
    weights: Sequence[float] | None = None,
    num_epochs: int | None = None,
    shuffle: bool = True,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    prefetch: int = 4,
    workers: int = 0,
    put: Callable[[dict[str, np.ndarray]], Any] | None = None,
    ahead: int = 2,
) -> grain.IterDataset:
    """Batches of packed rows, shuffled anew in every epoch.

    Args:
      rows: one data set, or several of one shape.
      batch_rows: rows of the global batch; every process gets batch_rows / process_count.
      seed: decides the order together with the epoch.
      weights: share of each data set in the mixture, which then never ends; None takes every row
        of every data set once per epoch.
      num_epochs: passes over the data, None for no end. The last batch of the last epoch is filled
        up with padding rows, which have no loss.
      shuffle: False keeps the order of the plan, for validation.
      process_index, process_count: the share of this process: the rows that
        ``jax.make_array_from_process_local_data`` puts at its place of the global batch.
      num_threads, prefetch: batches built at the same time, and built ahead, in each worker; threads,
        because Pillow and NumPy release the interpreter's lock.
      workers: processes that build batches in turn; 0 builds them in this process. They start anew
        (spawn), so the calling script needs the usual ``if __name__ == "__main__"``.
      put: applied to every batch ahead of its use, in a thread of its own, such as the transfer to the devices.
      ahead: batches that have been ``put`` and wait.

    Returns:
      A grain dataset: ``iter()`` of it yields the dicts of ``packing.empty_batch`` with
      B = batch_rows / process_count, or what ``put`` makes of them. The iterator has ``get_state`` / ``set_state``, which
      ``grain.checkpoint.CheckpointSave`` uses, and ``close``, which ends its workers.

    Raises:
      ValueError: sizes that do not divide or fit together.
    """
    sources = [rows] if isinstance(rows, PackedRows) else list(rows)
    _check_sources(sources, batch_rows, process_count, weights, num_epochs)
    offsets = np.cumsum([0] + [len(source) for source in sources])
    order = _global_batches(offsets, batch_rows, seed, weights, num_epochs, shuffle)
    local = batch_rows // process_count
    share = slice(process_index * local, (process_index + 1) * local)

    def build(numbers: np.ndarray) -> tuple[dict[str, np.ndarray], list[list[str]]]:
        numbers = np.concatenate([numbers, np.full(batch_rows - len(numbers), -1)])[share]
        batch = _batch_of_several(sources, offsets, numbers)
        return batch, [source.bad.reasons for source in sources]

    def receive(built: tuple[dict[str, np.ndarray], list[list[str]]]) -> dict[str, np.ndarray]:
        batch, reasons = built
        # What a worker process found it has counted only for itself.
        for source, found in zip(sources, reasons):
            for reason in found if workers else ():
                source.bad.reject(DataError(reason))
        return batch

    def batches_from(begin: int) -> grain.IterDataset:
        made = order[begin:].map(build)
        made = made.to_iter_dataset(grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch))
        if workers:
            # grain asks absl for its own flags, which a script without absl.app never parses.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            made = made.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=prefetch))
        made = made.map(receive)
        if put is None:
            return made
        return grain.experimental.ThreadPrefetchIterDataset(made.map(put), prefetch_buffer_size=ahead)

    return _Batches(batches_from)


class _Batches(grain.IterDataset):
    """A dataset whose iterators are known by the number of batches taken, however the batches are made."""

    def __init__(self, batches_from: Callable[[int], grain.IterDataset]):
        super().__init__()
        self._batches_from = batches_from

    def __iter__(self) -> grain.DatasetIterator:
        return _BatchIterator(self._batches_from)


class _BatchIterator(grain.DatasetIterator):
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
    return dataclasses.replace(
        picture,
        questions=tuple(
            dataclasses.replace(question, prompt="", answer=None, earlier=()) for question in picture.questions
        ),
    )


def batch_questions(
    rows: Sequence[PackedRows], index: int, *, batch_rows: int, seed: int, weights: Sequence[float] | None = None
) -> list[str]:
    """Ids of the questions in the global batch of this number, from 0, of a shuffled run without end."""
    offsets = np.cumsum([0] + [len(source) for source in rows])
    found = []
    for number in _global_batches(offsets, batch_rows, seed, weights, None, True)[index]:
        which = int(np.searchsorted(offsets, number, side="right")) - 1
        found += rows[which].question_ids(int(number - offsets[which]))
    return found


def _global_batches(
    offsets: np.ndarray,
    batch_rows: int,
    seed: int,
    weights: Sequence[float] | None,
    num_epochs: int | None,
    shuffle: bool,
) -> grain.MapDataset:
    """The numbers of the rows of each global batch; data set i has the rows offsets[i] to offsets[i + 1]."""
    if weights is None:
        order = _epochs(np.arange(offsets[-1]), seed, shuffle, num_epochs)
    else:
        order = grain.MapDataset.mix(
            [
                _epochs(np.arange(begin, end), seed + index, shuffle, None)
                for index, (begin, end) in enumerate(zip(offsets[:-1], offsets[1:]))
            ],
            weights=list(weights),
        )
    return order.batch(batch_rows, drop_remainder=False)


def _epochs(numbers: np.ndarray, seed: int, shuffle: bool, count: int | None) -> grain.MapDataset:
    order = grain.MapDataset.source(numbers).seed(seed)
    return (order.shuffle() if shuffle else order).repeat(count)


def _batch_of_several(sources: Sequence[PackedRows], offsets: np.ndarray, numbers: np.ndarray) -> dict[str, np.ndarray]:
    if len(sources) == 1:
        return sources[0].batch(numbers)
    batch = sources[0].batch([-1] * len(numbers))
    for place, number in enumerate(numbers):
        if number >= 0:
            which = int(np.searchsorted(offsets, number, side="right")) - 1
            sources[which].fill(int(number - offsets[which]), {key: value[place] for key, value in batch.items()})
    return batch


def _check_sources(
    sources: Sequence[PackedRows],
    batch_rows: int,
    process_count: int,
    weights: Sequence[float] | None,
    num_epochs: int | None,
) -> None:
    if not sources or not all(len(source) for source in sources):
        raise ValueError("a data set without rows cannot be trained on")
    if len({source.shape for source in sources}) > 1:
        raise ValueError("data sets that are mixed need rows of one shape")
    if batch_rows % process_count:
        raise ValueError(f"{batch_rows} rows do not divide among {process_count} processes")
    if weights is not None and (len(weights) != len(sources) or num_epochs is not None):
        raise ValueError("a mixture needs one weight per data set and has no epochs")


def _blank(out: dict[str, np.ndarray], place: int) -> None:
    """Makes the tokens of one picture of the row padding: nothing attends to them, no loss."""
    tokens = out["picture_ids"] == place + 1
    blank = {"targets": IGNORE, "weights": 0, "positions": 0, "picture_ids": 0, "question_ids": 0, "feature_index": -1}
    for key in blank.keys() & out.keys():
        out[key][tokens] = blank[key]
