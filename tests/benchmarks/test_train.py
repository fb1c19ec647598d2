"""The training benchmark's two sides take the same steps, and its table says what was measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import train
from benchmarks.as_released import micro_batches
from benchmarks.shared import TOKENIZER, make_questions
from convert.torch_model import left_padded, random_torch
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.data.rows import PackedPicture
from smolrgpt_jax.errors import RunError

CONFIG = SmolRGPTConfig(
    vision=VisionConfig(width=16, mlp_width=32, heads=2, layers=1, patch_size=16, image_size=64),
    decoder=DecoderConfig(width=16, mlp_width=32, heads=2, kv_heads=1, layers=1, vocab_size=643),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    pictures = make_questions(folder / "data", 12, 96, 54, mix="published")
    random_torch(CONFIG, 0).save(folder / "checkpoint")
    chosen = train.usual_rows(CONFIG, pictures, 512, 2)
    return train.Work(folder / "checkpoint", chosen, 2, 3, 512, 512, 2, "none")


def test_both_sides_take_the_same_steps(work):
    theirs, ours = (np.array(side(work)) for side in (train.train_with_torch, train.train_packed))
    np.testing.assert_allclose(ours[:, 1], theirs[:, 1], rtol=1e-5)
    assert np.all(np.diff(ours[:, 1]) < 0), "nothing was learnt"
    assert np.all(ours[:, 0] > 0) and np.all(theirs[:, 0] > 0)


def test_pytorch_has_every_question_in_a_row_of_its_own_and_all_answers(work):
    tokenizer = ChatTokenizer.load(TOKENIZER)
    model = random_torch(CONFIG, 0)
    asked = [(picture, question) for picture in work.pictures for question in picture.questions]
    batches = list(micro_batches(model, tokenizer, asked, work.micro_batch, work.max_length))
    assert sum(len(arguments[0]) for arguments, _ in batches) == work.questions
    assert {arguments[0].shape[1] for arguments, _ in batches} == {work.max_length}
    answers = [tokenizer.question(q.prompt, q.answer) for picture in work.pictures for q in picture.questions]
    expected = [len(ids) - start for ids, start in answers]
    assert [int(n) for _, targets in batches for n in (targets >= 0).sum(1)] == expected


def test_the_table_has_the_fastest_step_but_the_first(work):
    runs = {"PyTorch": [[(1.0, 5.0), (40.0, 4.0)], [(1.0, 5.0), (20.0, 4.0)]], "packed": [[(0.1, 5.0), (4.0, 4.0)]]}
    assert f"| packed | {work.questions} | {4 / work.questions:.3g} | 5.00 x | 5.00000, 4.00000 |" in train.table(
        work, runs
    )


def test_steps_that_differ_are_an_error(monkeypatch, work, capsys):
    monkeypatch.setattr(train, "SIZES", {"small": CONFIG})
    runs = {"PyTorch": [[(1.0, 5.0), (1.0, 4.0)]], "packed": [[(1.0, 5.0), (1.0, 4.1)]]}
    monkeypatch.setattr(train, "in_turns", lambda *given: runs)
    monkeypatch.setattr(train, "product_speed", lambda: 100.0)
    with pytest.raises(SystemExit) as stopped:
        train.main(["--scenes", "12"])
    assert stopped.value.code == 1
    assert "At 100 GFLOP/s, a float32 product's, the " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "0"], "argument --rows: '0' is not a positive whole number"),
        (["--micro_batch", "0"], "argument --micro_batch: '0' is not a positive whole number"),
    ],
)
def test_sizes_that_cannot_be_are_one_sentence(monkeypatch, capsys, arguments, said):
    monkeypatch.setattr(train, "SIZES", {"small": CONFIG})
    monkeypatch.setattr(train, "in_turns", lambda *given: pytest.fail("it went on"))
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    assert said in f"{stopped.value} {capsys.readouterr().err}"


def test_more_rows_than_there_are_is_told(monkeypatch):
    monkeypatch.setattr(train, "PackedRows", lambda *given: range(3))
    with pytest.raises(RunError, match="--rows 4 are more than the 3 that --scenes 2 fill"):
        train.usual_rows(CONFIG, [None, None], 512, 4)


def test_a_question_longer_than_the_padded_rows_is_told():
    with pytest.raises(ValueError, match="a row of 6 tokens does not fit the 4 asked for"):
        left_padded([np.arange(6)], pad=9, length=4)


@pytest.mark.parametrize(("count", "expected"), [(1, [2]), (2, [2, 3])])
def test_the_rows_hold_as_many_questions_as_is_usual(monkeypatch, count, expected):
    """5.5 questions in a row; row number n is about picture n alone."""
    asked = (1, 3, 5, 7, 8, 9)

    class Packed(list):
        plan = SimpleNamespace(rows=[(PackedPicture(n, tuple(range(size))),) for n, size in enumerate(asked)])

    monkeypatch.setattr(train, "PackedRows", lambda *given: Packed(asked))
    pictures = [Picture(str(n), Path("picture.png"), None, tuple(range(size))) for n, size in enumerate(asked)]
    chosen = train.usual_rows(CONFIG, pictures, 512, count)
    assert [int(picture.id) for picture in chosen] == expected
    assert [len(picture.questions) for picture in chosen] == [asked[n] for n in expected]
