from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.reading.doubt import EXAMPLES, answer_doubt, readability
from eval.reading.rules import normalized_answer

FILES = Path(__file__).parents[2] / "data_files" / "warehouse_answers"
SIDE = "Is the pallet <mask> to the left or right of the pallet <mask>?"
PICK = "Which pallet in <mask> <mask> <mask> is the easiest for the transporter at <mask> to access?"


@pytest.mark.parametrize(
    "category, answer, expected",
    [
        ("count", " ", ("unreadable", "there is no text")),
        ("count", "!!!!!!", ("unreadable", "holds no letter or digit")),
        ("mcq", "pallet pallet pallet pallet pallet pallet", ("unreadable", "repeats one or two words")),
        ("left_right", "It is left or right.", ("unreadable", "names both sides and chooses none")),
        ("left_right", "It is a pallet.", ("unreadable", "names no side")),
        ("count", "There are some pallets.", ("unreadable", "states no number")),
        ("mcq", "The closest pallet.", ("unreadable", "chooses no region")),
        ("distance", "They are far apart.", ("unreadable", "states no length")),
        ("left_right", "[Region 0] is to the left. [Region 0] is to the right.", ("ambiguous", "states both sides")),
        ("count", "There are two pallets. Thus, three pallets.", ("ambiguous", "states several numbers")),
        ("mcq", "The closest is [Region 0]. The best is [Region 1].", ("ambiguous", "chooses several regions")),
        ("mcq", "The transporter [Region 3] is empty.", ("unreadable", "chooses no region")),
        ("distance", "between 3 m and 4 m", ("ambiguous", "states several lengths")),
        ("distance", "between 3 and 4 meters", ("ambiguous", "states several lengths")),
        ("distance", "The transporter is located in", ("unreadable", "states no length")),
        ("distance", "They are 3 m apart.", None),
        ("left_right", "[Region 0] is to the left, and [Region 1] to the right.", None),
    ],
)
def test_reasons(category, answer, expected):
    question = SIDE if category == "left_right" else PICK
    value = normalized_answer(category, question, answer)
    assert answer_doubt(category, question, answer, value) == expected


def test_a_value_that_only_the_rules_read_has_a_reason_of_its_own():
    assert answer_doubt("count", "How many?", "Two pallets.", None) == (
        "unreadable",
        "the rules read a value, the method that scores did not",
    )


def test_the_table_counts_every_answer_once_with_a_few_examples():
    items = [
        {
            "id": str(number),
            "category": "count",
            "question": "How many?",
            "answer": answer,
            "normalized_answer": normalized_answer("count", "How many?", answer),
        }
        for number, answer in enumerate(["!!!"] * 5 + ["some"] * 2 + ["2 pallets. 3 pallets."] * 6 + ["4"])
    ]
    found = readability(items)
    assert list(found) == ["count"]
    count = found["count"]
    assert (count["questions"], count["unreadable"], count["ambiguous"]) == (14, 7, 6)
    assert [(row["kind"], row["answers"]) for row in count["reasons"]] == [
        ("unreadable", 5),
        ("unreadable", 2),
        ("ambiguous", 6),
    ]
    assert [case["id"] for case in count["reasons"][0]["examples"]] == ["0", "1", "2"][:EXAMPLES]
    assert count["reasons"][2]["examples"][0]["normalized_answer"] == 3


def test_no_published_answer_is_doubtful_and_of_another_models_only_garbage():
    records = json.loads((FILES / "answers.json").read_text(encoding="utf-8"))
    for key in ("freeform_answer", "another_models_answer"):
        items = [
            {
                "id": str(number),
                "category": record["category"],
                "question": record["question"],
                "answer": record[key],
                "normalized_answer": normalized_answer(record["category"], record["question"], record[key]),
            }
            for number, record in enumerate(records)
        ]
        reasons = {row["reason"] for found in readability(items).values() for row in found["reasons"]}
        assert reasons == (set() if key == "freeform_answer" else {"holds no letter or digit"})
