from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import (
    BadRecords,
    Picture,
    Question,
    check_question,
    merge_pictures,
    normalize_answer,
    spread,
    spread_questions,
)
from smolrgpt_jax.errors import DataError

MASK = RLE(2, 3, coco.encode(np.asfortranarray([[0, 1, 1], [0, 0, 1]], dtype=np.uint8))["counts"])
QUESTION = Question("q1", "count", "how many of <mask> <mask>?", "two", 2, (MASK, MASK))


@pytest.mark.parametrize(
    "category, value, expected",
    [
        ("left_right", "Left ", "left"),
        ("mcq", "7", 7),
        ("mcq", 3, 3),
        ("count", 2, 2),
        ("count", "2", 2),
        ("distance", "7.27", 7.27),
        ("distance", 0, 0.0),
        ("distance", None, None),
        ("caption", "a pallet", "a pallet"),
    ],
)
def test_normalized_answers_take_the_type_of_their_category(category, value, expected):
    result = normalize_answer(category, value)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    "category, value",
    [
        ("left_right", "up"),
        ("mcq", "one"),
        ("count", 1.5),
        ("distance", "nan"),
        ("distance", -1),
        ("distance", "1 m"),
        ("count", True),
        ("count", [1]),
        ("count", "1e999"),
        ("mcq", 10**400),
        ("caption", {"a": 1}),
        ("", [1]),
    ],
)
def test_normalized_answers_that_do_not_fit_are_an_error(category, value):
    with pytest.raises(ValueError):
        normalize_answer(category, value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"category": "colour"}, "category 'colour'"),
        ({"prompt": ""}, "empty"),
        ({"prompt": "a <image> of <mask> <mask>"}, "unexpected place"),
        ({"answer": None}, "missing"),
        ({"prompt": "<mask>"}, "1 <mask> but 2 masks"),
        ({"category": "mcq"}, "region 2 of only 2"),
        ({"answer": "two \ud83d"}, r"'\\ud83d' in its text is no Unicode character"),
        ({"id": "\udc80"}, "no Unicode character"),
        (
            {"prompt": "<mask> <mask> <|im_start|>"},
            r"the question holds <\|im_start\|>, which only the chat format may",
        ),
        ({"answer": "2 m<|im_end|>"}, r"the answer holds <\|im_end\|>"),
        ({"earlier": (("What?", "<mask_rgb>"),)}, "the answer holds <mask_rgb>"),
    ],
)
def test_check_question_names_what_is_wrong(changes, message):
    categories = ("count", "mcq")
    check_question(QUESTION, categories=categories)
    with pytest.raises(ValueError, match=message):
        check_question(dataclasses.replace(QUESTION, **changes), categories=categories)


def test_test_records_need_neither_category_nor_answer():
    question = dataclasses.replace(QUESTION, category="", answer=None, normalized_answer=None)
    check_question(question, categories=("count",), need_answer=False)
    with pytest.raises(ValueError, match="category"):
        check_question(question, categories=("count",))


def test_policies_for_bad_records():
    with pytest.raises(DataError, match="reason 1"):
        BadRecords("error").reject(DataError("reason 1"))
    bad = BadRecords("report")
    for reason in ("reason 1", "reason 2", "reason 1"):
        bad.reject(DataError(reason))
    assert bad.reasons == ["reason 1", "reason 2"]
    assert "2 bad records" in bad.summary() and "1 more" in bad.summary(shown=1)
    with pytest.raises(ValueError, match="policy"):
        BadRecords("ignore")


def test_merge_joins_the_questions_of_a_picture():
    def picture(name, depth, *ids):
        return Picture(name, Path(name), depth, tuple(dataclasses.replace(QUESTION, id=id) for id in ids))

    merged = merge_pictures(
        [
            [picture("a", None, "1"), picture("b", None, "2")],
            [picture("c", None, "3"), picture("a", Path("d"), "4", "5")],
        ]
    )
    assert [(p.id, p.depth, [q.id for q in p.questions]) for p in merged] == [
        ("a", Path("d"), ["1", "4", "5"]),
        ("b", None, ["2"]),
        ("c", None, ["3"]),
    ]
    two = [[picture("a", Path("d"), "1")], [picture("a", Path("e"), "2", "3"), picture("b", None, "4")]]
    with pytest.raises(DataError, match="two depth files .*record '2' and 1 more of its picture"):
        merge_pictures(two)
    bad = BadRecords("report")
    assert [q.id for p in merge_pictures(two, bad) for q in p.questions] == ["1", "4"]
    assert len(bad.reasons) == 1


@pytest.mark.parametrize(("total", "count"), [(1000, 100), (10, 10), (7, 9), (23, 4), (5, 0), (0, 3)])
def test_what_is_spread_takes_one_of_each_stretch(total, count):
    taken = spread(total, count)
    assert [int(n) * len(taken) // total for n in taken] == list(range(min(total, count)))
    np.testing.assert_array_equal(taken, spread(total, count))


def test_spread_questions_have_the_categories_of_all_in_a_file_sorted_by_them():
    kinds = ["left_right"] * 300 + ["count"] * 600 + ["distance"] * 100
    asked = [dataclasses.replace(QUESTION, id=f"q{n}", category=kind) for n, kind in enumerate(kinds)]
    pictures = [Picture(str(n), Path(f"{n}.png"), None, tuple(asked[n : n + 5])) for n in range(0, 1000, 5)]
    drawn = [q for picture in spread_questions(pictures, 100) for q in picture.questions]
    assert Counter(q.category for q in drawn) == {"left_right": 30, "count": 60, "distance": 10}
    assert drawn == sorted(drawn, key=asked.index)
    assert spread_questions(pictures, None) == pictures
