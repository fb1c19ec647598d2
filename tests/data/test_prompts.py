from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from smolrgpt_jax.data import images, masks
from smolrgpt_jax.data import prompts as module
from smolrgpt_jax.data.prompts import plan_prompts, prompt_batches
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.rows import FileLoader
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError
from tests.data.row_cases import damage


@pytest.fixture
def pictures(filled):
    return read_warehouse(filled.root, "train")


@pytest.fixture
def plan(tokenizer, shape):
    def make(pictures, **options):
        longest = dataclasses.replace(shape, tokens=options.pop("tokens", 512))
        return plan_prompts(pictures, tokenizer, longest, **options)

    return make


def read(prompts, **options):
    return list(prompt_batches(prompts, FileLoader(prompts.shape), **options))


def asked_ids(prompts, batches):
    return [question.id for batch in batches for question, *_ in batch.asked]


def all_ids(pictures):
    return {question.id for picture in pictures for question in picture.questions}


@pytest.mark.parametrize("row_tokens", [2048, 90, 1], ids=["whole pictures", "cut pictures", "single questions"])
def test_rows_hold_a_picture_and_its_questions(pictures, tokenizer, plan, row_tokens, monkeypatch):
    monkeypatch.setattr(module, "BATCH_TOKENS", 300)
    prompts = plan(pictures, row_tokens=row_tokens)
    batches = read(prompts)
    ids = asked_ids(prompts, batches)
    assert len(ids) == len(set(ids)) and set(ids) == all_ids(pictures)
    if row_tokens == 2048:
        assert len(prompts.rows) == len(pictures)
    if row_tokens == 1:
        assert len(prompts.rows) == len(ids)
    prefix = tokenizer.prefix(4)
    for batch in batches:
        assert batch.questions >= len(batch.asked)
        for question, row, begin, length in batch.asked:
            picture = next(picture for picture in pictures if question in picture.questions)
            out = {name: value[row] for name, value in batch.arrays.items()}
            span = slice(begin, begin + length)
            np.testing.assert_array_equal(out["tokens"][span], tokenizer.question(question.prompt)[0])
            np.testing.assert_array_equal(out["tokens"][: prefix.size], prefix)
            np.testing.assert_array_equal(out["positions"][span], prefix.size + np.arange(length))
            (of_question,) = set(out["question_ids"][span].tolist())
            assert np.count_nonzero(out["question_ids"] == of_question) == length and of_question > 0
            np.testing.assert_array_equal(out["images"][0], images.load_rgb(picture.image, 16))
            np.testing.assert_array_equal(out["depths"][0], images.load_depth(picture.depth, 16))
            rgb = out["feature_index"][span][out["tokens"][span] == tokenizer.mask_rgb_id]
            depth = out["feature_index"][span][out["tokens"][span] == tokenizer.mask_depth_id]
            np.testing.assert_array_equal(depth, rgb + prompts.shape.regions)
            for place, region in zip(rgb - 4, question.regions, strict=True):
                np.testing.assert_array_equal(out["region_masks"][0, place], masks.resample_rle(region, 8))


def test_batches_have_few_shapes(pictures, plan, monkeypatch):
    monkeypatch.setattr(module, "BATCH_TOKENS", 64)
    monkeypatch.setattr(module, "MOST_LENGTHS", 1)
    prompts = plan(pictures)
    batches = read(prompts, multiple=4)
    assert len({batch.arrays["tokens"].shape for batch in batches}) == 1
    assert all(len(batch.arrays["tokens"]) % 4 == 0 for batch in batches)
    assert batches[0].arrays["tokens"].shape[1] % 32 == 0
    assert len({batch.questions for batch in batches}) == 1
    # Rows past the last are padding.
    used = {row for _, row, _, _ in batches[-1].asked}
    for row in set(range(len(batches[-1].arrays["tokens"]))) - used:
        assert not batches[-1].arrays["picture_ids"][row].any()


def test_answered_questions_are_left_out(pictures, plan):
    ids = sorted(all_ids(pictures))
    prompts = plan(pictures, answered=ids[::2])
    assert sorted(asked_ids(prompts, read(prompts))) == ids[1::2]
    assert plan(pictures, answered=ids).rows == []


def test_bad_questions_are_left_out(pictures, plan):
    damage(pictures[1])
    with pytest.raises(DataError, match="000001_depth.png is truncated"):
        read(plan(pictures))
    bad = BadRecords("report")
    room = plan(pictures).longest - 1
    prompts = plan(pictures, tokens=room, on_bad_record=bad)
    long = {reason.split("'")[1] for reason in bad.reasons if f"more than the {room} of a row" in reason}
    assert long and long < all_ids(pictures)
    batches = read(prompts, on_bad_record=bad)
    assert set(asked_ids(prompts, batches)) == all_ids(pictures) - long - {"1-0", "1-1"}
    with pytest.raises(DataError, match=f"more than the {room} of a row"):
        plan(pictures, tokens=room)


def test_questions_without_regions_need_no_depth(pictures, plan):
    bare = [
        dataclasses.replace(
            picture, depth=None, questions=(dataclasses.replace(picture.questions[0], prompt="What?", regions=()),)
        )
        for picture in pictures
    ]
    batches = read(plan(bare))
    assert batches and all("depths" not in batch.arrays for batch in batches)
