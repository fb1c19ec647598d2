from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.reading.rules import normalized_answer, parse_normalized, question_category, readings
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, normalize_answer

FILES = Path(__file__).parents[2] / "data_files" / "warehouse_answers"
REAL = json.loads((FILES / "answers.json").read_text(encoding="utf-8"))

SIDE = "Is the pallet <mask> to the left or right of the pallet <mask>?"
IS_LEFT = "Is the pallet <mask> to the left of the pallet <mask>?"
IS_RIGHT = "Is the pallet <mask> to the right of the pallet <mask>?"
COUNT = (
    "How many pallets are in the leftmost buffer region, given the buffer masks <mask> and pallet masks <mask> <mask>?"
)
PICK = (
    "Which pallet in <mask> <mask> <mask> <mask> <mask> <mask> is the easiest for the transporter at <mask> to access?"
)
ZONE = "Among the buffer zones <mask> <mask> <mask>, Which buffer zone is closest to the shelf <mask>?"
PICK_UNNAMED = (
    "Considering the placement of <mask> <mask> <mask>, which pallet is the most convenient for <mask> to collect?"
)
ZONE_UNNAMED = "In the given buffer zones <mask> <mask> <mask>, which one is the nearest to <mask>?"
FAR = "How far is the pallet <mask> from the pallet <mask>?"


def test_every_real_answer_is_read():
    wrong = []
    for record in REAL:
        truth = normalize_answer(record["category"], record["normalized_answer"])
        value = normalized_answer(record["category"], record["question"], record["freeform_answer"])
        if value != truth or type(value) is not type(truth):
            wrong.append((record["freeform_answer"], value, truth))
    assert len(REAL) == 180
    assert not wrong


def test_no_real_answer_is_ambiguous():
    answers = [(record, record[key]) for record in REAL for key in ("freeform_answer", "another_models_answer")]
    assert [
        answer for record, answer in answers if len(set(readings(record["category"], record["question"], answer))) > 1
    ] == []


def test_another_models_answers_are_read_unless_garbage():
    for record in REAL:
        value = normalized_answer(record["category"], record["question"], record["another_models_answer"])
        assert (value is None) == ("!!!!" in record["another_models_answer"]), record


def test_the_category_of_every_real_question_is_recognised():
    questions = json.loads((FILES / "questions.json").read_text(encoding="utf-8"))
    assert len(questions) == 654
    assert [item for item in questions + REAL if question_category(item["question"]) != item["category"]] == []


@pytest.mark.parametrize(
    ("category", "question"),
    [
        ("left_right", "Which way is <mask> from <mask>, left or right?"),
        ("left_right", "What side of <mask> is <mask> on?"),
        ("left_right", "Is <mask> leftwards of <mask>?"),
        ("distance", "How many feet are between the pallet <mask> and the pallet <mask>?"),
        ("distance", "How far is the pallet <mask> from the pallet <mask> which is on the right?"),
        ("distance", "Which length lies between <mask> and <mask>?"),
        ("distance", "What pallet distance is there from <mask> to <mask>?"),
        ("distance", "By how much are <mask> and <mask> apart?"),
        ("distance", "What is the spacing of <mask> and <mask>?"),
        ("mcq", "Pick the best pallet of <mask> <mask> for the transporter <mask>."),
        ("distance", "How many miles lie between <mask> and <mask>?"),
        ("left_right", "Is the pallet <mask>, which is closest, left of the shelf <mask>?"),
        ("mcq", "Among the pallets <mask> <mask> which pallet should the transporter <mask> take?"),
        ("mcq", "Of <mask> <mask> which is on the left?"),
        ("mcq", "In <mask>, <mask>, <mask>, which is the rightmost?"),
        ("mcq", "What is closer to the camera, <mask> or <mask>?"),
        ("mcq", "Tell me the middle of the pallets <mask>, <mask>, <mask>."),
        ("count", "What is the amount of pallets in the buffer <mask>, of <mask> <mask>?"),
        ("count", "Are there any of the pallets <mask> <mask> in the buffer <mask>?"),
        (None, "What is this <mask>?"),
    ],
)
def test_the_category_of_what_people_type(category, question):
    assert question_category(question) == category


