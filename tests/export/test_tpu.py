"""The exported programs through the real compiler for TPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import libtpu

pytestmark = libtpu.needed
ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from pathlib import Path
from launch.tpu_report.compiling import topology_devices
import jax, jax.export

place = jax.sharding.SingleDeviceSharding(topology_devices("v5e:2x2")[0])

def of_two_rows(shape):
    sizes = [size if isinstance(size, int) else 2 for size in shape.shape]
    return jax.ShapeDtypeStruct(tuple(sizes), shape.dtype, sharding=place)

for file in sorted(Path(sys.argv[1]).glob("*.jax_export")):
    program = jax.export.deserialize(bytearray(file.read_bytes()))
    (params, inputs), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    params, inputs = jax.tree.map(of_two_rows, (params, inputs))
    compiled = jax.jit(program.call).lower(params, inputs).compile()
    print(file.stem, compiled.memory_analysis().argument_size_in_bytes)
"""


def test_every_program_compiles_for_a_chip(exported):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(exported)],
        cwd=ROOT,
        env=libtpu.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sizes = dict(line.split() for line in done.stdout.splitlines())
    assert sizes.keys() == {"encode", "encode_rgb", "prefill", "decode"}
    # The decoder's float32 parameters are arguments, not part of the program.
    assert int(sizes["decode"]) > 1_000_000
