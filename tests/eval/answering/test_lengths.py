"""How long an answer may be where the command line does not say."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from convert.folders import jax_to_torch, torch_to_jax
from eval import predict
from eval.answering.one_picture import _prompt, answer, stream_answer
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.data.chat import FORMAT_FILE


def test_a_model_that_is_not_of_our_training_answers_as_long_as_the_release(small_checkpoint):
    model = load(small_checkpoint)
    assert model.answer_tokens == 120


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
    assert model.answer_tokens == 9
    picture = np.zeros((8, 8, 3), np.uint8)
    # One text per token, and perhaps one more for a character that the last token leaves unfinished.
    assert 9 <= len(list(stream_answer(model, picture, "What is there?"))) <= 10


def test_the_length_survives_conversion_both_ways(trained, tmp_path):
    jax_to_torch(trained, tmp_path / "torch")
    assert json.loads((tmp_path / "torch" / FORMAT_FILE).read_text()) == {"answer_tokens": 9}
    assert load(tmp_path / "torch").answer_tokens == 9
    torch_to_jax(tmp_path / "torch", tmp_path / "jax")
    assert load(tmp_path / "jax").answer_tokens == 9
    jax_to_torch(tmp_path / "jax", tmp_path / "again")
    assert (tmp_path / "again" / FORMAT_FILE).read_bytes() == (tmp_path / "torch" / FORMAT_FILE).read_bytes()


def test_the_published_length_needs_no_file(small_checkpoint, tmp_path):
    meta = checkpoints.read_meta(small_checkpoint)
    files = meta.tokenizer | {FORMAT_FILE: '{"answer_tokens": 9}'}
    run = {"step": 1, "stage": "sft", "run": {"validation_answer_tokens": 120}}
    params = load(small_checkpoint).params
    checkpoints.save(tmp_path / "trained", params, checkpoints.Meta(meta.config, files, run=run))
    assert load(tmp_path / "trained").answer_tokens == 120, "the last training says how long answers are"
    jax_to_torch(tmp_path / "trained", tmp_path / "torch")
    assert not (tmp_path / "torch" / FORMAT_FILE).exists()


def test_an_answer_that_does_not_end_is_cut_off(trained):
    model, picture = load(trained), np.zeros((8, 8, 3), np.uint8)
    assert answer(model, picture, "What is there?").cut_off
    first = int(model.generate(**_prompt(model, picture, "What is there?", max_new_tokens=1)[0])[0, 0])
    model.tokenizer.eos_id = first
    assert not answer(model, picture, "What is there?").cut_off


def test_commands_go_by_the_checkpoint_unless_told(trained, monkeypatch, tmp_path, capsys):
    asked = []

    def answer(model, *rest, max_new_tokens, **more):
        asked.append(max_new_tokens)
        return SimpleNamespace(text="left", category=None, normalized_answer=None, cut_off=True, notice=None)

    monkeypatch.setattr(predict, "answer", answer)
    picture = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    command = ["--checkpoint", str(trained), "--image", str(picture), "--question", "What is there?"]
    predict.main(command)
    predict.main([*command, "--max_new_tokens", "7"])
    assert asked == [None, 7]
    assert capsys.readouterr().out.count("cut off at the longest length") == 2
