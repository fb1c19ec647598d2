"""How long an answer may be where the command line does not say."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from eval import answer_length, predict
from eval.prediction import stream_answer
from smolrgpt_jax import load
from smolrgpt_jax.training import checkpoints


def test_a_model_that_is_not_of_our_training_answers_as_long_as_the_release(small_checkpoint):
    model = load(small_checkpoint)
    assert answer_length(model) == 120 and answer_length(model, 7) == 7
    assert answer_length(SimpleNamespace(source=None)) == 120


@pytest.fixture
def trained(small_checkpoint, tmp_path):
    """The same checkpoint as a training leaves it, whose validation answers took up to 9 tokens."""
    model = load(small_checkpoint)
    tokenizer = checkpoints.read_meta(model.source).tokenizer
    run = {"step": 1, "stage": "sft", "run": {"validation_answer_tokens": 9}}
    checkpoints.save(tmp_path / "trained", model.params, checkpoints.Meta(model.config, tokenizer, run=run))
    return tmp_path / "trained"


def test_a_checkpoint_of_a_training_answers_as_long_as_its_validation_did(trained):
    model = load(trained)
    assert answer_length(model) == 9 and answer_length(model, 7) == 7
    picture = np.zeros((8, 8, 3), np.uint8)
    # One text per token, and perhaps one more for a character that the last token leaves unfinished.
    assert 9 <= len(list(stream_answer(model, picture, "What is there?"))) <= 10


def test_commands_go_by_the_checkpoint_unless_told(trained, monkeypatch, tmp_path):
    asked = []

    def answer(model, *rest, max_new_tokens, **more):
        asked.append(answer_length(model, max_new_tokens))
        return SimpleNamespace(text="left", category=None, normalized_answer=None)

    monkeypatch.setattr(predict, "answer", answer)
    picture = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    command = ["--checkpoint", str(trained), "--image", str(picture), "--question", "What is there?"]
    predict.main(command)
    predict.main([*command, "--max_new_tokens", "7"])
    assert asked == [9, 7]
