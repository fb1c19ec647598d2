from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from smolrgpt_jax.data.packing import (
    PackedPicture,
    RowShape,
    TokenisedQuestions,
    empty_batch,
    fill_text,
    plan_rows,
)
from smolrgpt_jax.data.records import RLE, BadRecords, DataError, Picture, Question
from smolrgpt_jax.data.text import ChatTokenizer

REGIONS = [RLE(1, 40, bytes([48 + n, 48 + 1])) for n in range(30)]
TOKENIZER = ChatTokenizer.load(Path(__file__).parents[1] / "data_files" / "text" / "tokenizer")


def question(id, regions, words=1, answer="ok"):
    prompt = " ".join(["<mask>"] * len(regions) + ["a"] * words)
    return Question(id, "distance", prompt, answer, None, tuple(REGIONS[r] for r in regions))


def picture(id, *questions):
    return Picture(id, Path(f"{id}.png"), Path(f"{id}_depth.png"), questions)


def shape(**changes):
    return RowShape(
        **{"tokens": 96, "pictures": 2, "regions": 3, "image_tokens": 4, "image_size": 8, "mask_grid": 4}
        | changes
    )


def test_a_row_spelled_out(tokenizer):
    pictures = [
        picture("a", question("a0", [5, 6]), question("a1", [6, 7])),
        picture("b", question("b0", [5])),
    ]
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
        ids, labels = tokenizer.encode(["<|image|>" * 4 + prompt, asked.answer])
        own = out["question_ids"] == number + 1
        np.testing.assert_array_equal(out["tokens"][own], ids[prefix:])
        np.testing.assert_array_equal(out["targets"][own], labels[prefix:])
    assert (out["targets"][out["question_ids"] == 0] == -100).all()


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


QUESTIONS = st.lists(st.tuples(st.lists(st.integers(0, 29), max_size=6), st.integers(1, 100)), max_size=8)


@settings(deadline=None, max_examples=60)
@given(st.lists(QUESTIONS, max_size=12), st.integers(1, 4), st.integers(1, 5), st.integers(40, 130))
def test_plan_holds_every_usable_question_once_within_the_limits(data, places, regions, tokens):
    limits = shape(tokens=tokens, pictures=places, regions=regions)
    pictures = [
        picture(f"p{i}", *(question(f"{i}-{j}", r, words) for j, (r, words) in enumerate(asked)))
        for i, asked in enumerate(data)
    ]
    questions = TokenisedQuestions(pictures, TOKENIZER)
    prefix = TOKENIZER.prefix(4).size
    bad = BadRecords("report")
    plan = plan_rows(pictures, questions, limits, bad)
    expected = {
        (i, j)
        for i, asked in enumerate(data)
        for j, (r, _) in enumerate(asked)
        if len(set(r)) <= regions and prefix + questions[i, j][0].size <= tokens
    }
    found = [(part.picture, j) for row in plan.rows for part in row for j in part.questions]
    assert len(found) == len(set(found)) and set(found) == expected
    assert len(bad.reasons) == sum(map(len, data)) - len(expected)
    used = 0
    for row in plan.rows:
        assert 1 <= len(row) <= places
        size = sum(prefix + sum(questions[part.picture, j][0].size for j in part.questions) for part in row)
        assert size <= tokens
        used += size
        for part in row:
            slots = {region for j in part.questions for region in pictures[part.picture].questions[j].regions}
            assert part.questions and len(slots) <= regions
    if plan.rows:
        assert plan.fill == pytest.approx(used / tokens / len(plan.rows))
        assert plan.questions_per_row == pytest.approx(len(found) / len(plan.rows))
    assert plan_rows(pictures, questions, limits, BadRecords("report")) == plan


def test_long_pictures_are_continued_and_short_ones_share_rows(tokenizer):
    pictures = [
        picture("a", *(question(f"a{i}", [i], words=20) for i in range(4))),
        picture("b", question("b0", [0])),
        picture("c", question("c0", [0])),
    ]
    plan = plan_rows(pictures, TokenisedQuestions(pictures, tokenizer), shape(regions=2))
    assert [[(part.picture, part.questions) for part in row] for row in plan.rows] == [
        [(0, (0, 1))],
        [(0, (2, 3))],
        [(1, (0,)), (2, (0,))],
    ]
    assert plan.pictures_per_row == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    "bad, message",
    [
        (picture("a", question("bad", [0], words=200)), "more than the 96 of a row"),
        (picture("a", question("bad", [0, 1, 2, 3])), "4 regions, more than the 3"),
        (picture("a", question("bad", [0], answer=None)), "no answer to train on"),
        (picture("a", question("bad", [0], answer="a <mask_rgb>")), "2 mask tokens for 1 regions"),
        (picture("a", Question("bad", "c", "an <|image|>", "ok", None)), "image token"),
        (Picture("a", Path("a.png"), None, (question("bad", [0]),)), "no depth"),
    ],
)
def test_questions_that_fit_no_row_stop_or_are_reported(tokenizer, bad, message):
    questions = TokenisedQuestions([bad], tokenizer)
    with pytest.raises(DataError, match=message) as caught:
        plan_rows([bad], questions, shape())
    assert "'bad'" in str(caught.value) and "a.png" in str(caught.value)
    collected = BadRecords("report")
    assert plan_rows([bad], questions, shape(), collected).rows == ()
    assert collected.reasons == [str(caught.value)]


def test_a_conversation_is_trained_on_all_its_answers_and_regions(tokenizer):
    earlier = (("<mask> and <mask> a", "first answer"),)
    talk = Question("t", "spatial", "then <mask>", "second", None, tuple(REGIONS[2:5]), earlier)
    pictures = [picture("a", talk)]
    questions = TokenisedQuestions(pictures, tokenizer)
    out = {key: value[0] for key, value in empty_batch(1, shape(), tokenizer.pad_id).items()}
    slots = fill_text(out, (PackedPicture(0, (0,)),), pictures, questions, shape())
    assert slots == [tuple(REGIONS[2:5])]
    texts = ["<|image|>" * 4 + "<mask_rgb><mask_depth> and <mask_rgb><mask_depth> a", "first answer"]
    whole, labels = tokenizer.encode([*texts, "then <mask_rgb><mask_depth>", "second"])
    np.testing.assert_array_equal(out["tokens"][: whole.size], whole)
    np.testing.assert_array_equal(out["targets"][: whole.size], labels)
    region_tokens = out["feature_index"][: whole.size][whole == tokenizer.mask_rgb_id]
    first = shape().pictures * shape().image_tokens
    np.testing.assert_array_equal(region_tokens, first + np.arange(3))