def test_the_transporter_that_is_to_choose_is_not_chosen_from():
    question = "Pallets: <mask> <mask>. Tell me which the transporter <mask> should pick up."
    answer = "The pallet [Region 1] is the closest to transporter [Region 2], so it is the most suitable choice."
    assert normalized_answer("", question, answer) == 1


def test_the_category_may_be_left_to_the_question():
    assert normalized_answer("", FAR, "They are 3.5 meters apart.") == 3.5
    assert normalized_answer(None, "Hello?", "left") is None


def test_an_unknown_category_is_an_error():
    with pytest.raises(ValueError, match="colour"):
        normalized_answer("colour", "What colour?", "red")


@pytest.mark.parametrize(
    "question, answer, expected",
    [
        (SIDE, "left", "left"),
        (SIDE, "R", "right"),
        (SIDE, "The pallet [Region 0] is not to the right of the pallet [Region 1].", "left"),
        (SIDE, "The pallet [Region 0] isn\u2019t to the left of the pallet [Region 1].", "right"),
        (SIDE, "It is not on the left but on the right of the pallet [Region 1].", "right"),
        (SIDE, "It is on the right rather than the left.", "right"),
        (SIDE, "The pallet [Region 1] is to the left of the pallet [Region 0].", "right"),
        (SIDE, "[Region 0] is on the left, and [Region 1] is on the right.", "left"),
        (SIDE, "The second pallet is to the left of the first one.", "right"),
        (SIDE, "The pallet [Region 0] is to the rigth of the pallet [Region 1].", "right"),
        (SIDE, "The pallet [Region 0] is on the letf side.", "left"),
        (SIDE, "Right now, the pallet is on theleft side amongall.", "left"),
        (SIDE, "The pallet [Region 0] is on the right, not the left, of the pallet [Region 1].", "right"),
        (SIDE, "Compared to [Region 1], [Region 0] appears to be on the right side of the two.", "right"),
        (SIDE, "To the left of the pallet [Region 1] is the pallet [Region 0].", "left"),
        (SIDE, "The pallet [Region 1] has the pallet [Region 0] on its left.", "left"),
        (SIDE, "The pallet on the left is [Region 1].", "right"),
        (SIDE, "The left one is the pallet [Region 0].", "left"),
        (SIDE, "The former stands to the right of the latter.", "right"),
        (SIDE, "It is neither to the left nor to the right.", None),
        (SIDE, "It could be left or right.", None),
        (SIDE, "Seen from the left, the pallet [Region 0] is to the right of the pallet [Region 1].", "right"),
        (IS_RIGHT, "Yes.", "right"),
        (IS_RIGHT, "No, it is not.", "left"),
        (IS_RIGHT, "Incorrect, the pallet [Region 0] is to the left of the pallet [Region 1].", "left"),
        (SIDE, "Yes.", None),
        (SIDE, "the forklift in the bright light", None),
        (SIDE, "Right, from this viewpoint.", "right"),
        (SIDE, "That is right.", "right"),
        (SIDE, "To the left of the pallet [Region 1].", "left"),
        (SIDE, "Pallet 1 is to the left of pallet 0.", "right"),
        (SIDE, "The pallet [Region 0] is to the left of the pallet [Region 1] and to the right of the shelf.", "left"),
        (IS_LEFT, "Right, the pallet [Region 0] is to the left of the pallet [Region 1].", "left"),
        (IS_LEFT, "You're right that the pallet [Region 0] is to the left of the pallet [Region 1].", "left"),
        (IS_LEFT, "Not sure.", None),
        (IS_LEFT, "No idea.", None),
        (SIDE, "left left left left left left left", None),
        (SIDE, "left right left right left right left right", None),
    ],
)
def test_left_right(question, answer, expected):
    assert normalized_answer("left_right", question, answer) == expected


