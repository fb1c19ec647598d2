"""Where arrays live: one mesh, one logical name per parameter dimension, one rule table.

A dimension whose size does not divide by its mesh axis stays whole, with a logged line; two dimensions of one array on
the same mesh axis are an error.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")

# Logical name -> mesh axis. Batches are split over data and fsdp together.
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "none": None,
}

# Parameter name pattern -> logical names, first match wins; anything else is replicated.
LOGICAL_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"decoder/(token_embedding|head)$", ("vocab", "embed")),
    (r".*/blocks/qkv_proj/kernel$", ("layers", "embed", "none", "heads", "none")),
    (r".*/blocks/[qkv]_proj/kernel$", ("layers", "embed", "heads", "none")),
    (r".*/blocks/out_proj/kernel$", ("layers", "heads", "none", "embed")),
    (r".*/blocks/(gate_proj|up_proj|fc1)/kernel$", ("layers", "embed", "mlp")),
    (r".*/blocks/(down_proj|fc2)/kernel$", ("layers", "mlp", "embed")),
    (r".*_connector/proj/kernel$", ("mlp", "embed")),
    # Over one axis only: split over fsdp and tensor together (beside data), XLA's partitioner returned a wrong gradient
    # of the refiner's input; tests/test_sharding.py would see it.
    (r".*_refiner/up\d/kernel$", ("embed", "none", "none", "none")),
)


def make_mesh(shape: Mapping[str, int] | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of axes data, fsdp, tensor over all devices; one size may be -1 for "what is left" (data by default).

    Raises ValueError if the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [(shape or {}).get(axis, -1 if axis == "data" and not shape else 1) for axis in AXES]
    known = math.prod(s for s in sizes if s != -1)
    sizes = [len(devices) // known if s == -1 else s for s in sizes]
    if math.prod(sizes) != len(devices):
        raise ValueError(f"mesh {dict(zip(AXES, sizes))} does not fit {len(devices)} devices")
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def spec_for(logical: Sequence[str], shape: Sequence[int], mesh: Mesh, name: str = "array") -> PartitionSpec:
    """The partition of one array from its dimensions' logical names; raises ValueError when two land on one mesh axis."""
    spec: list[Any] = []
    used: set[str] = set()
    for dimension, size in zip(logical, shape, strict=True):
        axes = RULES[dimension]
        axes = () if axes is None else (axes,) if isinstance(axes, str) else axes
        axes = tuple(a for a in axes if mesh.shape[a] > 1)
        if used & set(axes):
            raise ValueError(
                f"{name}: two dimensions of {tuple(logical)} land on mesh axis {sorted(used & set(axes))}"
            )
        ways = math.prod(mesh.shape[a] for a in axes)
        if size % ways:
            logging.info("%s: %s of size %d does not divide by %d, kept whole", name, dimension, size, ways)
            axes = ()
        used |= set(axes)
        spec.append(None if not axes else axes[0] if len(axes) == 1 else axes)
    return PartitionSpec(*spec)


def param_shardings(params: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """A sharding per parameter; `params` maps names to anything with a shape."""
    shardings = {}
    for name, value in params.items():
        logical = next((axes for pattern, axes in LOGICAL_AXES if re.match(pattern, name)), None)
        spec = PartitionSpec() if logical is None else spec_for(logical, value.shape, mesh, name)
        shardings[name] = NamedSharding(mesh, spec)
    return shardings


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of this process's share of a batch: leading dimension [local rows] -> [all rows]."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
        for name, value in batch.items()
    }
