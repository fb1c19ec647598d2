"""What `inspect` says about each kind of checkpoint, from headers alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from jax import ShapeDtypeStruct

from convert import folders
from convert.inspection import describe
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.models.smolrgpt import abstract_params


@pytest.fixture(scope="module")
def checkpoint(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "jax"
    folders.torch_to_jax(golden.folder, path)
    return path


def row(text, start):
    return next(line for line in text.splitlines() if line.startswith(start)).split()


def test_a_pytorch_folder(golden):
    text = describe(golden.folder)
    for line in (
        "format: PyTorch folder of the release (safetensors)",
        "layout: one file, 2,719,984 bytes",
        "tensors: 81",
        "tied head: stored under decoder.head.weight",
        "tokenizer: not there",
        "decoder: 3 blocks of width 96, 6 query and 2 key-value heads, MLP 192, 515 tokens",
    ):
        assert line in text.splitlines()
    assert row(text, "decoder embedding")[2:] == ["49,440", "61,440", "float32"]
    assert row(text, "total")[1:] == ["677,952", "689,952", "float32"]


def test_a_sharded_folder_of_another_dtype(checkpoint, tmp_path):
    folders.jax_to_torch(checkpoint, tmp_path / "small", dtype="BF16", max_shard_bytes=500_000)
    text = describe(tmp_path / "small")
    assert "layout: 3 files and an index" in text
    assert row(text, "total")[-1] == "bfloat16"


def test_a_converted_checkpoint_without_its_weights(checkpoint, tmp_path):
    """With every number gone, what the headers say is still there."""
    copy = Path(shutil.copytree(checkpoint, tmp_path / "headers"))
    for file in copy.glob("params/**/*"):
        if file.name[0].isdigit():
            file.unlink()
    assert describe(copy) == describe(checkpoint)
    assert "imported from PyTorch: 81 tensors in 1 file" in describe(copy)


def test_a_work_directory_shows_its_steps(golden, tmp_path):
    for step, loss in ((2, 1.5), (10, 1.25)):
        run = {"stage": "sft", "step": step, "steps": 10, "metrics": {"loss": loss}}
        folder = tmp_path / "run" / "checkpoints" / str(step)
        checkpoints.save(folder, golden.model.params, checkpoints.Meta(golden.model.config, run=run))
    text = describe(tmp_path / "run")
    assert "stage: sft, step 10 of 10" in text.splitlines()
    steps = [line.split() for line in text.splitlines()[-2:]]
    assert [(s[0], s[-2], s[-1]) for s in steps] == [("2", "1.5000", "-"), ("10", "1.2500", "-")]


def test_the_published_model_has_the_release_s_count():
    from convert.inspection import _parameters

    config = PRESETS["smolrgpt"]
    infos = {n: ShapeDtypeStruct(s.shape, np.dtype(np.float32)) for n, s in abstract_params(config).items()}
    text = _parameters(config, infos)
    assert row(text, "total")[1:3] == ["475,697,280", "475,817,280"]
    assert row(text, "vision encoder")[2] == "85,843,200"
    decoder = [int(row(text, f"decoder {p}")[2].replace(",", "")) for p in ("embedding", "blocks", "norm")]
    assert sum(decoder) == 361_824_000


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_what_is_no_checkpoint(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no such checkpoint|holds no checkpoint"):
        describe(tmp_path / name)