@pytest.mark.parametrize(
    "wording",
    [
        "{a} is to the {side} of {b}.",
        "{a} is {side} of {b}.",
        "{a} is on the {side}-hand side of {b}.",
        "{a} is farther {side} than {b}.",
        "{a} is located {side} from {b}.",
        "{a} is less to the {other} than {b}.",
        "{a} is not to the {other} of {b}.",
        "{a} isn't on the {other} but on the {side} of {b}.",
        "{a} is behind and to the {side} of {b}.",
        "{a} is to the {side}, slightly behind the {other} edge of {b}.",
        "{a} is right behind {b}, slightly to the {side}.",
        "{a} is closer to the {side} edge of the image than {b}.",
        "{a} appears right next to {b}, on its {side}.",
        "{a}, compared to {b}, is on the {side}.",
        "{a}, seen from here, is on the {side}.",
        "Compared to {b} {a} is on the {side}.",
        "Between {b} and {a}, {a} is more to the {side}.",
        "Of {b} and {a}, the one on the {side} is {a}.",
        "Of the two, {a} is the one further to the {side}.",
        "Both are on the {other}, with {a} to the {side} of {b}.",
        "It is {a} that is to the {side} of {b}.",
        "To the {side} of {b} is {a}.",
        "To the {side} of {b}, there is {a}.",
        "On the {side} side of {b}, you can see {a}.",
        "On the {side} is {a}, on the {other} is {b}.",
        "On the {other}, there is {b}; on the {side}, {a}.",
        "Farther {side} than {b} is {a}.",
        "Next to {b}, on its {side}, is {a}.",
        "{b} has {a} on its {side}.",
        "{b} has {a} on the {side}.",
        "{b} has {a} to the {side} of it.",
        "{b} is seen with {a} on its {side}.",
        "To its {side}, {b} has {a}.",
        "The {side} one is {a}.",
        "The {side}most of the two pallets is {a}.",
        "The {side} pallet is {a} and the {other} pallet is {b}.",
        "Positioned to the {side} is {a}.",
        "From {side} to {other}: {a}, {b}.",
        "If you look from {side} to {other}, {a} comes first and {b} comes second.",
    ],
)
@pytest.mark.parametrize("side, other", [("left", "right"), ("right", "left")])
@pytest.mark.parametrize("noun", ["", "the pallet "])
def test_a_side_is_read_off_every_order_of_words(wording, side, other, noun):
    for question in (SIDE, IS_LEFT, IS_RIGHT):
        for a, b, expected in ((0, 1, side), (1, 0, other)):
            answer = wording.format(a=f"{noun}[Region {a}]", b=f"{noun}[Region {b}]", side=side, other=other)
            assert set(readings("left_right", question, answer)) == {expected}, answer


