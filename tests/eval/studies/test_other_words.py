"""Questions in other words: nothing but the words is another."""

from __future__ import annotations

import re
import string

import numpy as np
import pytest

from eval.reading.rules import question_category
from eval.studies.other_words import OTHER_WORDS, in_other_words, reworded
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.warehouse.words.wordings import FORMS, WORDINGS

PLACES = {"noun": "buffer region", "side": "left", "which": "rightmost", "where": "middle"}
PLACES |= {name: " ".join(["<mask>"] * n) for name, n in {"pallets": 3, "buffers": 2, "shelves": 4}.items()}
PLACES["transporters"] = " ".join(["<mask>"] * 5)
ASKED = [(form, wording) for form in OTHER_WORDS for wording in WORDINGS[form]]


def runs(question):
    """How many masks stand side by side, from first to last."""
    return [len(run) // len("<mask>") for run in re.findall("((?:<mask>)+)", question.replace(" <mask>", "<mask>"))]


def names(wording):
    return {name for _, name, *_ in string.Formatter().parse(wording) if name}


@pytest.mark.parametrize(("form", "wording"), ASKED, ids=[f"{form}-{n}" for n, (form, _) in enumerate(ASKED)])
def test_masks_and_places_stay_and_the_wording_is_in_no_training(form, wording):
    question = "<image>\n" + wording.format(**PLACES)
    rng = np.random.default_rng(0)
    for new in {in_other_words(question, rng) for _ in range(8)}:
        assert new.startswith("<image>\n") and "{" not in new
        assert runs(new) == runs(question)
        for place in names(wording) & {"side", "which", "where", "noun"}:
            assert new.count(PLACES[place]) == question.count(PLACES[place])
        assert not any(new.removeprefix("<image>\n") == known.format(**PLACES) for known in WORDINGS[form])
        category = question_category(question)
        assert category in FORMS and question_category(new) == category


def test_every_way_to_ask_has_other_words():
    """A form without them would stop a study of a checkpoint after its first answers."""
    sentences = {
        name for name, wordings in WORDINGS.items() if any(re.search("[?]|^(Tell|Measure)", w) for w in wordings)
    }
    assert sentences == set(OTHER_WORDS)


def test_records_keep_all_but_their_question():
    asked = {"from": "human", "value": "How far is the pallet <mask> from the pallet <mask>?"}
    said = {"from": "gpt", "value": "The pallet [Region 0] is 2.50 meters from the pallet [Region 1]."}
    record = {"id": "a", "conversations": [asked, said], "rle": [1, 2], "normalized_answer": 2.5}
    (new,) = reworded([record], np.random.default_rng(0))
    assert new["conversations"][0]["value"] != asked["value"]
    new["conversations"][0]["value"] = asked["value"]
    assert new == record


def test_a_question_of_another_kind_is_named():
    with pytest.raises(DataError, match="'What is this <mask>\\?' is not worded as the procedural warehouse asks"):
        in_other_words("What is this <mask>?", np.random.default_rng(0))
