"""Conversion and loading tensor by tensor: what is in memory at a time, and where it ends up."""

from __future__ import annotations

import tracemalloc

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax import ShapeDtypeStruct

from convert import folders
from convert.inspection import compare_tensors
from smolrgpt_jax import load, sharding
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.checkpoint.load import read_checkpoint
from smolrgpt_jax.checkpoint.mapping import READ_AHEAD, StreamedParams, entries, params_from_tensors, read_ahead
from smolrgpt_jax.checkpoint.torch import read_folder, write_folder
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.errors import CheckpointError

# Most of it lies in stacks of many small layers, as in the published model.
DEEP = SmolRGPTConfig(
    vision=VisionConfig(width=32, mlp_width=64, heads=2, layers=2, patch_size=8, image_size=32),
    decoder=DecoderConfig(width=64, mlp_width=512, heads=4, kv_heads=2, layers=40, vocab_size=131),
)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A PyTorch folder of 18 MB whose largest tensor has 0.13 MB."""
    folder = tmp_path_factory.mktemp("deep") / "torch"
    table = entries(DEEP)
    shapes = {e.torch: e.torch_shape for e in table}
    rng = np.random.default_rng(0)
    params = params_from_tensors(
        table, lambda name: np.dtype(np.float32), lambda name: rng.random(shapes[name], np.float32)
    )
    write_folder(folder, DEEP, params)
    return folder


def peak_bytes(function):
    """The most that Python and NumPy held at once beyond what they held before."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_both_directions_hold_a_fraction_of_the_checkpoint(deep, tmp_path):
    folders.torch_to_jax(deep, tmp_path / "warm_up")  # imports and caches are no part of the measurement
    folders.jax_to_torch(tmp_path / "warm_up", tmp_path / "warm_up_back")
    size = (deep / "model.safetensors").stat().st_size
    assert peak_bytes(lambda: folders.torch_to_jax(deep, tmp_path / "jax")) < size / 4
    assert peak_bytes(lambda: folders.jax_to_torch(tmp_path / "jax", tmp_path / "back")) < size / 4
    assert (tmp_path / "back/model.safetensors").read_bytes() == (deep / "model.safetensors").read_bytes()


def test_verify_holds_a_fraction_of_the_checkpoints(deep, tmp_path):
    folders.torch_to_jax(deep, tmp_path / "jax")
    assert compare_tensors(deep, tmp_path / "jax").problems == []
    size = (deep / "model.safetensors").stat().st_size
    assert peak_bytes(lambda: compare_tensors(deep, tmp_path / "jax").problems) < size / 4


def counting_params():
    """Three parameters, one of five layers, and the list of pieces that were read."""
    read = []

    def read_piece(piece):
        read.append(piece)
        return np.full(2, len(read), np.float32)

    infos = {
        name: ShapeDtypeStruct(shape, np.dtype(np.float32))
        for name, shape in {"a": (2,), "tower/blocks/b": (5, 2), "c": (2,)}.items()
    }
    return StreamedParams(infos, read_piece), read


def test_streamed_params_are_read_at_every_access_and_not_before():
    params, read = counting_params()
    assert "a" in params and list(params) == ["a", "tower/blocks/b", "c"] and read == []
    assert params["a"][0] == 1 and params["a"][0] == 2
    assert params["tower/blocks/b"].shape == (5, 2)
    assert read == [("a", None), ("a", None), *(("tower/blocks/b", i) for i in range(5))]
    with pytest.raises(KeyError):
        params["d"]


def test_read_ahead_keeps_the_order_and_stops_at_its_distance():
    params, read = counting_params()
    pieces = [piece for name in params for piece in params.pieces(name)]
    ahead = read_ahead(params, pieces)
    assert next(ahead)[0] == pieces[0]
    ahead.close()
    assert len(read) <= 1 + READ_AHEAD
    assert [piece for piece, _ in read_ahead(params, pieces)] == pieces


def test_read_ahead_passes_errors_on():
    def damaged(piece):
        raise CheckpointError("gone")

    params = StreamedParams({"a": ShapeDtypeStruct((2,), np.dtype(np.float32))}, damaged)
    with pytest.raises(CheckpointError, match="gone"):
        list(read_ahead(params, [("a", None)]))


def test_a_checkpoint_is_what_plain_orbax_reads(golden, tmp_path):
    folders.torch_to_jax(golden.folder, tmp_path / "jax")
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "jax" / "params")
    assert restored.keys() == golden.model.params.keys()
    for name, value in golden.model.params.items():
        np.testing.assert_array_equal(restored[name], value, err_msg=name)


def test_checkpoints_in_orbax_s_own_layout_stream_too(golden, tmp_path):
    """As training writes them: one OCDBT database, compressed, from device arrays."""
    config, _, layout = read_folder(golden.folder)
    saver = checkpoints.TrainingCheckpoints(tmp_path / "run", keep=1)
    meta = checkpoints.Meta(config, layout=layout, run={"step": 7})
    saver.save(7, golden.model.params, {"count": np.zeros(1)}, meta)
    saver.close()
    folders.jax_to_torch(tmp_path / "run", tmp_path / "back")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (golden.folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["torch", "jax"])
def test_load_puts_parameters_straight_into_their_shardings(golden, tmp_path, kind):
    path = golden.folder
    if kind == "jax":
        path = tmp_path / "jax"
        folders.torch_to_jax(golden.folder, path)
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2}, jax.devices()[:8])
    model = load(path, mesh=mesh)
    expected = sharding.param_shardings(model.params, mesh)
    assert {n: p.sharding for n, p in model.params.items()} == expected
    assert len(model.params["decoder/blocks/q_proj/kernel"].sharding.device_set) == 8
    for name, value in golden.model.params.items():
        np.testing.assert_array_equal(model.params[name], value, err_msg=name)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_a_smaller_dtype_is_kept_there_and_back_and_loads_as_float32(golden, tmp_path, dtype):
    folders.torch_to_jax(golden.folder, tmp_path / "jax")
    folders.jax_to_torch(tmp_path / "jax", tmp_path / "small", dtype=dtype)
    folders.torch_to_jax(tmp_path / "small", tmp_path / "small_jax")
    folders.jax_to_torch(tmp_path / "small_jax", tmp_path / "back")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "small" / name).read_bytes()
    assert {str(p.dtype) for p in load(tmp_path / "small_jax").params.values()} == {"float32"}


def test_both_kinds_are_read_as_they_are_placed(golden, tmp_path):
    folders.torch_to_jax(golden.folder, tmp_path / "jax")
    for path in (golden.folder, tmp_path / "jax"):
        assert isinstance(read_checkpoint(path).params, StreamedParams)