@pytest.mark.parametrize(
    "answer, agrees",
    [
        ("Yes, that is right.", True),
        ("Yes, that's right.", True),
        ("Yes, it is right.", True),
        ("Yes, absolutely right.", True),
        ("You are right.", True),
        ("That is correct.", True),
        ("Exactly.", True),
        ("Absolutely, it is.", True),
        ("Sure, it does.", True),
        ("Of course.", True),
        ("It is.", True),
        ("The answer is yes.", True),
        ("No, that is not right.", False),
        ("That isn't right.", False),
        ("That's incorrect.", False),
        ("That is not correct.", False),
        ("Actually, no.", False),
        ("Absolutely not.", False),
        ("Not at all.", False),
        ("It is not.", False),
        ("It doesn't.", False),
        ("No, it's the other way around.", False),
    ],
)
def test_yes_and_no_mean_the_side_that_is_asked_about(answer, agrees):
    assert normalized_answer("left_right", IS_LEFT, answer) == ("left" if agrees else "right")
    assert normalized_answer("left_right", IS_RIGHT, answer) == ("right" if agrees else "left")


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("4", 4),
        ("four", 4),
        ("3.0", 3),
        ("Answer: 2", 2),
        ("There are 12 pallets.", 12),
        ("Hence, there are no pallets in the buffer region [Region 3].", 0),
        ("The buffer region [Region 0] does not contain any pallets.", 0),
        ("The buffer region [Region 0] is empty.", 0),
        ("There are twenty-one pallets in the buffer area [Region 0].", 21),
        ("There are thirty five pallets in the buffer area [Region 0].", 35),
        ("ninety-nine", 99),
        ("forty", 40),
        ("A single pallet is in the buffer region [Region 0].", 1),
        ("The buffer region [Region 1] holds a total of one pallet.", 1),
        ("There is a pallet in the buffer region [Region 0].", 1),
        ("The buffer region [Region 1] does not hold a pallet.", 0),
        ("The buffer region [Region 1] is devoid of pallets.", 0),
        ("None of the pallets is inside the buffer region [Region 0].", 0),
        ("There are not two but three pallets in [Region 0].", 3),
        ("There are 2 pallets, not 3.", 2),
        ("Out of the 10 pallets, 3 are in the buffer region [Region 0].", 3),
        ("Of all ten pallets, four are inside the buffer region [Region 0].", 4),
        ("Therefore, three pallets have been positioned in the buffer area [Region 1].", 3),
        ("The shelf [Region 14] is the closest one. Thus, there are two pallets in the buffer area [Region 2].", 2),
        ("The buffer region [Region 0] contains pallets [Region 4], [Region 5] and [Region 7].", 3),
        ("The buffer region [Region 0] contains pallets [Region 4] [Region 5] [Region", 2),
        ("It means that there is one pallet in the buffer zone [Region 5].", 1),
        ("There is one transporter and three pallets in the buffer area [Region 0].", 3),
        ("There is no transporter in the buffer region [Region 0], only two pallets.", 2),
        ("There are no transporters but three pallets in the buffer region [Region 0].", 3),
        ("It contains a pallet and a transporter.", 1),
        ("It contains a transporter but no pallets.", 0),
        ("Two shelves are visible and three pallets are inside the buffer [Region 0].", 3),
        ("Two boxes on one pallet are in the buffer region [Region 0].", 1),
        ("There are three boxes in the buffer region [Region 0].", 3),
        ("Six pallets are visible, but only two pallets are in the leftmost buffer area [Region 0].", 2),
        ("There are three pallets in total, of which two are in the buffer.", 2),
        ("There are five pallets, and two of them are inside.", 2),
        ("Two out of five pallets are inside.", 2),
        ("There are 2 pallets in the buffer region [Region 0] and 3 pallets outside.", 2),
        ("The other three pallets are outside, so two pallets are inside.", 2),
        ("There are two pallets. One is loaded.", 2),
        ("Only one of the pallets is inside.", 1),
        ("Just one.", 1),
        ("Zone 2 has three pallets.", 3),
        ("In this zone 2 pallets are stored.", 2),
        ("Buffer zone 1 contains pallets 3, 4 and 7.", 3),
        ("The buffer remains empty.", 0),
        ("The buffer area [Region 0] is vacant.", 0),
        ("The buffer region [Region 0] is not empty: it holds two pallets.", 2),
        ("The transporter is near. There isn't a single pallet in the buffer region [Region 0].", 0),
        ("A pair of pallets is in the buffer region [Region 1].", 2),
        ("It stores a couple of pallets.", 2),
        ("The buffer region [Region 1] is the leftmost one.", None),
        ("The buffer region [Region 1] is one of three buffer regions.", None),
        ("The pallets [Region 3] [Region 4] are outside the buffer region [Region 0].", None),
        ("It does not have more than two pallets.", None),
        ("The shelf [Region 14] is the shelf on the left.", None),
        ("[Region 3] [Region 3] [Region 3] [Region 3] [Region 3] [Region 3]", None),
        ("9" * 5000, None),
    ],
)
def test_count(answer, expected):
    assert normalized_answer("count", COUNT, answer) == expected


