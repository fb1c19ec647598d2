from __future__ import annotations

import numpy as np
import pytest

from smolrgpt_jax.data.plan import plan_rows
from smolrgpt_jax.data.records import Question
from smolrgpt_jax.data.rows import PackedPicture, TokenisedQuestions, empty_batch, fill_text
from tests.data.collator import spelled_out
from tests.data.row_cases import REGIONS, picture, question, shape


def test_a_row_spelled_out(tokenizer):
    pictures = [picture("a", question("a0", [5, 6]), question("a1", [6, 7])), picture("b", question("b0", [5]))]
    limits = shape()
    questions = TokenisedQuestions(pictures, tokenizer)
    out = {key: value[0] for key, value in empty_batch(1, limits, tokenizer.pad_id).items()}
    slots = fill_text(out, (PackedPicture(0, (0, 1)), PackedPicture(1, (0,))), pictures, questions, limits)
    assert slots == [(REGIONS[5], REGIONS[6], REGIONS[7]), (REGIONS[5],)]

    prefix = tokenizer.prefix(4)
    parts = [questions[0, 0][0], questions[0, 1][0], questions[1, 0][0]]
    n, sizes = prefix.size, [part.size for part in parts]
    padding = limits.tokens - 2 * n - sum(sizes)
    assert padding > 0

    def spread(*pairs):
        return np.concatenate([np.full(size, value) for value, size in pairs])

    np.testing.assert_array_equal(
        out["tokens"],
        np.concatenate([prefix, parts[0], parts[1], prefix, parts[2], np.full(padding, tokenizer.pad_id)]),
    )
    np.testing.assert_array_equal(
        out["picture_ids"], spread((1, n + sizes[0] + sizes[1]), (2, n + sizes[2]), (0, padding))
    )
    np.testing.assert_array_equal(
        out["question_ids"], spread((0, n), (1, sizes[0]), (2, sizes[1]), (0, n), (3, sizes[2]), (0, padding))
    )
    np.testing.assert_array_equal(
        out["positions"],
        np.concatenate(
            [
                np.arange(n),
                n + np.arange(sizes[0]),
                n + np.arange(sizes[1]),
                np.arange(n),
                n + np.arange(sizes[2]),
                np.zeros(padding),
            ]
        ),
    )

    # P*T = 8 image features, then P*R = 6 RGB regions, then 6 depth regions.
    image = out["tokens"] == tokenizer.image_id
    rgb = out["tokens"] == tokenizer.mask_rgb_id
    depth = out["tokens"] == tokenizer.mask_depth_id
    assert out["feature_index"][image].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert out["feature_index"][rgb].tolist() == [8, 9, 9, 10, 11]
    assert out["feature_index"][depth].tolist() == [14, 15, 15, 16, 17]
    assert (out["feature_index"][~(image | rgb | depth)] == -1).all()


def test_targets_are_those_of_each_question_alone(tokenizer):
    pictures = [picture("a", question("a0", [1], answer="one two"), question("a1", [2], answer="3"))]
    limits = shape()
    out = {key: value[0] for key, value in empty_batch(1, limits, tokenizer.pad_id).items()}
    fill_text(out, (PackedPicture(0, (0, 1)),), pictures, TokenisedQuestions(pictures, tokenizer), limits)
    prefix = tokenizer.prefix(4).size
    for number, asked in enumerate(pictures[0].questions):
        prompt = asked.prompt.replace("<mask>", "<mask_rgb><mask_depth>")
        ids, labels = spelled_out(tokenizer, ["<|image|>" * 4 + prompt, asked.answer])
        own = out["question_ids"] == number + 1
        np.testing.assert_array_equal(out["tokens"][own], ids[prefix:])
        np.testing.assert_array_equal(out["targets"][own], labels[prefix:])
    assert (out["targets"][out["question_ids"] == 0] == -100).all()


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_long_answers_weigh_less_per_token_as_asked(tokenizer, balance):
    pictures = [picture("a", question("a0", [1], answer="one two three"), question("a1", [2], answer="3"))]
    out = {key: value[0] for key, value in empty_batch(1, shape(), tokenizer.pad_id, weights=True).items()}
    row = (PackedPicture(0, (0, 1)),)
    fill_text(out, row, pictures, TokenisedQuestions(pictures, tokenizer), shape(), balance)
    targets = out["targets"] >= 0
    assert not out["weights"][~targets].any()
    for number in (1, 2):
        own = out["weights"][targets & (out["question_ids"] == number)]
        np.testing.assert_array_equal(own, np.float32(own.size**-balance))


def test_rgb_only_rows_have_no_regions(tokenizer):
    limits = shape(regions=0)
    pictures = [picture("a", question("a0", [1, 2, 3, 4]))]
    batch = empty_batch(1, limits, tokenizer.pad_id)
    assert "depths" not in batch and "region_masks" not in batch
    out = {key: value[0] for key, value in batch.items()}
    questions = TokenisedQuestions(pictures, tokenizer)
    plan = plan_rows(pictures, questions, limits)
    assert fill_text(out, plan.rows[0], pictures, questions, limits) == [()]
    assert (out["feature_index"] >= 0).sum() == limits.image_tokens


def test_a_conversation_is_trained_on_all_its_answers_and_regions(tokenizer):
    earlier = (("<mask> and <mask> a", "first answer"),)
    talk = Question("t", "spatial", "then <mask>", "second", None, tuple(REGIONS[2:5]), earlier)
    pictures = [picture("a", talk)]
    questions = TokenisedQuestions(pictures, tokenizer)
    out = {key: value[0] for key, value in empty_batch(1, shape(), tokenizer.pad_id).items()}
    slots = fill_text(out, (PackedPicture(0, (0,)),), pictures, questions, shape())
    assert slots == [tuple(REGIONS[2:5])]
    texts = ["<|image|>" * 4 + "<mask_rgb><mask_depth> and <mask_rgb><mask_depth> a", "first answer"]
    whole, labels = spelled_out(tokenizer, [*texts, "then <mask_rgb><mask_depth>", "second"])
    np.testing.assert_array_equal(out["tokens"][: whole.size], whole)
    np.testing.assert_array_equal(out["targets"][: whole.size], labels)
    region_tokens = out["feature_index"][: whole.size][whole == tokenizer.mask_rgb_id]
    first = shape().pictures * shape().image_tokens
    np.testing.assert_array_equal(region_tokens, first + np.arange(3))
