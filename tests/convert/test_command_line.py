"""The commands as people type them: arguments, what is printed, and sharded folders there and back."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from convert import __main__ as command

ROOT = Path(__file__).parents[2]
INDEX = "model.safetensors.index.json"


def test_there_and_back_in_shards(golden, tmp_path, run):
    lines = run("torch-to-jax", golden.folder, tmp_path / "jax")
    assert lines == [
        f"converting {golden.folder} to {tmp_path / 'jax'}",
        "81 tensors, 689,952 parameters (vocabulary padding included)",
    ]
    lines = run("jax-to-torch", tmp_path / "jax", tmp_path / "shards", "--max_shard_size", "1MB")
    assert lines[-1] == "81 tensors in 3 files"
    folder = tmp_path / "shards"
    files = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(p.name for p in folder.iterdir()) == sorted(["config.json", *files, INDEX])
    index = json.loads((folder / INDEX).read_text())
    assert index["metadata"] == {"total_size": 4 * 677_952 + 8 * 4}
    held, size = {}, 0
    for name in files:
        with safe_open(folder / name, "numpy") as file:
            held |= dict.fromkeys(file.keys(), name)
            assert file.metadata() == {"decoder.token_embedding.weight": "decoder.head.weight"}
            size += sum(file.get_tensor(n).nbytes for n in file.keys())
        assert (folder / name).stat().st_size < 1_010_000  # 1 MB of tensors and a header
    assert index["weight_map"] == dict(sorted(held.items())) and size == index["metadata"]["total_size"]
    # Imported and exported again, the shards stay as they are; one large shard is the release's single file.
    run("torch-to-jax", folder, tmp_path / "jax2")
    run("jax-to-torch", tmp_path / "jax2", tmp_path / "shards2")
    for file in folder.iterdir():
        assert (tmp_path / "shards2" / file.name).read_bytes() == file.read_bytes()
    run("jax-to-torch", tmp_path / "jax2", tmp_path / "single", "--max_shard_size", "1GB")
    assert (tmp_path / "single/model.safetensors").read_bytes() == (golden.folder / "model.safetensors").read_bytes()


def test_verify_and_inspect(golden, tmp_path, run):
    run("torch-to-jax", golden.folder, tmp_path / "jax")
    assert run("verify", golden.folder, tmp_path / "jax")[-1].startswith("every tensor is equal")
    assert run("inspect", tmp_path / "jax")[0] == "format: checkpoint of ours (Orbax), no training state"


def test_a_tokenizer_travels_along(golden, tmp_path, run):
    """With the golden vocabulary it does not fit, which is one sentence."""
    tokenizer = ROOT / "tests" / "data_files" / "text" / "tokenizer"
    with pytest.raises(SystemExit, match=f"tokenizer {tokenizer} has 785 tokens, .* 515"):
        run("torch-to-jax", golden.folder, tmp_path / "jax", "--tokenizer", tokenizer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("2GiB", 2**31), ("1.5gb", 1_500_000_000), ("7", 7)]
)
def test_sizes(text, size):
    assert command.size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "0GB", "-1MB", "5 parsecs"])
def test_what_is_no_size(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no size such as 500MB"):
        command.size_in_bytes(text)


@pytest.mark.parametrize(("text", "name"), [("bfloat16", "BF16"), ("float32", "F32"), ("F16", "F16"), ("bf16", "BF16")])
def test_dtype_names(text, name):
    assert command.dtype_name(text) == name


def test_what_is_no_dtype(golden, tmp_path, run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("jax-to-torch", tmp_path, tmp_path / "out", "--dtype", "int8")
    assert stopped.value.code == 2
    assert "'int8' is none of float32, float16, bfloat16" in capsys.readouterr().err


def test_help_names_every_command():
    done = subprocess.run([sys.executable, "-m", "convert", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for name in ("torch-to-jax", "jax-to-torch", "backbones", "verify", "inspect"):
        assert f"\n    {name} " in done.stdout


def test_nothing_but_the_result_is_printed(golden, tmp_path):
    """Orbax's advice to its developers does not reach ours' users."""
    for arguments in (["torch-to-jax", golden.folder, "jax"], ["jax-to-torch", "jax", "back"]):
        paths = [str(tmp_path / a) for a in arguments[1:]]
        done = subprocess.run(
            [sys.executable, "-m", "convert", arguments[0], *paths], cwd=ROOT, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert np.array_equal(*(np.fromfile(p / "model.safetensors", np.uint8) for p in (golden.folder, tmp_path / "back")))
