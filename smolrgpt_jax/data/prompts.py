"""Pictures -> batches of generation prompts, for evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from smolrgpt_jax.data.loader import FileLoader, Loader, fill_pixels
from smolrgpt_jax.data.packing import PackedPicture, RowShape, TokenisedQuestions, empty_batch, fill_text
from smolrgpt_jax.data.records import BadRecords, DataError, Picture
from smolrgpt_jax.data.row_plan import check_fit
from smolrgpt_jax.data.text import ChatTokenizer


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
            fill_pixels(out, 0, load(pictures[entry.picture], regions), depth_mode)
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
