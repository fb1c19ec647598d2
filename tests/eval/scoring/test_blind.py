from __future__ import annotations

import json

import pytest

from eval.scoring.blind import BlindBaseline, best_constant, read_training_questions, template
from eval.scoring.official import is_correct
from smolrgpt_jax.data.records import Question
from smolrgpt_jax.errors import DataError


def question(category: str, prompt: str, truth=None) -> Question:
    return Question("id", category, prompt, None, truth)


def test_a_template_collapses_consecutive_masks():
    assert (
        template("<image>\nAmong <mask> <mask>, <mask> and pallets <mask> <mask>, which?")
        == "Among <mask> and pallets <mask>, which?"
    )


def test_the_majority_of_the_template_is_predicted_and_else_that_of_the_category():
    blind = BlindBaseline(
        [question("count", "How many in <mask> <mask>?", value) for value in (3, 3, 1)]
        + [question("count", "What is the count of <mask>?", value) for value in (1, 1, 1)]
    )
    assert blind.predict(question("count", "How many in <mask> <mask> <mask> <mask>?")) == 3
    assert blind.predict(question("count", "Never seen <mask>?")) == 1
    assert blind.predict(question("mcq", "Which?")) is None


def test_the_same_words_in_another_category_are_another_template():
    blind = BlindBaseline([question("count", "What?", 2), question("mcq", "What?", 5)])
    assert blind.predict(question("mcq", "What?")) == 5


def test_a_distance_is_the_constant_within_ten_percent_of_most_answers():
    answers = [1.0, 5.0, 5.4, 5.8, 9.0, 9.5, 20.0]
    constant = best_constant("distance", answers)
    assert [answer for answer in answers if is_correct("distance", constant, answer)] == [5.0, 5.4, 5.8]


def test_a_distance_of_mostly_zeros_is_zero():
    assert best_constant("distance", [0.0, 0.0, 3.0]) == 0.0


def test_training_questions_are_read_without_pictures(warehouse):
    questions = read_training_questions(warehouse / "train.json")
    assert len(questions) == 28
    blind = BlindBaseline(questions)
    assert (
        blind.predict(question("left_right", "Is the pallet <mask> to the left or right of the pallet <mask>?"))
        == "left"
    )


def test_records_without_an_answer_are_left_out(tmp_path):
    (tmp_path / "train.json").write_text(
        json.dumps([{"id": "a", "conversations": []}, 3, {"id": "b"}]), encoding="utf-8"
    )
    assert read_training_questions(tmp_path / "train.json") == []


def test_an_unreadable_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="train.json"):
        read_training_questions(tmp_path / "train.json")
