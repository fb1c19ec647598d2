"""TPU chips: public figures, and the topology names that programs can be compiled for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """Per chip: peak bf16 FLOP/s; HBM capacity in bytes and bandwidth in bytes/s; bytes/s to the other chips of the slice
    (ICI, all links together, one direction) and to other slices (data-center network), None where no figure is public."""

    name: str
    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float | None
    source: str


GIB = 2**30
# Vendors give the interconnect for both directions together; half of it is one direction. Pod figures are divided by the
# pod's chips.
CHIPS: dict[str, Chip] = {
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

_GRID = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
TOPOLOGIES: tuple[str, ...] = (
    *(f"v5e:{g}" for g in _GRID),
    *(f"v6e:{g}" for g in _GRID),
    *(f"v5p:{g}" for g in _CUBE),
    *(f"v4:{g}" for g in _CUBE),
)


def chip_of(topology: str) -> Chip:
    """The chip of a topology name such as "v5e:4x4"; raises ValueError for a name that is not in `TOPOLOGIES`."""
    if topology not in TOPOLOGIES:
        raise ValueError(f"there is no topology {topology!r}, only {', '.join(TOPOLOGIES)}")
    return CHIPS[topology.split(":")[0]]
