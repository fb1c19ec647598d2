from __future__ import annotations

import pytest

from eval.reading.ballots import ballots_of, describe_ballots, elected, read_by_vote
from smolrgpt_jax.errors import DataError

SIDE = "Is the pallet <mask> to the left or right of the pallet <mask>?"
CHOICE = "From the pallets <mask> <mask> <mask>, which is closest to the shelf <mask>?"


def item(category: str, question: str, answer: str, *more: str, order=(0,)) -> dict:
    fields = {"id": "a", "image": "a.png", "category": category, "question": question, "answer": answer}
    return {**fields, "further": [{"answer": text, "order": list(order)} for text in more], "truth": None}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["left", "right", "right"], "right"),
        # Of equally many votes the greedy answer's value wins, else the one named first.
        ([3, 2, 2, 3], 3),
        ([None, 2, 4, 4, 2], 2),
        ([None, None, 1], 1),
        ([None, None], None),
        ([0, 0, 5], 0),
        # 2.0 of the five is neither the mean (3.2) nor what most say.
        ([1.0, 9.0, 2.0, 1.0, 3.0], 2.0),
        ([1.0, None, 2.0], 1.5),
        ([0.0, 0.0, 4.0], 0.0),
    ],
)
def test_the_elected_value(values, expected):
    found = elected(values)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2, 1, 2, None, 2], "2 (3 times), 1, none"),
        (["left"], "left"),
        ([None, None], "none (2 times)"),
        ([4.75, 5.6, None, 0.0], "0 to 5.6, none"),
        ([2.5, 2.5], "2.5"),
    ],
)
def test_ballots_in_few_words(values, expected):
    assert describe_ballots(values) == expected


def test_answers_are_read_one_by_one_and_elect_a_value():
    items = [
        item("left_right", SIDE, "It is left.", "It is right.", "It is right."),
        item("count", "How many?", "There are two pallets.", "unclear", "There are three pallets."),
        item("distance", "How far?", "They are 3.5 m apart.", "They are 4.5 m apart.", "They are 4.0 m apart."),
        {key: value for key, value in item("count", "How many?", "").items() if key != "further"},
    ]
    assert ballots_of(items[1]) == [2, None, 3]
    assert read_by_vote(items) == ["right", 2, 4.0, None]


@pytest.mark.parametrize("category", ["mcq", ""])
def test_a_region_is_known_under_the_number_it_has_in_the_question(category):
    closest = "The pallet [Region 1] is the closest to the shelf [Region 3]."
    found = item(category, CHOICE, closest, "The pallet [Region 0] is the closest.", closest, order=(2, 0, 1, 3))
    # In the other order the question's region 2 comes first and its region 0 second.
    assert ballots_of(found) == [1, 2, 0]


def test_without_further_answers_there_is_no_vote():
    with pytest.raises(DataError, match="no further answers"):
        read_by_vote([item("count", "How many?", "There are two pallets.")])


@pytest.mark.parametrize(
    "further",
    [
        "two",
        [{"answer": "two"}],
        [{"order": [0]}],
        [{"answer": "two", "order": [1, 2]}],
        [{"answer": "", "order": "0"}],
    ],
)
def test_damaged_ballots_name_their_record(further):
    with pytest.raises(DataError, match="record 'a': further is no list of answers"):
        read_by_vote([item("count", "How many?", "two") | {"further": further}])
