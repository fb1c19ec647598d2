from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from eval.answering.submission_prompts import SubmissionTokenizer, with_newlines
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.rows import TokenisedQuestions
from tests.data.row_cases import picture, question

PROMPT = "How far is <mask> from <mask>?"


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer.load(Path(__file__).parents[2] / "data_files" / "text" / "tokenizer")


@pytest.fixture
def pictures():
    return [picture(name, *(question(f"{name}{i}", [i, 9]) for i in range(2))) for name in "ab"]


def test_a_submission_prompt_spelled_out(tokenizer):
    text = (
        "<|im_start|>user\n" + "<|image|>" * 4 + "\nHow far is <mask_rgb><mask_depth> from <mask_rgb><mask_depth>?"
        "<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
    )
    expected = tokenizer._tokenizer(text, add_special_tokens=False)["input_ids"]
    ids, before_answer = SubmissionTokenizer.of(tokenizer).question("\n" + PROMPT)
    assert [*tokenizer.prefix(4), *ids] == expected
    assert before_answer == ids.size


def test_conversations_with_an_answer_are_those_of_training(tokenizer):
    ours, theirs = (found.question(PROMPT, "3 m") for found in (SubmissionTokenizer.of(tokenizer), tokenizer))
    assert np.array_equal(ours[0], theirs[0]) and ours[1] == theirs[1]


def test_only_questions_with_a_picture_mark_get_its_line_break(pictures):
    first, second = pictures[0].questions[:2]
    records = [
        {"id": first.id, "conversations": [{"from": "human", "value": f"<image>\n{first.prompt}"}]},
        {"id": second.id, "conversations": [{"from": "human", "value": second.prompt}]},
        {"id": "other"},
        "no record",
    ]
    found = with_newlines(pictures, records)
    assert [question.prompt for question in found[0].questions[:2]] == ["\n" + first.prompt, second.prompt]
    assert found[1:] == list(pictures[1:])
    assert [dataclasses.replace(found[0].questions[0], prompt=first.prompt)] == [first]


def test_what_is_asked_differs_from_training_in_the_end_of_the_prompt(pictures, tokenizer):
    end = tokenizer._tokenizer("<|im_end|>\n", add_special_tokens=False)["input_ids"]
    trained, submitted = (
        TokenisedQuestions(pictures, chosen, with_answers=False)
        for chosen in (tokenizer, SubmissionTokenizer.of(tokenizer))
    )
    for number in range(len(pictures[0].questions)):
        ids, counted = submitted[0, number]
        assert ids.tolist() == [*trained[0, number][0], *end] and not counted.any()