@pytest.mark.parametrize(
    "question, expected",
    [
        ("How many pallets are near the shelf <mask>?", 3),
        ("How many transporters are near the shelf <mask>?", 2),
        ("What is the number of boxes near the shelf <mask>?", 4),
    ],
)
def test_the_things_that_the_question_asks_for_are_counted(question, expected):
    answer = "There are two transporters, three pallets and four boxes near the shelf [Region 0]."
    assert normalized_answer("count", question, answer) == expected


@pytest.mark.parametrize(
    "question, answer, expected",
    [
        (PICK, "[Region 3]", 3),
        (PICK, "3", 3),
        (PICK, "region three", 3),
        (PICK, "The most suitable pallet for transporter [Region 6] is [Region 4].", 4),
        (PICK, "The closest to [Region 6] is [Region 4].", 4),
        (PICK, "The transporter [Region 6] should pick up the pallet [Region 1] first.", 1),
        (
            PICK,
            "Among the pallets [Region 0], [Region 1], [Region 2], the pallet [Region 2] is the closest to [Region 6].",
            2,
        ),
        (PICK, "Pallet [Region 3] is not the closest; pallet [Region 5] is the closest to transporter [Region 6].", 5),
        (PICK, "The transporter [Region 1] is the closest to transporter [Region 6].", 1),
        (PICK, "Not [Region 2] but [Region 3].", 3),
        (PICK, "[Region 3], not [Region 2].", 3),
        (PICK, "I would choose [Region 4] instead of [Region 2].", 4),
        (PICK, "Region twenty-one", 21),
        (PICK, "region_5", 5),
        (ZONE, "Buffer zone [Region 0] is closer to the shelf [Region 3] than [Region 1] and [Region 2].", 0),
        (ZONE, "The shelf [Region 3] is closest to the buffer zone [Region 1].", 1),
        (PICK, "The transporter [Region 6] is closest to the pallet [Region 4].", 4),
        (PICK, "[Region 6] is closest to [Region 4].", 4),
        (PICK, "[Region 4] is closest to [Region 6].", 4),
        (PICK, "The transporter [Region 6] is nearest to pallet [Region 4], so it is the most suitable choice.", 4),
        (PICK, "Pallet 4 is closest to transporter 6.", 4),
        (PICK, "Transporter 6 is closest to pallet four.", 4),
        (PICK, "The nearest pallet to transporter 6 is 4.", 4),
        (PICK, "Since the pallet [Region 2] is closer than the pallet [Region 5], it is the best choice.", 2),
        (PICK, "Being closer than the pallet [Region 5], the pallet [Region 2] is the best choice.", 2),
        (
            PICK,
            "The pallet [Region 2] is closer than the pallets [Region 1], [Region 3] and [Region 5], so it should be picked.",
            2,
        ),
        (PICK, "The pallet [Region 2] is blocked, so the best option is the pallet [Region 4].", 4),
        (PICK, "The pallet [Region 4] is the best choice because the pallet [Region 2] is blocked.", 4),
        (PICK, "The pallet [Region 2] is the second closest, while the pallet [Region 1] is the closest.", 1),
        (PICK, "The pallet [Region 1] is the closest, while the pallet [Region 2] is the second closest.", 1),
        (PICK, "As the pallet [Region 2] is closest, it should be chosen over the pallet [Region 3].", 2),
        (PICK, "The best choice would not be [Region 1] but [Region 2].", 2),
        (PICK, "The pallet [Region 3] is not the most suitable; the pallet [Region 5] is.", 5),
        (PICK, "The pallet closest to the transporter is [Region 4], not far from the pallet [Region 2].", 4),
        (PICK, "The pallet [Region 4], which is next to the pallet [Region 5], is the closest to it.", 4),
        (PICK, "[Region 6]", 6),
        (PICK, "The transporter [Region 6] is not carrying any boxes. The pallet [Region", None),
        (PICK, "The pallet [Region 3] isn't the closest.", None),
        (PICK, "The closest one.", None),
        (PICK, "The two pallets are 3 meters apart.", None),
        (PICK_UNNAMED, "[Region 3] is closest to [Region 1].", 1),
        (ZONE, "The shelf [Region 3] is closest to the buffer [Region 1].", 1),
        (ZONE, "Shelf 3 is closest to buffer zone 1.", 1),
        (ZONE_UNNAMED, "[Region 3] is closest to [Region 1].", 1),
        (PICK, "none of this", None),
    ],
)
def test_mcq(question, answer, expected):
    assert normalized_answer("mcq", question, answer) == expected


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("7.27", 7.27),
        ("The pallet [Region 0] and the pallet [Region 1] are 4.90 meters apart.", 4.9),
        ("Region 0 and Region 1 are 3.4 metres apart", 3.4),
        ("roughly 7,27 meters", 7.27),
        ("five meters", 5.0),
        ("The distance is 35 cm.", 0.35),
        ("10 feet", 3.048),
        ("about 15 meters (49 feet)", 15.0),
        ("347 cm (3.47 meters)", 3.47),
        ("3 meters and 50 centimeters", 3.5),
        ("0.9 meters, 90 cm", 0.9),
        ("5 feet 3 inches", 1.6002),
        ("5 ft 3 in", 1.6002),
        ("12 inches", 0.3048),
        ("0.004 km", 4.0),
        ("twenty-one meters", 21.0),
        ("two and a half meters", 2.5),
        ("half a meter", 0.5),
        ("a meter", 1.0),
        ("three point two five meters", 3.25),
        ("It is not 3 meters but 4 meters.", 4.0),
        ("4 meters, not 3 meters.", 4.0),
        ("The distance is 4 meters rather than 3 meters.", 4.0),
        ("The pallet [Region 0] is not inside; it is 2.5 meters from the buffer [Region 1].", 2.5),
        ("The transporter [Region 0] can be found in the buffer area [Region 1].", 0.0),
        ("There is no distance between them.", 0.0),
        ("It is within 3.2 meters of the shelf [Region 2].", 3.2),
        ("The pallet [Region 0] is inside the buffer region [Region 1].", 0.0),
        ("Right now, the transporter [Region 3] is located in the buffer region [Region 1].", 0.0),
        ("The transporter [Region 3] is not inside the buffer region [Region 1].", None),
        ("The transporter [Region 3] is not outside but inside the buffer region [Region 0].", 0.0),
        ("The transporter [Region 3] isn't far: it is in the buffer region [Region 0].", 0.0),
        ("The transporter [Region 3] occupies the buffer region [Region 0].", 0.0),
        ("The transporter [Region 3] is currently in the leftmost buffer.", 0.0),
        ("The transporter [Region 3] stands on top of the buffer area [Region 0].", 0.0),
        ("The transporter is in buffer zone 2.", 0.0),
        ("The transporter [Region 3] lies within the bounds of the buffer region [Region 0].", 0.0),
        ("[Region 3] is inside of [Region 0].", 0.0),
        ("It is inside.", 0.0),
        ("The transporter [Region 3] is in front of the buffer region [Region 0].", None),
        ("The transporter [Region 3] is on the left of the buffer region [Region 0].", None),
        ("The transporter [Region 3] is between the buffer regions [Region 0] and [Region 1].", None),
        ("The transporter [Region 3] is in another buffer region.", None),
        ("The transporter [Region 3] is in one of the two buffer regions.", None),
        ("The transporter [Region 3] is almost in the buffer region [Region 0].", None),
        ("The transporter [Region 3] is never in the buffer region [Region 0].", None),
        ("The transporter [Region 3] is in the area between the shelves.", None),
        ("The transporter [Region 3] is within the picture.", None),
        ("The pallet [Region 2] is placed on the floor.", None),
        ("[Region 2] is on the rightmost side.", None),
        ("The transporter is located in", None),
        ("The buffer region [Region 1] is on the left. The transporter [Region 0] is", None),
        ("Pallet 4 is 3.4 from pallet 5.", 3.4),
        ("Regions 0 and 1 are 3.4 apart.", 3.4),
        ("The transporter is from the shelf 4 meters.", 4.0),
        ('The answer is "5".', 5.0),
        ("1,204.5 centimeters", 12.045),
        ("1,200 millimeters", 1.2),
        ("12,345,678 mm", 12345.678),
        ("2,5 m", 2.5),
        ("7,270 meters", 7.27),
        ("0,750 meters", 0.75),
        ("9.1 meters (\u00b10.5 meters)", 9.1),
        ("9.1 +/- 0.5 meters", 9.1),
        ("three quarters of a meter", 0.75),
        ("one and three quarter meters", 1.75),
        ("a half meter", 0.5),
        ("a meter and a half", 1.5),
        ("2 meters and a half", 2.5),
        ("one hundred and twenty centimeters", 1.2),
        ("two hundred centimeters", 2.0),
        ("6' 2\"", 1.8796),
        ("6\u2032 2\u2033", 1.8796),
        ("11 .4 meters", 11.4),
        ("3/4 m", None),
        ("about 10 1/2 inches", 0.2667),
        ("2 1/2 feet", 0.762),
        ("2 and 1/2 feet", 0.762),
        ("The width is 1 1/4 m.", 1.25),
        ("5' 10-1/2\"", 1.7907),
        ("They are 1 1/2 apart.", 1.5),
        ("2\u00bd ft", 0.762),
        ("3 \u2153 yards", 3.048),
        ("2 yd", 1.8288),
        ("2.5 miles", 4023.36),
        ("2.5e-1 m", 0.25),
        ("about 1.2e+01 meters", 12.0),
        ("\u00bd m", 0.5),
        ("1\u20442 m", 0.5),
        ("10 \u00b1 1/2 inches", 0.254),
        ("twenty\u2011one meters", 21.0),
        ("1 200 mm", 1.2),
        ("1\u202f200 mm", 1.2),
        ("1'200 mm", 1.2),
        ("1.200,5 mm", 1.2005),
        ("[Region 3] 200 mm", 0.2),
        ("The pallet [Region 0] is the rightmost pallet.", None),
    ],
)
def test_distance(answer, expected):
    assert normalized_answer("distance", FAR, answer) == expected


