"""Accelerators: public figures of each chip, TPU topologies, and their names on Google Cloud."""

import difflib
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from smolrgpt_jax.errors import ConfigError, RunError
from smolrgpt_jax.files import read_json


@dataclass(frozen=True)
class Chip:
    """Figures of one TPU chip."""

    name: str
    flops: float  # peak FLOP/s in bf16
    hbm_bytes: float
    hbm_bandwidth: float  # bytes/s
    ici_bandwidth: float  # bytes/s to the other chips of the slice: all links together, one direction
    dcn_bandwidth: float | None  # bytes/s to other slices (data-center network); None: no figure is public
    source: str
    units: tuple[int, int]  # matrix units, and the rows (and columns) of each

    @property
    def clock(self) -> float:
        """Cycles per second that the peak rests on: a matrix unit makes a multiply-add per cell and cycle."""
        count, width = self.units
        return self.flops / (2 * count * width**2)


GIB = 2**30

# Vendors give the interconnect for both directions together; half of it is one direction. Pod figures are divided by the
# pod's chips. Device kinds: beginnings of JAX's names; of GPUs, peak bf16 FLOP/s without sparsity from the vendor's data sheets.
_DATA = read_json(Path(__file__).with_name("chips.json"), dict)
CHIPS = {chip["name"]: Chip(**chip | {"units": tuple(chip["units"])}) for chip in _DATA["chips"]}
PEAKS = {kind: CHIPS[name].flops for kind, name in _DATA["device_kinds"].items()} | _DATA["gpu_flops"]


def peak_flops(device_kind: str) -> float | None:
    """Peak bf16 FLOP/s of a chip, None where the kind is not known: "TPU v5 lite" is not "TPU v5"."""
    names = [name for name in PEAKS if device_kind.startswith(name)]
    return PEAKS[max(names, key=len)] if names else None


def compiler_options(device_kind: str) -> dict[str, str]:
    """What the compiler should be told for this kind of device.

    v5e and v6e have 128 MiB of fast memory. Half of it for the operations themselves lets them work on larger pieces, and leaves
    too little to hold the whole embedding there while the layers run.
    """
    return dict(_DATA["compiler_options"].get(device_kind, {}))


@dataclass(frozen=True)
class Slice:
    """One TPU slice, such as "v5e:16x16", and its names on Google Cloud.

    The names are those of cloud.google.com/tpu/docs and the TPU pages of the GKE documentation.
    """

    name: str
    chip: Chip
    topology: str
    chips: int
    chips_per_host: int
    accelerator_type: str
    machine_type: str
    label: str  # of a GKE node
    runtime: str  # software version of a TPU VM

    @property
    def hosts(self) -> int:
        return self.chips // self.chips_per_host


def _slices() -> Iterator[Slice]:
    for name, shapes in _DATA["topologies"].items():
        cloud = _DATA["cloud_names"][name]
        for shape in shapes:
            # Eight chips on one host exist only as a whole slice.
            chips, on_host = math.prod(map(int, shape.split("x"))), 8 if shape == "2x4" else 4
            # An accelerator's number counts the cores of its chips.
            types = f"{cloud['accelerator']}-{chips * cloud['cores']}", f"{cloud['machine']}-{on_host}t"
            yield Slice(f"{name}:{shape}", CHIPS[name], shape, chips, on_host, *types, cloud["label"], cloud["runtime"])


SLICES = {slice.name: slice for slice in _slices()}


def find_slice(name: str) -> Slice:
    """The slice of a topology such as "v5e:16x16"; raises ConfigError with the nearest names."""
    if name in SLICES:
        return SLICES[name]
    near = difflib.get_close_matches(name, SLICES, n=3, cutoff=0.5)
    near += [n for n in SLICES if n.startswith(f"{name.partition(':')[0]}:") and n not in near]
    raise ConfigError(f"no topology {name}; nearest: {', '.join(near or SLICES)}")


def check_libtpu() -> None:
    """Raises RunError where libtpu, the compiler for TPUs, is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise RunError("compiling for TPUs needs libtpu, which is not installed: pip install 'jax[tpu]'")
