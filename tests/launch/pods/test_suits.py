"""The launchers' check of rows and chips: the mesh is the one that the training will have."""

from __future__ import annotations

import subprocess
import sys

import jax
import pytest

from launch.pods.suits import check_rows, gpu_devices, tpu_devices
from smolrgpt_jax import sharding
from smolrgpt_jax.chips import SLICES, find_slice
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.training.settings import defaults


@pytest.mark.parametrize("name", SLICES)
@pytest.mark.parametrize("slices", [1, 2])
def test_every_topology_takes_a_row_per_chip_and_no_row_more(name, slices):
    tpu = find_slice(name)
    devices, chips = tpu_devices(tpu, slices), slices * tpu.chips
    assert len({device.id for device in devices}) == len(devices) == chips
    check_rows(defaults() | {"batch_rows": chips}, devices)
    with pytest.raises(RunError, match=f"is {chips + 1}, .* {chips} chips .* such as --config.batch_rows={2 * chips}$"):
        check_rows(defaults() | {"batch_rows": chips + 1}, devices)


@pytest.mark.parametrize("strategy", ["data", "zero1", "fsdp"])
@pytest.mark.parametrize("mesh", [{}, {"tensor": 2}, {"fsdp": 2, "tensor": -1}, {"data": -1, "tensor": 4}])
def test_planned_devices_get_the_mesh_of_real_ones(strategy, mesh):
    real = sharding.make_mesh(mesh, jax.devices(), strategy)
    planned = sharding.make_mesh(mesh, gpu_devices(len(jax.devices())), strategy)
    assert dict(planned.shape) == dict(real.shape)


@pytest.mark.parametrize(
    "changes", [{"mesh": {"tensor": 4}}, {"accumulation": 3}, {"mesh": {"tensor": 2}, "accumulation": 5}]
)
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_the_number_that_is_told_suits(changes, rows):
    run, devices = defaults() | changes | {"batch_rows": rows}, tpu_devices(find_slice("v5e:4x4"), 2)
    with pytest.raises(RunError) as refused:
        check_rows(run, devices)
    told = int(str(refused.value).rpartition("=")[2])
    assert told >= rows
    check_rows(run | {"batch_rows": told}, devices)


def test_a_mesh_is_laid_over_slices_as_the_training_would():
    whole = defaults() | {"batch_rows": 32, "mesh": {"data": 1, "fsdp": 32}}
    check_rows(whole, gpu_devices(32))
    with pytest.raises(RunError, match="the data axis of size 1 does not divide over 2 slices"):
        check_rows(whole, tpu_devices(find_slice("v5e:4x4"), 2))


def test_a_launcher_starts_without_jax():
    heavy = "import sys, launch.gke, launch.slurm, launch.tpu_pod, launch.xpk; print({'jax', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
