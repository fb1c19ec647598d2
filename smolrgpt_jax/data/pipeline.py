"""Pictures -> batches for training and evaluation.

Training reads through grain: the order of rows is a function of seed and epoch alone, an element of
the pipeline is a *global* batch of row numbers, and each process builds its own share of it. The
iterator's state is therefore the number of batches taken, the same on any number of processes.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grain
import numpy as np

from smolrgpt_jax.data import images, masks
from smolrgpt_jax.data.packing import (
    PackedPicture,
    Plan,
    RowShape,
    TokenisedQuestions,
    check_fit,
    empty_batch,
    fill_text,
    plan_rows,
)
from smolrgpt_jax.data.records import BadRecords, DataError, Picture, PreparedPicture, Region, StoredRegion
from smolrgpt_jax.data.text import ChatTokenizer


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A picture as read from disk.

    Attributes:
      image: uint8[H, W, 3].
      depth: uint8[H, W], or None.
      masks: the regions asked for, float32[N, g, g].
    """

    image: np.ndarray
    depth: np.ndarray | None
    masks: np.ndarray


# Reads a picture and the given ones of its regions; raises DataError.
Loader = Callable[[Picture, Sequence[Region]], Pixels]


class FileLoader:
    """Loads pictures from their files or from prepared data, keeping the most recently used ones decoded."""

    def __init__(self, shape: RowShape, depth_mode: str = "training", cached_pictures: int = 0):
        """Prepares a loader.

        Args:
          shape: image_size and mask_grid of the results; no depth is read if it has no regions.
          depth_mode: see ``images.read_depth``.
          cached_pictures: number of decoded pictures kept in memory, with their masks.
        """
        self._shape = shape
        self._depth_mode = depth_mode
        self._capacity = cached_pictures
        self._cache: OrderedDict[Path, tuple] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, picture: Picture, regions: Sequence[Region]) -> Pixels:
        """Returns the picture's arrays.

        Raises:
          DataError: a file cannot be read; names the file and a record that needs it.
        """
        image, depth, known = self._pixels(picture)
        grid = self._shape.mask_grid
        for region in regions:
            if region not in known:
                known[region] = masks.resample_rle(region, grid)
        return Pixels(
            image,
            depth,
            np.stack([known[region] for region in regions])
            if regions
            else np.zeros((0, grid, grid), np.float32),
        )

    def _pixels(self, picture: Picture) -> tuple[np.ndarray, np.ndarray | None, dict]:
        key = picture.image
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        try:
            if isinstance(picture, PreparedPicture):
                return self._keep(key, self._prepared(picture))
            image = images.read_rgb(picture.image, self._shape.image_size)
            depth = None
            if picture.depth is not None and self._shape.regions:
                depth = images.read_depth(picture.depth, self._shape.image_size, self._depth_mode)
        except DataError as error:
            raise DataError(f"record {picture.questions[0].id!r}: {error}") from error
        return self._keep(key, (image, depth, {}))

    def _keep(self, key: Path, entry: tuple) -> tuple:
        if self._capacity:
            with self._lock:
                self._cache[key] = entry
                while len(self._cache) > self._capacity:
                    self._cache.popitem(last=False)
        return entry

    def _prepared(self, picture: PreparedPicture) -> tuple[np.ndarray, np.ndarray | None, dict]:
        # Imported where needed: TensorFlow Datasets takes seconds to import.
        from smolrgpt_jax.data.tfds.prepared import check_prepared, load_stored

        check_prepared(picture, self._shape.image_size, self._shape.mask_grid, self._depth_mode)
        stored = load_stored(picture)
        weights = {StoredRegion(number): mask for number, mask in enumerate(stored.weights)}
        return stored.image, stored.depth if self._shape.regions else None, weights


