"""The closing of an answer: written for training, read from generated text."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from smolrgpt_jax.data.chat import closed_turns, closing_value, read_closing
from smolrgpt_jax.data.records import Question
from smolrgpt_jax.data.rows import PackedPicture, TokenisedQuestions, empty_batch, fill_text
from tests.data.row_cases import picture, question, shape


def scored(category, value, answer="Fine."):
    return Question("1", category, "Where?", answer, value)


@pytest.mark.parametrize(
    "category, value, closing",
    [
        ("left_right", "left", "Fine.\nAnswer: left"),
        ("mcq", 12, "Fine.\nAnswer: 12"),
        ("count", 0, "Fine.\nAnswer: 0"),
        ("distance", 5.3, "Fine.\nAnswer: 5.30"),
        ("distance", 0.0, "Fine.\nAnswer: 0.00"),
    ],
)
def test_answers_are_closed_with_their_value(category, value, closing):
    closed = closed_turns(scored(category, value, "Fine. \n"))[-1]
    assert closed == closing
    assert read_closing(category, closed) == ("Fine.", value)
    assert closing.endswith(closing_value(category, value))


@pytest.mark.parametrize(
    "unchanged",
    [scored("caption", "left"), scored("left_right", None), scored("left_right", "left", answer=None)],
    ids=["category", "no value", "no answer"],
)
def test_other_conversations_stay_as_they_are(unchanged):
    assert closed_turns(unchanged) == unchanged.turns


def test_only_the_last_turn_is_closed():
    turns = closed_turns(dataclasses.replace(scored("count", 2), earlier=(("How many?", "Two."),)))
    assert turns == ["How many?", "Two.", "Where?", "Fine.\nAnswer: 2"]


def test_text_without_closing_has_no_value():
    assert read_closing("left_right", "The answer: left") == ("The answer: left", None)
    assert read_closing("mcq", "Answer: 3") == ("", 3)
    assert read_closing("count", "One.\nAnswer: 1\nAnswer: 2") == ("One.\nAnswer: 1", 2)
    with pytest.raises(ValueError, match="neither left nor right"):
        read_closing("left_right", "Here.\nAnswer: up")


def test_training_rows_count_the_closing(tokenizer):
    asked = [dataclasses.replace(question("a", [0, 1], answer="Far."), normalized_answer=4.2)]
    pictures = [picture("p", *asked)]
    rows = {}
    for closing in (False, True):
        questions = TokenisedQuestions(pictures, tokenizer.with_format(closing_answer=closing))
        out = {name: value[0] for name, value in empty_batch(1, shape(), tokenizer.pad_id).items()}
        fill_text(out, (PackedPicture(0, (0,)),), pictures, questions, shape())
        rows[closing] = out
    plain, closed = ([int(t) for t in out["targets"] if t != -100] for out in (rows[False], rows[True]))
    end = tokenizer.tokens("<|im_end|>\n")
    assert plain == tokenizer.tokens("Far.") + end
    assert closed == tokenizer.tokens("Far.") + tokenizer.tokens("\nAnswer: 4.20") + end
    # The prompt does not change, nor does what is asked in evaluation.
    prompts = [
        TokenisedQuestions(pictures, tokenizer.with_format(closing_answer=c), with_answers=False)[0, 0][0]
        for c in (False, True)
    ]
    np.testing.assert_array_equal(*prompts)
