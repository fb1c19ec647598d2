"""Mesh, rules, and the same training step on one device and on eight."""

from __future__ import annotations

import logging
import types

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from smolrgpt_jax import sharding
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.models.smolrgpt import abstract_params
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.training.step import gradients


def test_all_devices_are_on_the_data_axis_by_default():
    assert dict(sharding.make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}


def test_a_mesh_that_does_not_fit_the_devices_is_an_error():
    with pytest.raises(ValueError, match="does not fit 8 devices"):
        sharding.make_mesh({"data": 3, "fsdp": 2})


def test_sizes_that_do_not_divide_stay_whole_and_are_logged(caplog):
    mesh = sharding.make_mesh({"data": 1, "tensor": 8})
    with caplog.at_level(logging.INFO):
        spec = sharding.spec_for(
            ("layers", "embed", "heads", "none"), (32, 960, 15, 64), mesh, "decoder/blocks/q_proj/kernel"
        )
    assert spec == P(None, None, None, None)
    assert "decoder/blocks/q_proj/kernel: heads of size 15 does not divide by 8" in caplog.text


def test_two_dimensions_on_one_axis_are_an_error():
    mesh = sharding.make_mesh({"tensor": 8})
    with pytest.raises(ValueError, match=r"two dimensions of \('heads', 'mlp'\) land on mesh axis \['tensor'\]"):
        sharding.spec_for(("heads", "mlp"), (8, 8), mesh)


@pytest.mark.parametrize("strategy", ["zero1", "fsdp"])
def test_strategies_that_split_state_use_the_fsdp_axis_by_default(strategy):
    assert dict(sharding.make_mesh(strategy=strategy).shape) == {"data": 1, "fsdp": 8, "tensor": 1}