@pytest.mark.parametrize(
    "category, question, answer, expected",
    [
        (
            "left_right",
            SIDE,
            "The pallet [Region 0] is to the left. The pallet [Region 0] is to the right.",
            ["left", "right"],
        ),
        ("count", COUNT, "There are two pallets. Hence, three pallets are there.", [2, 3]),
        (
            "count",
            COUNT,
            "The buffer region [Region 0] has pallets [Region 4] [Region 5]. Thus, it holds a total of three pallets.",
            [2, 3],
        ),
        ("mcq", PICK, "The pallet [Region 2] is the closest. The best choice is the pallet [Region 4].", [2, 4]),
        ("mcq", PICK, "3 or 4", [3, 4]),
        ("distance", FAR, "between 3 and 4 meters", [3.0, 4.0]),
        ("distance", FAR, "between 3 m and 4 m", [3.0, 4.0]),
        ("distance", FAR, "from 30 to 40 cm", [0.3, 0.4]),
        ("distance", FAR, "3-4 meters", [3.0, 4.0]),
        ("distance", FAR, "3\u22124 meters", [3.0, 4.0]),
        ("distance", FAR, "1 1/2 to 2 1/4 m", [1.5, 2.25]),
        ("distance", FAR, "about 3 or 4 meters", [3.0, 4.0]),
        ("count", COUNT, "There are two or three pallets.", [2, 3]),
        ("distance", FAR, "They are 3 meters apart, or 4 meters.", [3.0, 4.0]),
        ("distance", FAR, "They are 3 or 4 apart.", [3.0, 4.0]),
        ("distance", FAR, "They are 15 meters (49 feet) apart.", [15.0]),
        ("distance", FAR, "They are 3 or 4 meters apart. Answer: 4 meters", [4.0]),
    ],
)
def test_all_readings_of_an_ambiguous_answer_are_found(category, question, answer, expected):
    found = readings(category, question, answer)
    assert sorted(set(found)) == sorted(expected) and found[-1] == expected[-1]


