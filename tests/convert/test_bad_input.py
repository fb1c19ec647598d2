"""Every kind of bad input gives one sentence, a failing exit code, and nothing at or beside the destination."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert import __main__ as command
from convert import folders
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.checkpoint.mapping import StreamedParams
from smolrgpt_jax.checkpoint.safetensors_folder import read_header
from smolrgpt_jax.errors import CheckpointError

ROOT = Path(__file__).parents[2]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def torch_folder(golden, tmp_path):
    """A copy of the golden checkpoint to damage."""
    return Path(shutil.copytree(golden.folder, tmp_path / "in" / "torch"))


@pytest.fixture
def sharded(torch_folder, checkpoint):
    """The same in three files with an index."""
    shutil.rmtree(torch_folder)
    folders.jax_to_torch(checkpoint, torch_folder, max_shard_bytes=1_000_000)
    return torch_folder


@pytest.fixture(scope="module")
def checkpoint(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "jax"
    folders.torch_to_jax(golden.folder, path)
    return path


@pytest.fixture
def jax_folder(checkpoint, tmp_path):
    """A copy of the converted checkpoint to damage."""
    return Path(shutil.copytree(checkpoint, tmp_path / "in" / "jax"))


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Runs a conversion that must fail; returns its sentence."""

    def run(name, source, *options):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        monkeypatch.setattr(sys, "argv", ["convert", name, str(source), str(out / "new" / "model"), *options])
        with pytest.raises(SystemExit) as stopped:
            command.main()
        message = stopped.value.code
        assert isinstance(message, str) and message.startswith("error: ")
        assert "\n" not in message
        assert list(out.iterdir()) == []
        return message

    return run


def rewrite(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_truncated_file(torch_folder, refused):
    path = torch_folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])
    assert f"{path} is not a readable safetensors file" in refused("torch-to-jax", torch_folder)


def test_a_file_cut_short_while_it_is_read(torch_folder, tmp_path):
    tensors, _ = read_header(torch_folder / WEIGHTS)
    os.truncate(torch_folder / WEIGHTS, 100_000)
    last = list(tensors.values())[-1]
    with pytest.raises(CheckpointError, match=f"ends within {last.name}"):
        last.read()


def test_missing_unexpected_and_misshapen_tensors_are_all_listed(torch_folder, refused):
    def change(tensors):
        del tensors["MP.proj.weight"]
        tensors["surprise"] = np.zeros(3, np.float32)
        tensors["decoder.norm.weight"] = np.zeros(95, np.float32)

    rewrite(torch_folder, change)
    message = refused("torch-to-jax", torch_folder)
    for part in ("missing MP.proj.weight", "unexpected surprise [3]", "decoder.norm.weight has shape [95]"):
        assert part in message


def test_nan_weights_are_all_listed(torch_folder, refused, tmp_path):
    def change(tensors):
        tensors["decoder.norm.weight"][3] = np.nan
        tensors["MP.proj.weight"][0, 0] = np.inf

    rewrite(torch_folder, change)
    message = refused("torch-to-jax", torch_folder)
    assert "decoder.norm.weight holds NaN" in message and "MP.proj.weight holds NaN" in message
    assert message.count("holds NaN") == 2