class PackedRows:
    """The packed rows of one data set: a random-access sequence with a plan made once.

    Attributes:
      plan: which questions share a row, and the fill rate; ``len(plan.rows)`` rows.
      shape: the rows' static sizes.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        tokenizer: ChatTokenizer,
        shape: RowShape,
        load: Loader | None = None,
        depth_mode: str = "training",
        on_bad_record: BadRecords | None = None,
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

        Raises:
          DataError: see ``on_bad_record``.
        """
        self.shape = shape
        self._on_bad_record = on_bad_record or BadRecords("error")
        self._pictures = pictures
        self._questions = TokenisedQuestions(pictures, tokenizer)
        self._depth_mode = depth_mode
        self._load = load or FileLoader(shape, depth_mode)
        self.plan: Plan = plan_rows(pictures, self._questions, shape, self._on_bad_record)

    def __len__(self) -> int:
        return len(self.plan.rows)

    def fill(self, index: int, out: dict[str, np.ndarray]) -> None:
        """Writes one row into arrays of ``empty_batch`` without their first dimension."""
        row = self.plan.rows[index]
        slots = fill_text(out, row, self._pictures, self._questions, self.shape)
        for place, (packed, regions) in enumerate(zip(row, slots)):
            try:
                pixels = self._load(self._pictures[packed.picture], regions)
            except DataError as error:
                self._on_bad_record.reject(error)
                _blank(out, place)
                continue
            _fill_pixels(out, place, pixels, self._depth_mode)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns one row: the arrays of ``empty_batch`` without their first dimension."""
        batch = empty_batch(1, self.shape, self._questions.tokenizer.pad_id)
        row = {key: value[0] for key, value in batch.items()}
        self.fill(index, row)
        return row

    def batch(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Returns the rows with these numbers as one batch; -1 gives a padding row."""
        batch = empty_batch(len(indices), self.shape, self._questions.tokenizer.pad_id)
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
      num_threads, prefetch: batches built at the same time, and built ahead; threads, because
        Pillow and NumPy release the interpreter's lock.

    Returns:
      A grain dataset: ``iter()`` of it yields the dicts of ``packing.empty_batch`` with
      B = batch_rows / process_count and has ``get_state`` / ``set_state``, which
      ``grain.checkpoint.CheckpointSave`` uses.

    Raises:
      ValueError: sizes that do not divide or fit together.
    """
    sources = [rows] if isinstance(rows, PackedRows) else list(rows)
    _check_sources(sources, batch_rows, process_count, weights, num_epochs)
    offsets = np.cumsum([0] + [len(source) for source in sources])
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
    local = batch_rows // process_count
    share = slice(process_index * local, (process_index + 1) * local)

    def build(numbers: np.ndarray) -> dict[str, np.ndarray]:
        numbers = np.concatenate([numbers, np.full(batch_rows - len(numbers), -1)])[share]
        if len(sources) == 1:
            return sources[0].batch(numbers)
        return _batch_of_several(sources, offsets, numbers)

    return (
        order.batch(batch_rows, drop_remainder=False)
        .map(build)
        .to_iter_dataset(grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch))
    )


def eval_batches(
    pictures: Sequence[Picture],
    tokenizer: ChatTokenizer,
    shape: RowShape,
    batch_size: int,
    *,
    load: Loader | None = None,
    depth_mode: str = "training",
    bucket: int = 64,
    process_index: int = 0,
    process_count: int = 1,
    on_bad_record: BadRecords | None = None,
) -> Iterator[dict]:
    """Yields batches of generation prompts, one question and one picture per row, in order.

    Args:
      pictures: the records; answers are not used.
      tokenizer: the chat tokenizer.
      shape: as for training; its ``tokens`` is the longest prompt, its ``pictures`` is not used.
      batch_size: B, rows of the global batch; the last batch is filled up with copies.
      load, depth_mode: as for ``PackedRows``; the default loader keeps the last pictures, since
        the questions of a picture follow each other.
      bucket: prompts are padded to the next multiple of it over the global batch.
      process_index, process_count: this process gets its consecutive share of every batch.
      on_bad_record: "report" keeps the place of a bad question with ``valid`` False.

    Yields:
      input_ids, attention_mask, positions, feature_index, picture_ids, question_ids:
        int32[B, S], padded on the left; their meaning is that of ``empty_batch`` with P = 1.
      images, depths: float32[B, 1, H, W, 3]; region_masks: float32[B, 1, R, g, g]. The last two
        are absent if the shape has no regions.
      valid: bool[B], False for copies and bad questions.
      record_ids: list of B question ids, for matching the predictions.

    Raises:
      DataError: under "error", for a question that does not fit or an unreadable picture.
    """
    if batch_size % process_count:
        raise ValueError(f"a batch of {batch_size} does not divide among {process_count} processes")
    on_bad_record = on_bad_record or BadRecords("error")
    longest = -(-shape.tokens // bucket) * bucket
    shape = dataclasses.replace(shape, pictures=1, tokens=longest)
    load = load or FileLoader(shape, depth_mode, cached_pictures=8)
    questions = TokenisedQuestions(pictures, tokenizer, with_answers=False)
    prefix = tokenizer.prefix(shape.image_tokens).size
    entries, bad = [], set()
    for index, picture in enumerate(pictures):
        for number, question in enumerate(picture.questions):
            entry = PackedPicture(index, (number,))
            entries.append(entry)
            try:
                check_fit(picture, question, questions[index, number][0], prefix, shape, tokenizer)
            except DataError as error:
                on_bad_record.reject(error)
                bad.add(entry)
    local = batch_size // process_count
    for begin in range(0, len(entries), batch_size):
        chosen = entries[begin : begin + batch_size]
        lengths = [
            prefix + questions[entry.picture, entry.questions[0]][0].size
            for entry in chosen
            if entry not in bad
        ]
        width = -(-max(lengths, default=1) // bucket) * bucket
        valid = np.arange(batch_size) < len(chosen)
        chosen += [chosen[-1]] * (batch_size - len(chosen))
        share = slice(process_index * local, (process_index + 1) * local)
        yield _prompt_batch(
            chosen[share],
            valid[share],
            bad,
            pictures,
            questions,
            dataclasses.replace(shape, tokens=width),
            load,
            depth_mode,
            on_bad_record,
        )


def _prompt_batch(
    entries: Sequence[PackedPicture],
    valid: np.ndarray,
    bad: set[PackedPicture],
    pictures: Sequence[Picture],
    questions: TokenisedQuestions,
    shape: RowShape,
    load: Loader,
    depth_mode: str,
    on_bad_record: BadRecords,
) -> dict:
    valid = valid & np.array([entry not in bad for entry in entries])
    batch = empty_batch(len(entries), shape, questions.tokenizer.pad_id)
    for place, entry in enumerate(entries):
        if entry in bad:
            continue
        out = {key: value[place] for key, value in batch.items()}
        (regions,) = fill_text(out, (entry,), pictures, questions, shape)
        try:
            _fill_pixels(out, 0, load(pictures[entry.picture], regions), depth_mode)
        except DataError as error:
            on_bad_record.reject(error)
            valid[place] = False
        padding = int(np.count_nonzero(out["picture_ids"] == 0))
        for key in ("tokens", "positions", "picture_ids", "question_ids", "feature_index"):
            out[key][:] = np.roll(out[key], padding)
    batch["input_ids"] = batch.pop("tokens")
    batch["attention_mask"] = (batch["picture_ids"] > 0).astype(np.int32)
    del batch["targets"]
    batch["valid"] = valid
    batch["record_ids"] = [pictures[entry.picture].questions[entry.questions[0]].id for entry in entries]
    return batch


def _epochs(numbers: np.ndarray, seed: int, shuffle: bool, count: int | None) -> grain.MapDataset:
    order = grain.MapDataset.source(numbers).seed(seed)
    return (order.shuffle() if shuffle else order).repeat(count)


def _batch_of_several(
    sources: Sequence[PackedRows], offsets: np.ndarray, numbers: np.ndarray
) -> dict[str, np.ndarray]:
    batch = sources[0].batch([-1] * len(numbers))
    for place, number in enumerate(numbers):
        if number >= 0:
            which = int(np.searchsorted(offsets, number, side="right")) - 1
            sources[which].fill(
                int(number - offsets[which]), {key: value[place] for key, value in batch.items()}
            )
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


def _fill_pixels(out: dict[str, np.ndarray], place: int, pixels: Pixels, depth_mode: str) -> None:
    out["images"][place] = images.scale_rgb(pixels.image)
    if "depths" in out:
        if pixels.depth is not None:
            out["depths"][place] = images.scale_depth(pixels.depth, depth_mode)
        out["region_masks"][place, : len(pixels.masks)] = pixels.masks


def _blank(out: dict[str, np.ndarray], place: int) -> None:
    """Makes the tokens of one picture of the row padding: nothing attends to them, no loss."""
    tokens = out["picture_ids"] == place + 1
    for key, value in (
        ("targets", -100),
        ("positions", 0),
        ("picture_ids", 0),
        ("question_ids", 0),
        ("feature_index", -1),
    ):
        out[key][tokens] = value
