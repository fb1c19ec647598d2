"""Questions that come one by one get the answers that the engine gives, which knows all of them beforehand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from smolrgpt_jax.data.images import read_depth, read_rgb
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.generation.engine import AnswerOptions
from smolrgpt_jax.generation.likelihood import log_likelihoods
from smolrgpt_jax.generation.online import ENOUGH, Asked, OnlineEngine
from tests.generation.conftest import answer_ids

NEW_TOKENS = 12


@pytest.fixture(scope="module")
def engine(model) -> OnlineEngine:
    return OnlineEngine(model, 4, question_tokens=128, answer_tokens=NEW_TOKENS, regions=8)


@pytest.fixture(scope="module")
def asked(engine, pictures):
    """{id: (picture, question)} of those that the engine takes."""
    found = {question.id: (picture, question) for picture in pictures for question in picture.questions}
    return {name: pair for name, pair in found.items() if len(pair[1].regions) <= engine.most_regions}


def prefix_of(engine, picture):
    size = engine.config.vision.image_size
    return engine.read_picture(read_rgb(picture.image, size), read_depth(picture.depth, size, beside=picture.image))


def answer_all(engine, asked, steps: int, **how) -> dict[str, list[int]]:
    """Gives every slot that is free to the next question."""
    waiting, taken, answers, prefixes = list(asked), {}, {}, {}
    while waiting or taken:
        for slot, busy in enumerate(engine.asked):
            if busy is None and waiting:
                taken[slot] = name = waiting.pop(0)
                picture, question = asked[name]
                if picture.id not in prefixes:
                    prefixes[picture.id] = prefix_of(engine, picture)
                ids = engine.question_ids(question)
                engine.admit(slot, prefixes[picture.id], Asked(ids, question.regions, NEW_TOKENS, **how))
        for slot, (ids, ended) in engine.step(steps).items():
            if ended:
                answers[taken.pop(slot)] = ids.tolist()
    return answers


@pytest.mark.parametrize("steps", [1, 16])
def test_answers_are_those_of_the_engine(model, pictures, engine, asked, steps):
    expected = answer_ids(model, pictures, AnswerOptions(8, NEW_TOKENS, progress=False))
    assert len(asked) > 20 and len({len(ids) for ids in expected.values()}) > 2
    assert answer_all(engine, asked, steps) == {name: expected[name] for name in asked}


def test_slots_that_nobody_takes_are_given_up_and_come_back(model, pictures, engine, asked):
    expected = answer_ids(model, pictures, AnswerOptions(8, NEW_TOKENS, progress=False))
    engine.empty()
    names = [name for name in asked if len(expected[name]) > 6][:4]
    told = [Asked(engine.question_ids(asked[name][1]), asked[name][1].regions, NEW_TOKENS) for name in names]
    sizes, found = [], {}
    for _ in range(2):
        for slot, name in enumerate(names):
            engine.admit(slot, prefix_of(engine, asked[name][0]), told[slot])
            found |= engine.step(1)
            sizes.append(len(engine._slots.ended))
        while any(engine.asked):
            found |= engine.step(1)
        assert [found[slot][0].tolist() for slot in range(4)] == [expected[name] for name in names]
        for _ in range(ENOUGH + 1):
            engine.step(1)
        sizes.append(len(engine._slots.ended))
    assert sizes == [1, 4, 4, 4, 1] * 2


def test_a_slot_that_draws_leaves_greedy_ones_as_they_are(model, pictures, engine, asked):
    expected = answer_ids(model, pictures, AnswerOptions(8, NEW_TOKENS, progress=False))
    (first, second, *_) = [name for name in asked if len(expected[name]) > 4]
    drawn = []
    for seed in range(3):
        for slot, name in enumerate((first, second)):
            picture, question = asked[name]
            how = {"temperature": 2.0, "key": np.array([seed, 1], np.uint32)} if slot else {}
            told = Asked(engine.question_ids(question), question.regions, NEW_TOKENS, **how)
            engine.admit(slot, prefix_of(engine, picture), told)
        found = {}
        while any(engine.asked):
            found |= engine.step(3)
        assert found[0][0].tolist() == expected[first]
        drawn.append(found[1][0].tolist())
    assert len({tuple(ids) for ids in drawn}) == 3


def test_a_cancelled_slot_is_free_and_its_next_answer_is_whole(model, pictures, engine, asked):
    expected = answer_ids(model, pictures, AnswerOptions(8, NEW_TOKENS, progress=False))
    long = [name for name in asked if len(expected[name]) > 6]
    picture, question = asked[long[0]]
    engine.admit(2, prefix_of(engine, picture), Asked(engine.question_ids(question), question.regions, NEW_TOKENS))
    assert not engine.step(2)[2][1]
    engine.cancel(2)
    assert engine.step(2) == {}
    assert answer_all(engine, {long[1]: asked[long[1]]}, 2) == {long[1]: expected[long[1]]}


def test_how_likely_an_answer_is(model, engine, asked):
    picture, question = next(iter(asked.values()))
    texts = {"short": "", "longer": "The pallet is 3.5 meters away."}
    both = tuple(dataclasses.replace(question, id=name) for name in texts)
    expected = log_likelihoods(model, [dataclasses.replace(picture, questions=both)], texts)
    prefix = prefix_of(engine, picture)
    found = [engine.log_likelihood(prefix, question, text) for text in texts.values()]
    np.testing.assert_allclose(found, [expected[name] for name in texts], rtol=1e-4)
    plain = dataclasses.replace(question, prompt="What is this?", regions=())
    assert engine.log_likelihood(prefix, plain, "left") < 0


def test_megabytes_are_refused_before_they_are_tokenised(engine, asked, monkeypatch):
    _, question = next(iter(asked.values()))
    monkeypatch.setattr(engine.tokenizer, "conversations", lambda *_: pytest.fail("was tokenised"))
    with pytest.raises(DataError, match="has 9,[0-9,]+ characters, more than fit in the 128 tokens that are read at"):
        engine.question_ids(dataclasses.replace(question, prompt=question.prompt + "far " * 2_250_000))


def test_too_long_and_too_many_are_told(engine, asked):
    _, question = next(iter(asked.values()))
    with pytest.raises(DataError, match="takes [0-9]+ tokens, at most 128 are read"):
        engine.question_ids(dataclasses.replace(question, prompt="where is it? " * 99, regions=()))
    with pytest.raises(DataError, match="has 9 regions, at most 8 are read"):
        engine.question_ids(dataclasses.replace(question, regions=question.regions[:1] * 9))
