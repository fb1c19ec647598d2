"""The converter's commands on the golden checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convert import folders
from convert.inspection import compare_tensors
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint.torch import read_folder, write_folder
from smolrgpt_jax.errors import CheckpointError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "orbax"
    folders.torch_to_jax(golden.folder, path)
    return path


def test_there_and_back_is_byte_exact(golden, checkpoint, tmp_path):
    folders.jax_to_torch(checkpoint, tmp_path / "back")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (golden.folder / name).read_bytes()


def test_load_reads_both_kinds(golden, checkpoint):
    ours = load(checkpoint)
    assert ours.config == golden.model.config
    for name, value in golden.model.params.items():
        np.testing.assert_array_equal(ours.params[name], value, err_msg=name)


def test_verify_finds_a_changed_value(golden, checkpoint, tmp_path):
    assert compare_tensors(golden.folder, checkpoint).problems == []
    config, params, layout = read_folder(golden.folder)
    params = dict(params)
    params["decoder/norm/scale"][0] += 1
    write_folder(tmp_path / "changed", config, params, layout)
    problems = compare_tensors(tmp_path / "changed", checkpoint).problems
    assert len(problems) == 1
    assert problems[0].startswith("decoder/norm/scale: 1 of 96 values differ")


def test_an_existing_destination_is_refused(golden, checkpoint):
    with pytest.raises(CheckpointError, match="exists already"):
        folders.torch_to_jax(golden.folder, checkpoint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["torch-to-jax", "nowhere", "out"], "nowhere/config.json: no such file"),
        (["jax-to-torch", "nowhere", "out"], "nowhere: no such checkpoint"),
    ],
)
def test_the_command_says_one_sentence(tmp_path, arguments, message):
    command = [sys.executable, "-m", "convert", arguments[0], *(str(tmp_path / a) for a in arguments[1:])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
