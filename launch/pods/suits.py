"""Whether a training suits the chips that a launcher asks for, by the rule of the training itself (smolrgpt_jax.sharding)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smolrgpt_jax.chips import Slice
from smolrgpt_jax.errors import RunError


@dataclass(frozen=True)
class Device:
    """A device that is only planned: what JAX reads of one to lay a mesh over it, which starts no accelerator."""

    id: int
    platform: str
    slice_index: int = 0
    coords: tuple[int, ...] = (0, 0, 0)
    core_on_chip: int = 0
    process_index: int = 0
    device_kind: str = ""  # JAX orders some kinds in its own way, which changes no size


def tpu_devices(tpu: Slice, slices: int) -> list[Device]:
    """The devices of so many TPU slices."""
    x, y, z = (*map(int, tpu.topology.split("x")), 1)[:3]
    places = [(i, j, k) for i in range(x) for j in range(y) for k in range(z)]
    return [Device(n * tpu.chips + i, "tpu", n, place) for n in range(slices) for i, place in enumerate(places)]


def gpu_devices(count: int) -> list[Device]:
    """So many GPUs, on whichever nodes."""
    return [Device(i, "gpu") for i in range(count)]


def check_rows(run: Mapping[str, Any], devices: Sequence[Device]) -> None:
    """Checks the mesh and the batch of a run for the devices that it will have.

    Args:
      run: checked settings.
      devices: all those of the run.

    Raises:
      RunError: one sentence with the rows, the chips and a number of rows that suits them.
    """
    # Imported where needed: it imports JAX, and the other verbs need nothing but Python.
    from smolrgpt_jax import sharding

    rows, parts = run["batch_rows"], run["accumulation"]
    mesh = sharding.make_mesh(run["mesh"], devices, run["strategy"])
    try:
        sharding.check_batch_rows(rows, mesh, parts)
    except RunError:
        ways = sharding.batch_ways(mesh)
        multiple = ways * parts
        why = f" ({ways} ways of data x fsdp, {parts} accumulation part(s))" if multiple != len(devices) else ""
        raise RunError(
            f"config.batch_rows is {rows}, which {len(devices)} chips cannot share evenly: it has to be a multiple of {multiple}{why}, "
            f"such as --config.batch_rows={multiple * math.ceil(rows / multiple)}"
        ) from None
