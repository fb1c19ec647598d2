from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from smolrgpt_jax.data import images, masks
from smolrgpt_jax.data.prompts import eval_batches
from smolrgpt_jax.data.records import BadRecords, DataError
from smolrgpt_jax.data.sources.warehouse import read_warehouse
from tests.data.row_cases import damage


@pytest.fixture
def pictures(filled):
    return read_warehouse(filled.root, "train")


def test_generation_prompts_are_padded_on_the_left(pictures, tokenizer, shape):
    batches = list(eval_batches(pictures, tokenizer, shape, 4, bucket=32))
    asked = [(picture, question) for picture in pictures for question in picture.questions]
    ids = [id for batch in batches for id, valid in zip(batch["record_ids"], batch["valid"]) if valid]
    assert ids == [question.id for _, question in asked]
    assert all(batch["valid"].shape == (4,) and len(batch["record_ids"]) == 4 for batch in batches)
    for place, (picture, question) in enumerate(asked):
        row = {key: value[place % 4] for key, value in batches[place // 4].items()}
        prompt = np.concatenate([tokenizer.prefix(4), tokenizer.question(question.prompt)[0]])
        width = row["input_ids"].size
        begin = width - prompt.size
        assert width % 32 == 0
        np.testing.assert_array_equal(row["input_ids"], [tokenizer.pad_id] * begin + prompt.tolist())
        np.testing.assert_array_equal(row["attention_mask"], [0] * begin + [1] * prompt.size)
        np.testing.assert_array_equal(row["picture_ids"], row["attention_mask"])
        np.testing.assert_array_equal(row["positions"][begin:], np.arange(prompt.size))
        prefix = tokenizer.prefix(4).size
        np.testing.assert_array_equal(
            row["question_ids"], [0] * (begin + prefix) + [1] * (prompt.size - prefix)
        )
        rgb = row["feature_index"][row["input_ids"] == tokenizer.mask_rgb_id]
        depth = row["feature_index"][row["input_ids"] == tokenizer.mask_depth_id]
        np.testing.assert_array_equal(rgb, 4 + np.arange(len(question.regions)))
        np.testing.assert_array_equal(depth, rgb + shape.regions)
        np.testing.assert_array_equal(row["images"][0], images.load_rgb(picture.image, 16))
        np.testing.assert_array_equal(row["depths"][0], images.load_depth(picture.depth, 16))
        for slot, region in enumerate(question.regions):
            np.testing.assert_array_equal(row["region_masks"][0, slot], masks.resample_rle(region, 8))


def test_evaluation_shares_among_processes(pictures, tokenizer, shape):
    whole = list(eval_batches(pictures, tokenizer, shape, 4))
    parts = [
        list(eval_batches(pictures, tokenizer, shape, 4, process_index=index, process_count=2))
        for index in range(2)
    ]
    assert [len(part) for part in parts] == [len(whole)] * 2
    for step, batch in enumerate(whole):
        for key, value in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[step][key] for part in parts]), value)


def test_evaluation_keeps_the_place_of_bad_questions(pictures, tokenizer, shape):
    damage(pictures[1])
    with pytest.raises(DataError, match="000001_depth.png is truncated"):
        list(eval_batches(pictures, tokenizer, shape, 4))
    few = dataclasses.replace(shape, regions=2)
    bad = BadRecords("report")
    batches = list(eval_batches(pictures, tokenizer, few, 4, on_bad_record=bad))
    lost = {id for batch in batches for id, valid in zip(batch["record_ids"], batch["valid"]) if not valid}
    wide = {q.id for p in pictures for q in p.questions if len(q.regions) > 2}
    asked = {q.id for p in pictures for q in p.questions}
    kept = [id for batch in batches for id, valid in zip(batch["record_ids"], batch["valid"]) if valid]
    assert len(kept) == len(set(kept)) and set(kept) == asked - wide - {"1-0", "1-1"}
    assert wide | {"1-0", "1-1"} <= lost
    assert len(bad.reasons) >= len(wide) + 1