@pytest.mark.parametrize("category", WAREHOUSE_CATEGORIES)
@pytest.mark.parametrize("answer", ["", "   ", "!!!!!!!!!!!!!!!!", "...", "the the the the the the the", "\n\n", "[]"])
def test_garbage_is_unreadable(category, answer):
    assert normalized_answer(category, SIDE, answer) is None


WORDS = st.lists(
    st.sampled_from(
        [
            "left",
            "right",
            "not",
            "no",
            "yes",
            "[Region 3]",
            "[Region",
            "Region 12]",
            "pallet",
            "the",
            "closest",
            "three",
            "none",
            "7.27",
            "meters",
            "0",
            "99999999999999999999",
            "inside",
            ",",
            ".",
            "!",
            "transporter",
            "is",
            "Answer:",
            "[",
            "<mask>",
            "\u0663",
            "\u00b2",
            "\u2019",
        ]
    ),
    max_size=30,
).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WAREHOUSE_CATEGORIES), st.text(max_size=80) | WORDS, st.text(max_size=200) | WORDS)
def test_any_text_gives_a_value_of_its_category_or_none(category, question, answer):
    value = normalized_answer(category, question, answer)
    kind = {"left_right": str, "count": int, "mcq": int, "distance": float}[category]
    assert value is None or type(value) is kind
    assert value is None or normalize_answer(category, value) == value
    assert normalized_answer("", question, answer) is None or question_category(question)


