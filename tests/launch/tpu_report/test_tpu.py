"""The real compiler for TPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import libtpu

pytestmark = libtpu.needed
ROOT = Path(__file__).parents[3]


def command(*arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "launch.compile_for_tpu", "--config=configs/demo.py:stage3", *arguments]
    return subprocess.run(line, cwd=ROOT, env=libtpu.environment(), capture_output=True, text=True)


def test_the_demos_step_for_eight_chips(tmp_path):
    out = tmp_path / "report.json"
    done = command("--topology=v5e:2x4", f"--out={out}", "--config.model.compute_dtype=bfloat16")
    assert done.returncode == 0, done.stderr
    assert "compiled, not run: 8 rows on 8 devices" in done.stdout
    report = json.loads(out.read_text())
    assert report["settings"]["strategy"] == "zero1" and report["mesh"]["fsdp"] == 8
    assert report["flops"]["compiled_over_analytic"] == pytest.approx(1, rel=0.1)
    assert 0 < report["memory"]["total"] < 2**30 and not report["loops_of_unknown_length"]


def test_slices_lie_along_the_data_axis():
    code = (
        "from launch.tpu_report.compiling import topology_devices; from smolrgpt_jax import sharding\n"
        "mesh = sharding.make_mesh({}, topology_devices('v5e:4x4', 2), 'zero1')\n"
        "print(dict(mesh.shape), [sorted({d.slice_index for d in row.flat}) for row in mesh.devices])\n"
        "sharding.make_mesh({'data': 1, 'fsdp': 32}, topology_devices('v5e:4x4', 2))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=libtpu.environment(), capture_output=True, text=True
    )
    assert "{'data': 2, 'fsdp': 16, 'tensor': 1} [[0], [1]]" in done.stdout, done.stderr
    assert "the data axis of size 1 does not divide over 2 slices" in done.stderr


def test_the_default_mesh_fits_every_kind_of_torus():
    topologies = ["v5e:16x16", "v6e:16x16", "v5p:4x4x4", "v4:4x4x4"]
    code = (
        "from launch.tpu_report.compiling import topology_devices; from smolrgpt_jax import sharding\n"
        f"for topology in {topologies}:\n"
        "    print(topology, dict(sharding.make_mesh({}, topology_devices(topology), 'zero1').shape))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=libtpu.environment(), capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert [line.split(" {")[0] for line in lines] == topologies, done.stderr
    assert all("'fsdp': 32, 'tensor': 1}" in line for line in lines), done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology=v5e:4x4",), "a batch of 8 rows does not divide"),
        (("--topology=v5e:2x4", "--config.mesh.fsdp=3"), "does not fit 8 devices"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message):
    done = command(*arguments)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