def test_nan_weights_pass_both_ways_if_allowed(torch_folder, refused, tmp_path):
    rewrite(torch_folder, lambda tensors: tensors["decoder.norm.weight"].__setitem__(3, np.nan))
    folders.torch_to_jax(torch_folder, tmp_path / "jax", allow_nan=True)
    assert "decoder.norm.weight holds NaN" in refused("jax-to-torch", tmp_path / "jax")
    folders.jax_to_torch(tmp_path / "jax", tmp_path / "back", allow_nan=True)
    assert (tmp_path / "back" / WEIGHTS).read_bytes() == (torch_folder / WEIGHTS).read_bytes()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_pickle(torch_folder, refused, name):
    (torch_folder / WEIGHTS).rename(torch_folder / name)
    assert f"{name} is a pickle, which is never loaded" in refused("torch-to-jax", torch_folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json: is not valid JSON"),
        ("[]", "config.json: holds a list, expected a JSON object"),
        ('{"vit_img_size": "large"}', "config.json: vision.image_size is 'large', expected a whole number"),
        ('{"lm_n_heads": 0}', "config.json: decoder.heads is 0, expected a number above 0"),
        ('{"lm_n_blocks": 1e9}', "config.json: decoder.layers is 1000000000.0, expected a whole number"),
        (
            '{"lm_n_blocks": 1000000000}',
            "config.json: decoder.layers is 1000000000, expected a number above 0, at most 1000",
        ),
        ('{"lm_rms_eps": NaN}', "config.json: decoder.rms_norm_eps is nan, expected a number above 0"),
        ('{"lm_tie_weights": 1}', "config.json: decoder.tied_head is 1, expected true or false"),
        ('{"vlm_extra_tokens": 1}', "config.json holds a value of the wrong kind"),
        ("{}", "does not fit its config.json"),
    ],
)
def test_a_damaged_config(torch_folder, refused, text, message):
    (torch_folder / "config.json").write_text(text)
    assert message in refused("torch-to-jax", torch_folder)


def test_a_config_that_contradicts_the_tensors(torch_folder, refused):
    values = json.loads((torch_folder / "config.json").read_text())
    (torch_folder / "config.json").write_text(json.dumps({**values, "lm_inter_dim": 200}))
    message = refused("torch-to-jax", torch_folder)
    assert "mlp.gate_proj.weight has shape [192, 96], config.json asks for [200, 96]" in message


def test_an_index_that_is_no_json(sharded, refused):
    (sharded / INDEX).write_text("{")
    assert f"{INDEX}: is not valid JSON" in refused("torch-to-jax", sharded)


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}], ids=str)
def test_an_index_without_weight_map(sharded, refused, content):
    (sharded / INDEX).write_text(json.dumps(content))
    assert "has no weight_map" in refused("torch-to-jax", sharded)


def change_map(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def test_an_index_that_names_the_wrong_file(sharded, refused):
    files = sorted(p.name for p in sharded.glob("*.safetensors"))

    def change(weight_map):
        weight_map["MP.proj.weight"] = files[-1]
        del weight_map["decoder.head.weight"]

    change_map(sharded, change)
    message = refused("torch-to-jax", sharded)
    assert f"MP.proj.weight is listed in {files[-1]} but lies in {files[0]}" in message
    assert "decoder.head.weight is listed in no file but lies in" in message


def test_an_index_that_names_a_file_outside_its_folder(sharded, refused):
    change_map(sharded, lambda weight_map: weight_map.update({"MP.proj.weight": "../model.safetensors"}))
    assert "names a file outside its folder" in refused("torch-to-jax", sharded)


def test_a_missing_shard(sharded, refused):
    first = sorted(sharded.glob("*.safetensors"))[0]
    first.unlink()
    assert f"{first}: no such file, though {INDEX} names it" in refused("torch-to-jax", sharded)


@pytest.mark.parametrize("name", ["torch-to-jax", "jax-to-torch"])
def test_a_file_instead_of_a_folder(torch_folder, refused, name):
    assert f"{torch_folder / WEIGHTS} is a file" in refused(name, torch_folder / WEIGHTS)


@pytest.mark.parametrize("name", ["torch-to-jax", "jax-to-torch"])
def test_an_existing_destination_stays_as_it_is(golden, checkpoint, tmp_path, monkeypatch, name):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("precious")
    source = golden.folder if name == "torch-to-jax" else checkpoint
    monkeypatch.setattr(sys, "argv", ["convert", name, str(source), str(tmp_path / "there")])
    with pytest.raises(SystemExit, match="exists already; nothing was written"):
        command.main()
    assert [p.name for p in tmp_path.rglob("*")] == ["there", "mine"]


def chunk(folder):
    return folder / "params" / "decoder" / "blocks" / "q_proj" / "kernel" / "1.0.0.0"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: chunk(folder).unlink(),
        lambda folder: chunk(folder).write_bytes(b"short"),
        lambda folder: (folder / "params" / "_METADATA").unlink(),
        lambda folder: shutil.rmtree(folder / "params"),
        lambda folder: (folder / "meta" / "metadata").write_text("{"),
        lambda folder: (folder / "meta" / "metadata").write_text("{}"),
    ],
    ids=["lost chunk", "short chunk", "no metadata", "no parameters", "broken meta", "empty meta"],
)
def test_a_damaged_checkpoint(jax_folder, refused, damage):
    damage(jax_folder)
    assert str(jax_folder) in refused("jax-to-torch", jax_folder)
    with pytest.raises(CheckpointError, match=str(jax_folder)):
        from smolrgpt_jax import load

        load(jax_folder)


