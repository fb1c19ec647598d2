from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.answering.mirror import mirrored_question, mirrored_text, mirrored_value
from smolrgpt_jax import load
from smolrgpt_jax.data.masks import decode, encode
from smolrgpt_jax.data.records import Question
from smolrgpt_jax.data.sources.warehouse import read_warehouse
from smolrgpt_jax.generation import AnswerOptions, generate_answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is <mask> to the left or right of <mask>?", "Is <mask> to the right or left of <mask>?"),
        ("Which is the leftmost buffer?", "Which is the rightmost buffer?"),
        ("the right-most, the left most", "the left-most, the right most"),
        ("Right of it? LEFT?", "Left of it? RIGHT?"),
        ("on the left-hand side", "on the right-hand side"),
        # As published, two words run together.
        ("the rightmostthe given", "the leftmostthe given"),
        # Of no side.
        ("Right now, is the bright upright pallet right next to it?",) * 2,
        ("All right, how far is <mask> from <mask>?",) * 2,
    ],
)
def test_sides_change_places_and_nothing_else(text, expected):
    assert mirrored_text(text) == expected
    assert mirrored_text(expected) == text


def test_real_questions_are_themselves_in_a_mirror_of_the_mirror():
    folder = Path(__file__).parents[2] / "data_files" / "real_warehouse"
    records = json.loads((folder / "records_with_masks.json").read_text())
    questions = [record["conversations"][0]["value"] for record in records]
    sided = [text for text in questions if "left" in text or "right" in text]
    assert sided and all(mirrored_text(text) != text for text in sided)
    assert [mirrored_text(mirrored_text(text)) for text in questions] == questions


@pytest.mark.parametrize(
    ("value", "expected"), [("left", "right"), ("right", "left"), (3, 3), (2.5, 2.5), (None, None)]
)
def test_only_sides_have_another_value(value, expected):
    assert mirrored_value(value) == expected and type(mirrored_value(value)) is type(value)


def test_a_whole_conversation_is_mirrored():
    question = Question("q", "left_right", "And <mask>?", "It is left.", "left", (), (("Left <mask>?", "No, right."),))
    found = mirrored_question(question)
    assert found.earlier == (("Right <mask>?", "No, left."),)
    assert (found.answer, found.normalized_answer, found.prompt) == ("It is right.", "right", "And <mask>?")
    assert mirrored_question(found) == question


def test_a_mirrored_picture_is_answered_as_one_whose_files_are(small_checkpoint, warehouse, tmp_path):
    """What is flipped on loading against pictures, depths and masks that were flipped on disk."""
    model = load(small_checkpoint)
    picture = read_warehouse(warehouse, "val")[0]
    files = {}
    for name in ("image", "depth"):
        pixels = np.asarray(Image.open(getattr(picture, name)))
        files[name] = tmp_path / f"{name}.png"
        Image.fromarray(np.ascontiguousarray(pixels[:, ::-1])).save(files[name])
    flipped = dataclasses.replace(
        picture,
        **files,
        questions=tuple(
            dataclasses.replace(
                question, regions=tuple(encode(np.ascontiguousarray(decode(r)[:, ::-1])) for r in question.regions)
            )
            for question in picture.questions
        ),
    )
    how = AnswerOptions(4, 12, progress=False)
    found = generate_answers(model, [dataclasses.replace(picture, mirrored=True)], how)
    assert found == generate_answers(model, [flipped], how)
    assert found != generate_answers(model, [picture], how)
