"""How likely answers are, against one forward pass of each question by itself."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from smolrgpt_jax import sharding
from smolrgpt_jax.generation.likelihood import log_likelihoods
from tests.generation.conftest import teacher_forced

TEXTS = ("left", "The pallet is 3.5 meters away.", "2", "")


@pytest.fixture(scope="module")
def expected(model, pictures):
    """{question id: its text}, {question id: the sum over the text's tokens}."""
    questions = [question for picture in pictures for question in picture.questions]
    texts = {question.id: TEXTS[number % len(TEXTS)] for number, question in enumerate(questions)}
    ids = {}
    for question in questions:
        spoken, begin = model.tokenizer.question(question.prompt, texts[question.id])
        ids[question.id] = spoken[begin:].tolist()
    logits = teacher_forced(model, pictures, ids)
    likely = {name: np.asarray(jax.nn.log_softmax(found, axis=-1)) for name, found in logits.items()}
    return texts, {name: float(found[np.arange(len(found)), ids[name]].sum()) for name, found in likely.items()}


def test_packed_rows_give_what_each_question_gives_alone(model, pictures, expected):
    texts, sums = expected
    found = log_likelihoods(model, pictures, texts, batch_rows=2)
    assert found.keys() == sums.keys()
    np.testing.assert_allclose([found[name] for name in sums], list(sums.values()), rtol=1e-4)
    assert len({round(value, 2) for value in found.values()}) > len(TEXTS)


def test_questions_without_regions_or_answers(model, pictures, expected):
    texts, sums = expected
    first, *others = pictures
    about = dataclasses.replace(first.questions[0], id="about", prompt="What is this?", answer="A hall.", regions=())
    asked = [dataclasses.replace(first, questions=(*first.questions, about)), *others]
    plain = dataclasses.replace(first, depth=None, questions=(about,))
    some = {name: texts[name] for name in list(texts)[::3]}
    found = log_likelihoods(model, asked, some | {"about": "A hall."})
    assert found.keys() == some.keys() | {"about"}
    assert found["about"] == pytest.approx(log_likelihoods(model, [plain], {"about": "A hall."})["about"], rel=1e-4)
    np.testing.assert_allclose([found[name] for name in some], [sums[name] for name in some], rtol=1e-4)


def test_an_answer_is_not_closed_with_the_published_value(model, pictures, expected):
    texts, sums = expected
    closing = dataclasses.replace(model, tokenizer=model.tokenizer.with_format(closing_answer=True))
    found = log_likelihoods(closing, pictures[:1], texts)
    assert all(question.normalized_answer is not None for question in pictures[0].questions)
    np.testing.assert_allclose(list(found.values()), [sums[name] for name in found], rtol=1e-4)


def test_on_several_devices(model, pictures, expected):
    texts, sums = expected
    mesh = sharding.make_mesh(devices=jax.devices()[:4])
    spread = dataclasses.replace(model, params=jax.device_put(dict(model.params), sharding.replicated(mesh)))
    found = log_likelihoods(spread, pictures, texts, batch_rows=2)
    np.testing.assert_allclose([found[name] for name in sums], list(sums.values()), rtol=1e-4)