@pytest.mark.parametrize(
    ("strategy", "shape", "sizes"),
    [
        ("zero1", {"fsdp": 4}, (2, 4, 1)),
        ("zero1", {"tensor": 2}, (1, 4, 2)),
        ("zero1", {"data": 2}, (2, 4, 1)),
        ("zero1", {"data": -1}, (8, 1, 1)),
        ("data", {"tensor": 2}, (4, 1, 2)),
        ("data", {"data": 2, "fsdp": -1}, (2, 4, 1)),
        ("fsdp", {"data": 0, "fsdp": 0, "tensor": 0}, (1, 8, 1)),
    ],
)
def test_sizes_not_given_are_chosen(strategy, shape, sizes):
    assert tuple(sharding.make_mesh(shape, strategy=strategy).shape.values()) == sizes


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"model": 8}, "a mesh has no axis 'model', only data, fsdp, tensor"),
        ({"data": -1, "fsdp": 16}, "does not fit 8 devices"),
        ({"data": -1, "fsdp": -1}, "does not fit 8 devices"),
        ({"data": -2, "fsdp": 8}, "does not fit 8 devices"),
        ({"fsdp": 3}, "does not fit 8 devices"),
    ],
)
def test_meshes_that_make_no_sense_are_errors(shape, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(shape)


def test_constraints_outside_a_mesh_do_nothing():
    x = np.ones((3, 5), np.float32)
    assert sharding.constrain_batch(x) is x
    with sharding.over(sharding.make_mesh(devices=jax.devices()[:1])):
        assert sharding.constrain_batch(x) is x


@pytest.mark.parametrize("shape", [{"data": 2, "fsdp": 4}, {"fsdp": 4, "tensor": 2}, {"tensor": 8}], ids=str)
def test_every_parameter_of_the_published_model_has_a_sharding(shape):
    mesh = sharding.make_mesh(shape)
    params = abstract_params(PRESETS["smolrgpt"])
    for name, sharded in sharding.param_shardings(params, mesh).items():
        sharded.shard_shape(params[name].shape)
    embedding = sharding.param_shardings(params, mesh)["decoder/token_embedding"]
    assert embedding.shard_shape((49280, 960)) == (49280 // mesh.shape["tensor"], 960 // mesh.shape["fsdp"])


@pytest.mark.parametrize(("tensor", "replicated"), [(1, False), (2, False), (4, True), (8, True)])
def test_rows_are_replicated_where_the_tensor_axis_leaves_a_process(tensor, replicated):
    devices = [types.SimpleNamespace(process_index=number // 2) for number in range(8)]
    shape = {"data": 8 // tensor, "fsdp": 1, "tensor": tensor}
    mesh = types.SimpleNamespace(devices=np.array(devices).reshape(*shape.values()), shape=shape)
    assert sharding.is_replicated(mesh) == replicated


@pytest.mark.parametrize("shape", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str)
def test_rows_lie_on_the_devices_in_their_order(shape):
    mesh = sharding.make_mesh(shape)
    rows = np.arange(32).reshape(16, 2)
    put = sharding.put_batch({"rows": rows}, mesh)["rows"]
    np.testing.assert_array_equal(put, rows)
    assert put.sharding.is_equivalent_to(sharding.batch_sharding(mesh), 2)
    size = 16 // sharding.batch_ways(mesh)
    for shard in put.addressable_shards:
        first = shard.index[0].start or 0
        np.testing.assert_array_equal(shard.data, rows[first : first + size])


@pytest.mark.parametrize("shape", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str)
def test_eight_devices_compute_what_one_does(golden, shape):
    names = STAGES["sft"].trained(golden.model.params)
    batch = {name: np.concatenate([np.asarray(v)] * 2) for name, v in golden.batch().items()}
    run = jax.jit(lambda t, f, b: gradients(golden.model.config, t, f, b))

    def split(params):
        return {n: params[n] for n in names}, {n: v for n, v in params.items() if n not in names}

    mesh = sharding.make_mesh(shape)
    shardings = sharding.param_shardings(golden.model.params, mesh)
    placed = {n: jax.device_put(v, shardings[n]) for n, v in golden.model.params.items()}
    ours, loss = run(*split(placed), sharding.put_batch(batch, mesh))
    theirs, expected = run(*split(golden.model.params), batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for name in ours:
        np.testing.assert_allclose(
            ours[name], theirs[name], atol=1e-4 * float(np.abs(theirs[name]).max()), err_msg=name
        )


class Device:
    """One of a process, as seen from process `own`."""

    platform = "cpu"

    def __init__(self, id: int, process: int, own: int):
        self.id, self.process_index = id, process
        self.client = types.SimpleNamespace(process_index=lambda: own)


@pytest.mark.parametrize(
    ("shape", "processes", "parts"),
    [
        ((4, 1, 1), "0011", ["01", "23"]),
        ((1, 4, 1), "0011", ["01", "23"]),
        ((2, 2, 1), "0101", ["02", "13"]),
        ((4, 1, 1), "1100", ["23", "01"]),
        ((2, 1, 2), "0011", ["0", "1"]),
        ((1, 1, 4), "0011", ["0", "0"]),
        ((2, 1, 4), "00112233", ["0", "0", "1", "1"]),
        ((2, 2, 2), "01010101", ["0123", "0123"]),
        ((2, 2, 2), "01230123", ["02", "02", "13", "13"]),
        ((2, 2, 2), "00123344", ["0", "1", "1", "2", "3"]),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_a_process_builds_the_rows_of_its_devices_and_replicas_the_same_ones(monkeypatch, shape, processes, parts):
    """processes: that of each device in the mesh's order; parts: of the batch, with a device of each process."""

    def laid(shape, split, part):
        return {device: part(index) for device, index in split.addressable_devices_indices_map(shape).items()}

    monkeypatch.setattr(jax, "make_array_from_callback", laid)
    for own, held in enumerate(parts):
        devices = [Device(number, int(process), own) for number, process in enumerate(processes)]
        mesh = Mesh(np.array(devices).reshape(shape), sharding.AXES)
        size = 24 // sharding.batch_ways(mesh)
        expected = np.concatenate([int(part) * size + np.arange(size) for part in held])
        np.testing.assert_array_equal(sharding.process_rows(mesh, 24), expected)
        # Row by row it is what JAX says of the device.
        places = sharding.batch_sharding(mesh).devices_indices_map((24,))
        found = {row for device, (rows,) in places.items() if device.process_index == own for row in range(24)[rows]}
        assert found == set(expected)
        for device, rows in sharding.put_batch({"rows": expected}, mesh)["rows"].items():
            np.testing.assert_array_equal(rows, np.arange(24)[places[device]])
        assert sharding.is_replicated(mesh) == (sum(map(len, parts)) > sharding.batch_ways(mesh))
