"""The packing benchmark trains on the rows it speaks of, and its table says what was measured."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from benchmarks import packing
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.training import step
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse

CONFIG = SmolRGPTConfig(
    vision=VisionConfig(width=16, mlp_width=32, heads=2, layers=1, patch_size=16, image_size=32),
    decoder=DecoderConfig(width=16, mlp_width=32, heads=2, kv_heads=1, layers=1, vocab_size=640),
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    root = tmp_path_factory.mktemp("packing") / "data"
    numbers = {"scenes": 12, "val_scenes": 0, "test_scenes": 0}
    make_warehouse(root, WarehouseConfig(**numbers, width=96, height=54), workers=1)
    pictures = read_warehouse(root, "train")
    return packing.cases(CONFIG, pictures, ChatTokenizer.load(packing.TOKENIZER))


def test_a_step_holds_the_questions_that_its_time_is_divided_by(cases):
    for case in cases:
        ids = case.batch["question_ids"]
        assert case.questions == sum(np.unique(row[row > 0]).size for row in ids)
    unpacked, *packed = cases
    assert unpacked.questions == packing.UNPACKED_QUESTIONS == len(unpacked.batch["tokens"])
    assert (unpacked.batch["picture_ids"].max(axis=1) == 1).all()
    assert (unpacked.batch["picture_ids"][:, -1] > 0).any(), "padded to more than the longest"
    assert [case.batch["tokens"].shape[1] for case in packed] == [tokens for tokens, _ in packing.ROWS]


def test_the_timed_step_trains(cases, monkeypatch):
    losses = []
    make = step.make_train_step

    def watched(*arguments, **named):
        run = make(*arguments, **named)

        def watched_step(*state):
            *new, metrics = run(*state)
            jax.debug.callback(lambda loss: losses.append(float(loss)), metrics["loss"])
            return *new, metrics

        return watched_step

    monkeypatch.setattr(packing, "make_train_step", watched)
    packing.measure(CONFIG, cases[:2], rounds=2)
    jax.effects_barrier()
    assert [case.seconds > 0 for case in cases] == [True, True, False, False, False]
    assert len(losses) == 6 and losses[4] < losses[2] < losses[0]


def test_the_table_compares_with_the_first(cases):
    for case, seconds in zip(cases, (8.0, 4.0, 4.0, 4.0, 4.0)):
        case.seconds = seconds
    text = packing.table(cases)
    assert "| one question per row |" in text and "| 1 | 1.00 x |" in text
    expected = cases[1].questions * 8.0 / cases[0].questions / 4.0
    assert f"{expected:.2f} x" in text.splitlines()[3]
