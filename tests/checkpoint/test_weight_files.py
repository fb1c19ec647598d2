"""Weights as people have them: wrapped when they were saved, in subfolders, or something else under their name."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from smolrgpt_jax.checkpoint.safetensors_folder import open_tensors, read_header
from smolrgpt_jax.checkpoint.torch import read_folder, write_folder
from smolrgpt_jax.errors import CheckpointError, DataError
from smolrgpt_jax.files import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(golden, tmp_path):
    """A copy of the golden checkpoint to change."""
    return shutil.copytree(golden.folder, tmp_path / "checkpoint")


def rename(folder, change):
    tensors = load_file(folder / WEIGHTS)
    save_file({change(name): tensor for name, tensor in tensors.items()}, folder / WEIGHTS)


def compiled_blocks(name):
    return name.replace("decoder.", "decoder._orig_mod.").replace("blocks.0.", "blocks.0._checkpoint_wrapped_module.")


@pytest.mark.parametrize(
    "change, said",
    [
        ("_orig_mod.{}".format, "_orig_mod."),
        ("module._orig_mod.{}".format, "_orig_mod. and module."),
        ("language_model.{}".format, "language_model."),
        ("base_model.model.{}".format, "base_model.model."),
        (compiled_blocks, "_orig_mod. and _checkpoint_wrapped_module."),
    ],
    ids=["compiled", "parallel and compiled", "part of another", "adapted", "compiled in places"],
)
def test_the_names_of_wrapped_modules_are_read_as_the_model_s_own(golden, folder, tmp_path, caplog, change, said):
    rename(folder, change)
    config, params, layout = read_folder(folder)
    assert [record.message for record in caplog.records] == [
        f"{folder}: tensors are read without {said} in their names"
    ]
    for name, expected in read_folder(golden.folder)[1].items():
        np.testing.assert_array_equal(params[name], expected, err_msg=name)
    write_folder(tmp_path / "back", config, params, layout)
    assert load_file(tmp_path / "back" / WEIGHTS).keys() == load_file(golden.folder / WEIGHTS).keys()


def test_two_models_in_one_file_are_none_of_them(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file({f"{who}.{n}": t for who in ("teacher", "student") for n, t in tensors.items()}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="does not fit its config.json: missing "):
        read_folder(folder)


def test_names_that_would_become_the_same_stay_as_they_are(folder):
    save_file({"module.a": np.zeros(1), "_orig_mod.a": np.ones(1)}, folder / WEIGHTS)
    assert set(open_tensors(folder, {"a"})[0]) == {"module.a", "_orig_mod.a"}


def sharded(folder, names, place):
    """Moves a folder's tensors to the file `place`, which its index calls by `names` in turn."""
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / WEIGHTS).rename(folder / place)
    weight_map = {name: names[i % len(names)] for i, name in enumerate(load_file(folder / place))}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    "names, place",
    [(["./a.safetensors", "a.safetensors"], "a.safetensors"), (["sub/b.safetensors"], "sub/b.safetensors")],
)
def test_an_index_may_name_files_of_its_folder_in_any_way(golden, folder, tmp_path, names, place):
    sharded(folder, names, place)
    config, params, layout = read_folder(folder)
    write_folder(tmp_path / "back", config, params, layout)
    for name, expected in read_folder(golden.folder)[1].items():
        np.testing.assert_array_equal(params[name], expected, err_msg=name)
    assert (tmp_path / "back" / place).read_bytes() == (folder / place).read_bytes()


@pytest.mark.parametrize("name", ["../a.safetensors", "sub/../../a.safetensors", "/etc/a.safetensors", "..", ""])
def test_what_leaves_the_folder_is_refused(folder, name):
    sharded(folder, [name], "a.safetensors")
    with pytest.raises(CheckpointError, match=f"{INDEX} names a file outside its folder: '.*'$"):
        read_folder(folder)


@pytest.mark.parametrize(
    "content, said",
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 91\n",
            "is a Git LFS pointer, .*`git lfs pull`",
        ),
        (b"\n<!DOCTYPE html>\n<html>log in</html>", "is a web page, not the file"),
        (b'{"error": "Access to model x is restricted', "is a server's refusal, not the file"),
        (b"Entry not found", "is a server's refusal, not the file"),
        (b"", "is empty"),
        (b"nothing of the kind", "is not a readable safetensors file"),
    ],
    ids=["pointer", "page", "refusal", "not found", "empty", "other"],
)
def test_what_lies_in_place_of_the_weights_is_named(folder, content, said):
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{WEIGHTS} {said}"):
        read_header(folder / WEIGHTS)
    with pytest.raises(DataError, match="is not valid JSON"):
        read_json(folder / WEIGHTS)


@pytest.mark.parametrize("saved", [2, 3, 4, 5, "by torch", "by torch before 1.6"])
def test_weights_that_are_a_pickle_are_refused_in_one_sentence(folder, saved):
    """saved: the pickle's protocol, or by what."""
    if isinstance(saved, int):
        (folder / WEIGHTS).write_bytes(pickle.dumps({"a": [1.0]}, saved))
    else:
        torch = pytest.importorskip("torch")
        torch.save({"a": torch.zeros(3)}, folder / WEIGHTS, _use_new_zipfile_serialization=saved == "by torch")
    with pytest.raises(CheckpointError) as caught:
        read_folder(folder)
    said = "is a pickle, which is never loaded: save it as safetensors first"
    assert str(caught.value) == f"{folder / WEIGHTS} {said}"