@pytest.mark.parametrize(
    "category, value, expected",
    [
        ("left_right", "LEFT", "left"),
        ("left_right", " left", "left"),
        ("left_right", "l", "left"),
        ("left_right", "left-hand", "left"),
        ("left_right", "right side", "right"),
        ("left_right", "up", None),
        ("left_right", "", None),
        ("mcq", "[Region 9]", 9),
        ("mcq", "Region 14 or 3", 14),
        ("mcq", "seven", 7),
        ("mcq", "none", 0),
        ("mcq", 14, 14),
        ("mcq", 10**400, None),
        ("mcq", None, None),
        ("mcq", [3], None),
        ("count", "two", 2),
        ("count", 3.0, 3),
        ("count", "3", 3),
        ("count", 2.5, 2.5),
        ("count", True, None),
        ("count", float("nan"), None),
        ("distance", "18.80", 18.8),
        ("distance", 3, 3.0),
        ("distance", "9.5e-05", 9.5e-05),
        ("distance", ".5", 0.5),
        ("mcq", "Region -3", 3),
        ("distance", "\u22122.5", None),
        ("distance", "1e400", None),
        ("count", "2e0", 2),
        ("distance", "", None),
    ],
)
def test_normalised_values_are_parsed_as_the_official_scorer_does(category, value, expected):
    parsed = parse_normalized(category, value)
    assert parsed == expected and type(parsed) is type(expected)
