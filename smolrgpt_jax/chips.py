"""Accelerators: public figures of each chip, TPU topologies, and their names on Google Cloud."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from smolrgpt_jax.errors import ConfigError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """Figures of one TPU chip.

    flops: peak FLOP/s in bf16. HBM: bytes, and bytes/s. ici_bandwidth, dcn_bandwidth: bytes/s to the other chips of the slice
    (all links together, one direction) and to other slices (data-center network).
    """

    name: str
    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float | None  # None: no figure is public
    source: str


@dataclass(frozen=True)
class CloudNames:
    """Names of one chip on Google Cloud: cloud.google.com/tpu/docs and the TPU pages of the GKE documentation.

    accelerator: beginning of the accelerator type; cores: of a chip, which the number after it counts; label: of a GKE node;
    machine: GKE machine type without the number of chips; runtime: software version of a TPU VM.
    """

    accelerator: str
    cores: int
    label: str
    machine: str
    runtime: str


# Vendors give the interconnect for both directions together; half of it is one direction. Pod figures are divided by the
# pod's chips.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "v4", 275e12, 32 * GIB, 1200e9, 300e9, None,
            "Google Cloud TPU v4 documentation (compute, HBM); Jouppi et al., arXiv 2304.01433 (six ICI links of 50 GB/s)",
        ),
        Chip(
            "v5e", 197e12, 16 * GIB, 819e9, 200e9, 6.4e12 / 8 / 256,
            "Google Cloud TPU v5e documentation (ICI 400 GB/s both directions, DCN 6.4 Tbit/s per pod of 256)",
        ),
        Chip(
            "v5p", 459e12, 95 * GIB, 2765e9, 600e9, 50e9 / 8,
            "Google Cloud TPU v5p documentation (ICI 1200 GB/s both directions, DCN 50 Gbit/s per chip)",
        ),
        Chip(
            "v6e", 918e12, 32 * GIB, 1600e9, 400e9, 25.6e12 / 8 / 256,
            "Google Cloud TPU v6e documentation (ICI 800 GB/s both directions, DCN 25.6 Tbit/s per pod of 256)",
        ),
    )
}  # fmt: skip
CLOUD_NAMES = {
    "v4": CloudNames("v4", 2, "tpu-v4-podslice", "ct4p-hightpu", "tpu-ubuntu2204-base"),
    "v5e": CloudNames("v5litepod", 1, "tpu-v5-lite-podslice", "ct5lp-hightpu", "v2-alpha-tpuv5-lite"),
    "v5p": CloudNames("v5p", 2, "tpu-v5p-slice", "ct5p-hightpu", "v2-alpha-tpuv5"),
    "v6e": CloudNames("v6e", 1, "tpu-v6e-slice", "ct6e-standard", "v2-alpha-tpuv6e"),
}
_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
# Beginning of JAX's device kind -> peak bf16 FLOP/s without sparsity; of GPUs from the vendor's data sheets.
PEAKS = {
    "TPU v4": CHIPS["v4"].flops,
    "TPU v5 lite": CHIPS["v5e"].flops,
    "TPU v5": CHIPS["v5p"].flops,
    "TPU v6 lite": CHIPS["v6e"].flops,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Peak bf16 FLOP/s of a chip, None where the kind is not known: "TPU v5 lite" is not "TPU v5"."""
    names = [name for name in PEAKS if device_kind.startswith(name)]
    return PEAKS[max(names, key=len)] if names else None


@dataclass(frozen=True)
class Slice:
    """One TPU slice, such as "v5e:16x16", and its names on Google Cloud."""

    chip: Chip
    topology: str

    @property
    def name(self) -> str:
        return f"{self.chip.name}:{self.topology}"

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.topology.split("x")))

    @property
    def chips_per_host(self) -> int:
        # Eight chips on one host exist only as a whole slice.
        return 8 if self.topology == "2x4" else 4

    @property
    def hosts(self) -> int:
        return self.chips // self.chips_per_host

    @property
    def cloud(self) -> CloudNames:
        return CLOUD_NAMES[self.chip.name]

    @property
    def accelerator_type(self) -> str:
        return f"{self.cloud.accelerator}-{self.chips * self.cloud.cores}"

    @property
    def machine_type(self) -> str:
        return f"{self.cloud.machine}-{self.chips_per_host}t"


SLICES = {
    slice.name: slice
    for name, shapes in (("v5e", _FLAT), ("v6e", _FLAT), ("v5p", _CUBE), ("v4", _CUBE))
    for slice in (Slice(CHIPS[name], shape) for shape in shapes)
}


def find_slice(name: str) -> Slice:
    """The slice of a topology such as "v5e:16x16"; raises ConfigError with the nearest names."""
    if name in SLICES:
        return SLICES[name]
    near = difflib.get_close_matches(name, SLICES, n=3, cutoff=0.5)
    near += [n for n in SLICES if n.startswith(f"{name.partition(':')[0]}:") and n not in near]
    raise ConfigError(f"no topology {name}; nearest: {', '.join(near or SLICES)}")
