"""Comparison of a PyTorch folder with a checkpoint: tensors, fingerprints, outputs."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from convert import __main__ as command
from convert import folders
from convert.inspection import compare_outputs, compare_tensors
from smolrgpt_jax.checkpoint.torch import read_folder, write_folder


@pytest.fixture(scope="module")
def checkpoint(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "jax"
    folders.torch_to_jax(golden.folder, path)
    return path


@pytest.fixture
def changed(golden, tmp_path):
    """The golden folder with one number of one decoder layer changed by 0.5."""
    config, params, layout = read_folder(golden.folder)
    params = dict(params)
    params["decoder/blocks/q_proj/kernel"][1, 2, 3, 4] += 0.5
    write_folder(tmp_path / "changed", config, params, layout)
    return tmp_path / "changed"


def verify(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["convert", "verify", *map(str, arguments)])
    command.main()


def test_equal_checkpoints_have_equal_fingerprints(golden, checkpoint):
    found = compare_tensors(golden.folder, checkpoint)
    assert found.problems == []
    for part in found.parts.values():
        assert part.hashes[0].hexdigest() == part.hashes[1].hexdigest()
        assert part.difference == 0
    assert sum(p.tensors for p in found.parts.values()) == 80
    assert sum(p.parameters for p in found.parts.values()) == 677_952


def test_a_fingerprint_is_the_hash_of_the_numbers(golden, checkpoint):
    kernel = golden.model.params["rgb_connector/proj/kernel"]
    expected = hashlib.sha256(np.asarray(kernel, "<f4").tobytes()).hexdigest()
    assert compare_tensors(golden.folder, checkpoint).parts["RGB connector"].hashes[1].hexdigest() == expected


def test_a_changed_number_shows_in_its_part_only(changed, checkpoint):
    found = compare_tensors(changed, checkpoint)
    assert found.problems == ["decoder/blocks/q_proj/kernel: 1 of 27648 values differ, by at most 0.5"]
    assert found.parts["decoder blocks"].difference == pytest.approx(0.5)
    different = {n for n, p in found.parts.items() if p.hashes[0].digest() != p.hashes[1].digest()}
    assert different == {"decoder blocks"}


def test_nan_against_a_number_is_a_difference_and_against_nan_is_none(golden, tmp_path):
    config, params, layout = read_folder(golden.folder)
    params = dict(params)
    params["decoder/norm/scale"][0] = np.nan
    write_folder(tmp_path / "nan", config, params, layout)
    folders.torch_to_jax(tmp_path / "nan", tmp_path / "jax", allow_nan=True)
    assert compare_tensors(tmp_path / "nan", tmp_path / "jax").problems == []
    assert compare_tensors(golden.folder, tmp_path / "jax").problems == [
        "decoder/norm/scale: 1 of 96 values differ, by at most inf"
    ]


def test_the_command_ends_with_one_line(golden, checkpoint, monkeypatch, capsys):
    verify(monkeypatch, golden.folder, checkpoint)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "every tensor is equal; outputs were not compared (--outputs does)"
    assert [line.split()[:2] for line in lines[2:4]] == [["vision", "encoder"], ["RGB", "connector"]]


def test_the_command_fails_on_a_difference(changed, checkpoint, monkeypatch):
    with pytest.raises(SystemExit, match="error: the checkpoints differ: decoder/blocks/q_proj/kernel: 1 of"):
        verify(monkeypatch, changed, checkpoint, "--outputs")


def test_other_models_are_told_apart(golden, checkpoint, tmp_path):
    folder = Path(shutil.copytree(golden.folder, tmp_path / "other"))
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"lm_rms_eps": 1e-05', '"lm_rms_eps": 1e-06'))
    assert compare_tensors(folder, checkpoint).problems == ["the configurations describe different models"]


def test_outputs_agree(golden, checkpoint, monkeypatch, capsys):
    pytest.importorskip("torch")
    verify(monkeypatch, golden.folder, checkpoint, "--outputs")
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "every tensor is equal; the outputs agree"
    for name in ("logits", "region_depth", "vision_features_rgb"):
        assert f"\n{name} " in out


def test_outputs_of_other_weights_differ(changed, checkpoint):
    pytest.importorskip("torch")
    _, problems = compare_outputs(changed, checkpoint)
    assert any(p.startswith("output logits differs by") for p in problems)
    assert not any("vision_features" in p for p in problems)


def test_outputs_that_cannot_be_compared_are_an_error(golden, checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="^error: .* the outputs cannot be compared: PyTorch is not installed$"):
        verify(monkeypatch, golden.folder, checkpoint, "--outputs")
