from __future__ import annotations

from pathlib import Path

import pytest

from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import Picture, Question
from smolrgpt_jax.data.trained_on import Shown, TrainedOn

BOX = RLE(2, 2, b"04")


def pictures(*turns: tuple[str, str]) -> list[Picture]:
    asked = [Question(text, "", text, answer, None, (BOX,) * text.count("<mask>")) for text, answer in turns]
    return [Picture("a", Path("a.png"), Path("a_depth.png"), tuple(asked))]


REGIONS = pictures(
    ("How far is the pallet <mask> from the pallet <mask>?", "4 meters."),
    ("Which of the pallets <mask> <mask> is near the transporter at <mask>?", "The first."),
    ("How many pallets are in the buffer region <mask>, given the distance to <mask>?", "Two."),
    ("How far is the shelf <mask>?", "Far off, behind the shelves."),
)


@pytest.fixture
def seen() -> TrainedOn:
    return TrainedOn().and_on(["regions"], Shown.of(REGIONS), regions=True)


def test_a_training_is_told_by_its_sources_objects_and_share_of_regions(seen):
    expected = "trained on regions (pallet, transporter, buffer, shelf); 100% of its questions mark regions, with depth"
    assert str(seen) == expected


def test_trainings_add_up_and_the_last_says_how_questions_are(seen):
    later = seen.and_on(["captions", "regions"], Shown.of(pictures(("Describe it.", "A person."))), regions=False)
    assert later.data == "regions, captions" and later.objects == seen.objects and later.regions == 0
    assert {"person", "describe", "shelves"} <= set(later.words.split())
    assert seen.and_on(["regions"], Shown.of(REGIONS), regions=False).regions == 0


@pytest.mark.parametrize(
    ("question", "regions", "words"),
    [
        ("How far is the pallet <mask> from the shelves <mask>?", 2, None),
        ("How far is the person <mask> from the car <mask>?", 2, "never says person, car: its answer is a guess"),
        ("How many pallets are there?", 0, "never says there"),
        ("How many pallets?", 0, "was not trained on questions without regions and depth: its answer is a guess"),
    ],
)
def test_a_question_unlike_the_training_gets_one_sentence(seen, question, regions, words):
    notice = seen.notice(question, regions)
    assert notice is None if words is None else words in notice and "\n" not in notice


def test_a_model_of_whole_pictures_is_not_asked_about_regions():
    assert "with regions and depth" in TrainedOn("captions", "", "how far", 0.0).notice("How far <mask>?", 1)
