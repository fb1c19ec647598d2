"""TPU slices: from a topology to what Cloud TPU and GKE call it.

Facts from cloud.google.com/tpu/docs (v5e, v5p and v6e pages) and the TPU pages of the GKE documentation.
"""

from __future__ import annotations

import dataclasses
import difflib
import math

from launch.pods.commands import LaunchError


@dataclasses.dataclass(frozen=True)
class Generation:
    """One TPU generation.

    prefix: of the accelerator type; cores_per_chip: what the number after the prefix counts; gke_accelerator: node label;
    machine: GKE machine type without the number of chips; runtime: software version of a TPU VM; shapes: topologies.
    """

    prefix: str
    cores_per_chip: int
    gke_accelerator: str
    machine: str
    runtime: str
    shapes: tuple[str, ...]


FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
GENERATIONS = {
    "v5e": Generation("v5litepod", 1, "tpu-v5-lite-podslice", "ct5lp-hightpu", "v2-alpha-tpuv5-lite", FLAT),
    # The accelerator type of v5p counts TensorCores, two per chip.
    "v5p": Generation(
        "v5p", 2, "tpu-v5p-slice", "ct5p-hightpu", "v2-alpha-tpuv5", ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
    ),
    "v6e": Generation("v6e", 1, "tpu-v6e-slice", "ct6e-standard", "v2-alpha-tpuv6e", FLAT),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice: `name` as launch.compile_for_tpu takes it, the labels of Cloud TPU and GKE, and its hosts (VMs)."""

    name: str
    topology: str
    chips: int
    chips_per_host: int
    accelerator_type: str
    gke_accelerator: str
    machine_type: str
    runtime: str

    @property
    def hosts(self) -> int:
        return self.chips // self.chips_per_host


def _slice(generation: str, shape: str) -> Slice:
    g = GENERATIONS[generation]
    chips = math.prod(map(int, shape.split("x")))
    # Eight chips on one host exist for v5e and v6e only, and only as a whole slice.
    per_host = 8 if shape == "2x4" else 4
    return Slice(
        name=f"{generation}:{shape}",
        topology=shape,
        chips=chips,
        chips_per_host=per_host,
        accelerator_type=f"{g.prefix}-{chips * g.cores_per_chip}",
        gke_accelerator=g.gke_accelerator,
        machine_type=f"{g.machine}-{per_host}t",
        runtime=g.runtime,
    )


SLICES = {s.name: s for g, found in GENERATIONS.items() for s in (_slice(g, shape) for shape in found.shapes)}


def find_slice(name: str) -> Slice:
    """The slice of a topology such as "v5e:16x16"; raises LaunchError with the nearest names."""
    if name in SLICES:
        return SLICES[name]
    generation = name.partition(":")[0]
    near = difflib.get_close_matches(name, SLICES, n=3, cutoff=0.5)
    near += [n for n in SLICES if n.startswith(f"{generation}:") and n not in near]
    raise LaunchError(f"no topology {name}; nearest: {', '.join(near or SLICES)}")
