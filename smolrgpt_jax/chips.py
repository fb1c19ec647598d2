"""Accelerators: public figures of each chip, TPU topologies, and their names on Google Cloud."""

import difflib
import math
from dataclasses import dataclass
from pathlib import Path

from smolrgpt_jax.errors import ConfigError
from smolrgpt_jax.files import read_json


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


GIB = 2**30

# Vendors give the interconnect for both directions together; half of it is one direction. Pod figures are divided by the
# pod's chips. Device kinds: beginnings of JAX's names; of GPUs, peak bf16 FLOP/s without sparsity from the vendor's data sheets.
_DATA = read_json(Path(__file__).with_name("chips.json"), dict)
CHIPS = {chip["name"]: Chip(**chip) for chip in _DATA["chips"]}
CLOUD_NAMES = {name: CloudNames(**names) for name, names in _DATA["cloud_names"].items()}
PEAKS = {kind: CHIPS[name].flops for kind, name in _DATA["device_kinds"].items()} | _DATA["gpu_flops"]


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
    for name, shapes in _DATA["topologies"].items()
    for slice in (Slice(CHIPS[name], shape) for shape in shapes)
}


def find_slice(name: str) -> Slice:
    """The slice of a topology such as "v5e:16x16"; raises ConfigError with the nearest names."""
    if name in SLICES:
        return SLICES[name]
    near = difflib.get_close_matches(name, SLICES, n=3, cutoff=0.5)
    near += [n for n in SLICES if n.startswith(f"{name.partition(':')[0]}:") and n not in near]
    raise ConfigError(f"no topology {name}; nearest: {', '.join(near or SLICES)}")
