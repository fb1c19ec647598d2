"""The comparison of a language model with transformers', on a tiny one in a GGUF file."""

import dataclasses
import re

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")

from benchmarks import language, parity
from smolrgpt_jax import load
from tests.convert.gguf_files import write_gguf


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    file = tmp_path_factory.mktemp("language") / "model.gguf"
    write_gguf(file, "Q4_1")
    return file


@pytest.fixture
def few(monkeypatch):
    """A few prompts and answers: the others cost minutes."""
    conversations = language.real_conversations()
    assert len(conversations) == 208 and len(language.real_questions()) == 654
    monkeypatch.setattr(language, "PROMPTS", 3)
    monkeypatch.setattr(language, "real_conversations", lambda: [*conversations[:3], conversations[-1]])


def test_the_same_numbers_are_found(file, few, tmp_path, capsys):
    parity.main(["--language", str(file), "--out", str(tmp_path / "report.md")])
    report = (tmp_path / "report.md").read_text()
    assert report.strip() == capsys.readouterr().out.strip()
    assert "Token ids of 658 real questions and conversations: 658 equal." in report
    assert "Greedy tokens: 192 of 3 x 64 identical" in report
    found = dict(re.findall(r"^\| ([\w, ]+) \| ([\d.]+) \|$", report, re.M))
    exact = float(found["float32"])
    assert exact == pytest.approx(float(found["transformers, float32"]), rel=1e-5)
    changes = [abs(float(found[name]) / exact - 1) for name in ("int8 weights", "bfloat16", "int4 weights")]
    assert 0 < changes[0] < 0.01 and changes[1] < 0.05 and changes[0] < changes[2]


def test_a_wrong_model_fails(file, few, monkeypatch, capsys):
    def changed(folder):
        model = load(folder)
        name = "decoder/blocks/norm2/scale"
        return dataclasses.replace(model, params=model.params | {name: model.params[name] * np.float32(1.001)})

    monkeypatch.setattr(language, "load", changed)
    with pytest.raises(SystemExit) as stop:
        parity.main(["--language", str(file)])
    assert stop.value.code == 1
    assert "A tolerance is missed" in capsys.readouterr().out


def test_regions_are_named_as_the_answers_name_them():
    assert language.in_words("<image>\nIs <mask> or <mask> wider?") == "Is [Region 0] or [Region 1] wider?"


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_stored_numbers_are_the_nearest_that_a_block_has(name):
    """Rows of which the last block is short and one is empty."""
    quant = language.QUANTS[name]
    rows = np.random.default_rng(0).normal(size=(3, 75)).astype(np.float32)
    size = quant.block
    rows[1, size : 2 * size] = 0
    found = language.stored(rows, quant)
    assert found.shape == rows.shape and not found[1, size : 2 * size].any()
    for begin, row in [(begin, row) for begin in range(0, 75, size) for row in range(3)]:
        had, has = rows[row, begin : begin + size], found[row, begin : begin + size]
        step = abs(had).max() / 127 if quant.bits == 8 else (max(had.max(), 0) - min(had.min(), 0)) / 15
        assert abs(had - has).max() <= step * (0.5 + 1e-4) or quant.bits == 4 and abs(had - has).max() <= step
        steps = (has - has.min()) / step if step else has
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
        assert steps.max() < 2**quant.bits


def test_matrices_of_the_decoder_are_rounded_and_nothing_else(file, tmp_path):
    with language.as_folder(str(file)) as folder:
        model = load(language.with_a_picture_tower(folder, tmp_path))
    quant = language.QUANTS["int4"]
    rounded = language.quantised(model, quant)
    changed = {name for name in model.params if not np.array_equal(model.params[name], rounded.params[name])}
    products = {f"decoder/blocks/{p}_proj/kernel" for p in ("q", "k", "v", "out", "gate", "up", "down")}
    assert changed == {*products, "decoder/token_embedding"}
    # An output's inputs are rounded together, those of all heads one after another.
    for name in ("decoder/blocks/out_proj/kernel", "decoder/blocks/q_proj/kernel"):
        kernel, found = (np.asarray(m.params[name][1]).reshape(64, 64) for m in (model, rounded))
        np.testing.assert_array_equal(language.stored(kernel.T, quant).T, found)
