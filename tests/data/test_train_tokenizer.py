from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from launch import train_tokenizer as command
from launch.train_tokenizer import SMALLEST, pieces, train_tokenizer
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.errors import DataError

GOLDEN = Path(__file__).parents[1] / "data_files" / "text" / "tokenizer" / "tokenizer.json"


@pytest.fixture
def texts(filled):
    return list(pieces([filled.root / "train.json"]))


def test_has_smollm2s_structure_and_the_size_asked_for(texts, tmp_path):
    tokenizer = train_tokenizer(texts, SMALLEST + 20)
    assert tokenizer.vocab_size == SMALLEST + 20
    assert [tokenizer.image_id, tokenizer.mask_rgb_id, tokenizer.mask_depth_id] == [
        SMALLEST + 17,
        SMALLEST + 18,
        SMALLEST + 19,
    ]
    tokenizer.save(tmp_path)
    ours, golden = json.loads((tmp_path / "tokenizer.json").read_text()), json.loads(GOLDEN.read_text())
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        assert ours[part] == golden[part]
    assert ours["added_tokens"][:17] == golden["added_tokens"]
    assert {key: value for key, value in ours["model"].items() if key not in ("vocab", "merges")} == {
        key: value for key, value in golden["model"].items() if key not in ("vocab", "merges")
    }
    bytes_of = {token: id for token, id in golden["model"]["vocab"].items() if id < SMALLEST - 3}
    assert bytes_of.items() <= ours["model"]["vocab"].items()


def test_reads_back_any_text(texts):
    tokenizer = train_tokenizer(texts, SMALLEST + 20)
    text = "Ünïcode, 12.5 m [Region 3]?"
    ids, before = tokenizer.question("x", text)
    assert tokenizer.decode(ids[before:]) == text
    digits = tokenizer.question("x", "2026")[0]
    assert digits.size == tokenizer.question("x", "")[0].size + 4


def test_pieces_hold_no_marks(texts):
    assert "user\n" in texts and "How far apart are" in [piece.strip() for piece in texts]
    assert not any("<" in piece for piece in texts)


def test_sizes_that_cannot_be_reached_are_an_error(texts):
    with pytest.raises(ValueError, match="too small"):
        train_tokenizer(texts, SMALLEST - 1)
    with pytest.raises(ValueError, match="only"):
        train_tokenizer(texts, 5000)


def test_another_file_is_an_error(tmp_path):
    (tmp_path / "train.json").write_text('[{"id": 1}]')
    with pytest.raises(DataError, match="train.json"):
        list(pieces([tmp_path / "train.json"]))


def test_command_writes_the_same_tokenizer_every_time(filled, tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "launch.train_tokenizer", *map(str, arguments)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )

    for name in ("a", "b"):
        done = run("--data", filled.root, "--vocab_size", SMALLEST + 20, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
    conversation = ("How far apart are <mask>?", "It is 1.5 meters.")
    np.testing.assert_array_equal(
        *(ChatTokenizer.load(tmp_path / name).question(*conversation)[0] for name in ("a", "b"))
    )
    failed = run("--data", tmp_path / "none", "--out", tmp_path / "c")
    assert failed.returncode != 0 and failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1 and not (tmp_path / "c").exists()


def test_a_tokenizer_that_is_there_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "train.json").write_text("[]")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["train_tokenizer", f"--data={tmp_path}", f"--out={tmp_path / 'out'}"])
    with pytest.raises(
        SystemExit, match="^error: .*out exists already and is not an empty folder; nothing was written$"
    ):
        command.main()
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
