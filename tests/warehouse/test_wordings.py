"""Further wordings ask for the same as the published ones, in training questions alone."""

from __future__ import annotations

import re
import string

import numpy as np
import pytest

from eval.reading.rules import normalized_answer, question_category
from eval.studies.other_words import OTHER_WORDS
from smolrgpt_jax.warehouse.make_scene import make_questions
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.words.wordings import FURTHER, WORDINGS, alike, mask_order

PLACES = {"noun": "pallet", "side": "left", "which": "rightmost", "where": "middle"}
PLACES |= {"pallets": "<mask> <mask> <mask>", "buffers": "<mask> <mask>", "shelves": "<mask> <mask>"}
PLACES |= {"transporters": "<mask> <mask>"}
ASKED = [(form, wording) for form in FURTHER for wording in WORDINGS[form]]


def names(wording):
    return {name for _, name, *_ in string.Formatter().parse(wording) if name}


def known(text):
    """Whether a question is worded in one of the published ways, whatever its masks and places are."""
    return any(
        re.fullmatch(re.sub(r"\\\{\w+\\\}", ".+", re.escape(wording)), text.removeprefix("<image>\n"))
        for form in FURTHER
        for wording in WORDINGS[form]
    )


@pytest.mark.parametrize(("form", "wording"), ASKED, ids=[f"{form}-{n}" for n, (form, _) in enumerate(ASKED)])
def test_a_further_wording_has_the_same_masks_and_places_and_is_read_alike(form, wording):
    others = alike(wording, FURTHER[form])
    assert len(others) >= 3
    for other in others:
        assert mask_order(other) == mask_order(wording) and names(other) >= names(wording)
        for which in ("leftmost", "rightmost", "middle"):
            places = PLACES | {"which": which}
            assert question_category(other.format(**places)) == question_category(wording.format(**places))


def test_no_further_wording_is_one_of_the_others():
    """The study of other words asks in what no training has."""
    assert set(FURTHER) == set(OTHER_WORDS)
    every = [wording for kind in (WORDINGS, FURTHER, OTHER_WORDS) for form in FURTHER for wording in kind[form]]
    assert len(set(every)) == len(every)
    assert all(alike(FURTHER[form][i], WORDINGS[form]) for form in FURTHER for i in range(len(FURTHER[form])))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_share_of_the_training_questions_is_worded_anew_and_nothing_else_changes(samples, split):
    plain, reworded = WarehouseConfig(width=96, height=54), WarehouseConfig(width=96, height=54, further_wordings=0.5)
    asked, changed = 0, 0
    for index, sample in enumerate(samples[:60]):
        drawn = [
            make_questions(config, split, sample.scene, sample.regions, np.random.default_rng(index))
            for config in (plain, reworded)
        ]
        for before, after in zip(*drawn, strict=True):
            asked, changed = asked + 1, changed + (before.prompt != after.prompt)
            assert known(before.prompt) and known(after.prompt) == (before.prompt == after.prompt)
            assert before.prompt.count("<mask>") == after.prompt.count("<mask>") == len(after.regions)
            assert (before.answer, before.regions, before.about) == (after.answer, after.regions, after.about)
    assert changed / asked == pytest.approx(0.5 if split == "train" else 0.0, abs=0.06)


def test_answers_to_further_wordings_are_read_as_what_they_say(samples):
    config, asked = WarehouseConfig(width=96, height=54, further_wordings=1.0), set()
    for index, sample in enumerate(samples):
        for q in make_questions(config, "train", sample.scene, sample.regions, np.random.default_rng(index)):
            asked.add(re.sub("<mask>( <mask>)*", "", q.prompt))
            value = normalized_answer("", q.prompt, q.answer)
            assert value == pytest.approx(q.normalized_answer, abs=0.005) or str(value) == q.normalized_answer, q.prompt
    assert len(asked) > 200


def test_further_wordings_leave_the_generator_as_it_was(samples):
    """Captions are drawn from it afterwards, and the questions of other formats from a child of it."""
    sample, left = samples[0], []
    for share in (0.0, 1.0):
        rng = np.random.default_rng(0)
        make_questions(WarehouseConfig(further_wordings=share), "train", sample.scene, sample.regions, rng)
        left.append((rng.random(), rng.spawn(1)[0].random()))
    assert left[0] == left[1]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=f"further_wordings is {share}, must be 0 to 1"):
        WarehouseConfig(further_wordings=share)
