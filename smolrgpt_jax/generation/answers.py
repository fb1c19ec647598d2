"""Answers to whole data sets of questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from tqdm import tqdm

from smolrgpt_jax.data.packing import RowShape
from smolrgpt_jax.data.prompts import eval_batches
from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.generation.decode import GREEDY, Sampling, generate

if TYPE_CHECKING:
    from smolrgpt_jax.loading import Model

# Not part of what the device computes with.
HOST_KEYS = ("attention_mask", "valid", "record_ids")


def generate_answers(
    model: Model,
    pictures: Sequence[Picture],
    *,
    batch_size: int,
    max_new_tokens: int,
    depth_mode: str = "training",
    sampling: Sampling = GREEDY,
    seed: int = 0,
    on_bad_record: BadRecords | None = None,
    progress: bool = True,
) -> dict[str, str]:
    """Answers every question of the pictures: {question id: text}.

    Batches have a fixed size and prompts are padded to multiples of 64, so few shapes are compiled. Questions that
    `on_bad_record` lets pass are left out. Raises ValueError if the model has no tokenizer, DataError for a bad record.
    """
    if model.tokenizer is None:
        raise ValueError("the checkpoint brings no tokenizer, answers cannot be read")
    config = model.config
    most = max((len(set(q.regions)) for p in pictures for q in p.questions), default=0)
    shape = RowShape(
        config.decoder.max_positions, 1, most, config.image_tokens, config.vision.image_size, config.mask_grid
    )
    questions = sum(len(p.questions) for p in pictures)
    answers: dict[str, str] = {}
    with tqdm(total=questions, desc="answers", unit="question", disable=not progress) as bar:
        for number, batch in enumerate(
            eval_batches(
                pictures,
                model.tokenizer,
                shape,
                batch_size,
                depth_mode=depth_mode,
                on_bad_record=on_bad_record,
            )
        ):
            arrays = {name: value for name, value in batch.items() if name not in HOST_KEYS}
            key = jax.random.fold_in(jax.random.key(seed), number)
            ids = np.asarray(
                generate(
                    config,
                    model.params,
                    arrays,
                    key,
                    max_new_tokens=max_new_tokens,
                    eos_id=model.eos_id,
                    sampling=sampling,
                )
            )
            for row in np.flatnonzero(batch["valid"]):
                answers[batch["record_ids"][row]] = model.tokenizer.decode(ids[row])
            bar.update(int(batch["valid"].sum()))
    return answers