def test_a_checkpoint_with_other_parameters_than_its_configuration(golden, tmp_path, refused):
    params = dict(golden.model.params)
    del params["decoder/norm/scale"]
    params["extra"] = np.zeros(3, np.float32)
    params["rgb_connector/proj/kernel"] = np.zeros((2, 2), np.float32)
    checkpoints.save(tmp_path / "odd", params, checkpoints.Meta(golden.model.config))
    message = refused("jax-to-torch", tmp_path / "odd")
    for part in ("missing decoder/norm/scale", "unexpected extra", "rgb_connector/proj/kernel has shape [2, 2]"):
        assert part in message


@pytest.mark.parametrize("name", ["torch-to-jax", "jax-to-torch"])
def test_a_full_disk(golden, checkpoint, tmp_path, name):
    """A limit on the size of files fails as a full disk does: in the middle of writing."""
    source = golden.folder if name == "torch-to-jax" else checkpoint
    arguments = [sys.executable, "-m", "convert", name, str(source), str(tmp_path / "new" / "model")]
    limited = ["sh", "-c", 'ulimit -f 150; exec "$@"', "sh", *arguments]  # blocks of 512 or 1024 bytes
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.splitlines() == [
        f"error: {tmp_path / 'new' / 'model'} could not be written, nothing was left behind: File too large"
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["torch-to-jax", "jax-to-torch"])
def test_a_terminated_command_leaves_nothing(golden, checkpoint, monkeypatch, tmp_path, capsys, name):
    read = StreamedParams.piece

    def interrupted(self, piece):
        if piece[0].startswith("decoder/norm"):
            signal.raise_signal(signal.SIGTERM)
        return read(self, piece)

    monkeypatch.setattr(StreamedParams, "piece", interrupted)
    source = golden.folder if name == "torch-to-jax" else checkpoint
    monkeypatch.setattr(sys, "argv", ["convert", name, str(source), str(tmp_path / "new" / "model")])
    with pytest.raises(SystemExit, match="143"):
        command.main()
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted; nothing was written"
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_command_left_is_removed_by_the_next(golden, tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    start = f".model.partial-{socket.gethostname()}-"
    (tmp_path / f"{start}{child.pid}" / "params").mkdir(parents=True)
    (tmp_path / f"{start}{os.getppid()}").mkdir()  # of a process that still runs
    folders.torch_to_jax(golden.folder, tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{start}{os.getppid()}", "model"]


def test_float16_overflow(golden, tmp_path, refused):
    params = dict(golden.model.params)
    params["decoder/norm/scale"] = np.full_like(params["decoder/norm/scale"], 1e5)
    checkpoints.save(tmp_path / "large", params, checkpoints.Meta(golden.model.config))
    message = refused("jax-to-torch", tmp_path / "large", "--dtype", "float16")
    assert "decoder.norm.weight holds a value too large for F16" in message
