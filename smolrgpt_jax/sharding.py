"""Where arrays live: one mesh, one logical name per dimension, one rule table, three strategies.

A dimension whose size does not divide by its mesh axis stays whole, with a logged line; two dimensions of one array on
the same mesh axis are an error.

    strategy   parameters, gradients, optimiser state   a step's copy of the parameters in the compute dtype
    data       whole                                    whole
    zero1      over fsdp                                whole, gathered once
    fsdp       over fsdp                                over fsdp, gathered layer by layer

Rows are split over data and fsdp under all of them.

A tensor axis above 1 splits heads, MLP width and vocabulary besides, under any of them. Between TPU slices only the data axis
runs, so that what crosses the data-center network is the gradient sum, an fsdp-th of it per chip.
"""

import contextlib
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from smolrgpt_jax.errors import RunError

AXES = ("data", "fsdp", "tensor")
Strategy = Literal["data", "zero1", "fsdp"]
# The published layers divide by no larger power of two; widths do by 64.
MAX_FSDP = 32

# Logical name -> mesh axes.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "layers": (),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "none": (),
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


def make_mesh(
    shape: Mapping[str, int] | None = None, devices: Sequence[Any] | None = None, strategy: Strategy = "data"
) -> Mesh:
    """The mesh of axes data, fsdp, tensor over all devices.

    A size that is 0 or not named is chosen: 1 for tensor; for fsdp 1 under "data", else as much as the devices of a slice
    and the widths divide by; what is left for data. One size may be -1 for "what is left". Devices of several TPU slices
    are ordered so that the slices lie along data. Raises RunError if the sizes do not multiply to the number of devices,
    or the data axis does not divide over the slices.
    """
    devices = jax.devices() if devices is None else devices
    if strategy not in get_args(Strategy):
        raise RunError(f"there is no strategy {strategy!r}, only {', '.join(get_args(Strategy))}")
    unknown = sorted(set(shape or {}) - set(AXES))
    if unknown:
        raise RunError(f"a mesh has no axis {unknown[0]!r}, only {', '.join(AXES)}")
    slices = len({getattr(d, "slice_index", 0) if d.platform == "tpu" else 0 for d in devices})
    asked = {axis: (shape or {}).get(axis, 0) for axis in AXES}
    given = math.prod(size for size in asked.values() if size > 0)
    left = max(len(devices) // given, 1)
    asked["tensor"] = asked["tensor"] or 1
    if not asked["fsdp"]:
        of_a_slice = left if asked["data"] else max(left // slices, 1)
        whole = strategy == "data" or -1 in asked.values()
        asked["fsdp"] = 1 if whole else math.gcd(of_a_slice, MAX_FSDP)
    asked["data"] = asked["data"] or (1 if -1 in asked.values() else -1)
    sizes = list(asked.values())
    known = math.prod(size for size in sizes if size != -1)
    if known > 0 and sizes.count(-1) <= 1:
        sizes = [len(devices) // known if size == -1 else size for size in sizes]
    if min(sizes) < 1 or math.prod(sizes) != len(devices):
        raise RunError(f"mesh {dict(zip(AXES, sizes))} does not fit {len(devices)} devices")
    if sizes[0] % slices:
        raise RunError(f"the data axis of size {sizes[0]} does not divide over {slices} slices")
    # A 16x16 torus has no axis of 32: an axis of the mesh may take a part of one.
    options: dict[str, Any] = {"devices": devices, "allow_split_physical_axes": True}
    if slices > 1:
        within = (sizes[0] // slices, *sizes[1:])
        array = mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), **options)
    else:
        array = mesh_utils.create_device_mesh(tuple(sizes), **options)
    return Mesh(array, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_batch_rows(rows: int, mesh: Mesh, accumulation: int = 1) -> None:
    """Raises RunError if the rows of a step cannot be split evenly over the devices and accumulation parts."""
    ways = batch_ways(mesh)
    if accumulation < 1 or rows < 1 or rows % (ways * accumulation):
        raise RunError(
            f"a batch of {rows} rows does not divide into {accumulation} accumulation part(s) for {ways} devices "
            "(data x fsdp)"
        )


def batch_ways(mesh: Mesh) -> int:
    """Parts that the batch dimension is split into."""
    return math.prod(mesh.shape[axis] for axis in RULES["batch"])


def spec_for(
    logical: Sequence[str],
    shape: Sequence[int],
    mesh: Mesh | AbstractMesh,
    name: str = "array",
    ignore: Sequence[str] = (),
) -> PartitionSpec:
    """The partition of one array from its dimensions' logical names, mesh axes in `ignore` left out.

    Raises ValueError when two dimensions land on one mesh axis.
    """
    spec: list[Any] = []
    used: set[str] = set()
    for dimension, size in zip(logical, shape, strict=True):
        axes = tuple(a for a in RULES[dimension] if mesh.shape[a] > 1 and a not in ignore)
        if used & set(axes):
            raise ValueError(f"{name}: two dimensions of {tuple(logical)} land on mesh axis {sorted(used & set(axes))}")
        ways = math.prod(mesh.shape[a] for a in axes)
        if size % ways:
            logging.info("%s: %s of size %d does not divide by %d, kept whole", name, dimension, size, ways)
            axes = ()
        used |= set(axes)
        spec.append(None if not axes else axes[0] if len(axes) == 1 else axes)
    return PartitionSpec(*spec)


def param_shardings(params: Mapping[str, Any], mesh: Mesh, strategy: Strategy = "fsdp") -> dict[str, NamedSharding]:
    """A sharding per parameter; `params` maps names to anything with a shape."""

    def spec(name: str, shape: Sequence[int]) -> PartitionSpec:
        logical = next((axes for pattern, axes in LOGICAL_AXES if re.match(pattern, name)), ("none",) * len(shape))
        if strategy == "fsdp" or "embed" not in logical:
            return spec_for(logical, shape, mesh, name)
        split = spec_for(logical, shape, mesh, name, ("fsdp",))
        # Gathered whole, the first dimension is the cheapest: its parts then lie one after the other.
        places = [d for d in (0, logical.index("embed")) if split[d] is None and shape[d] % mesh.shape["fsdp"] == 0]
        if strategy == "zero1" and mesh.shape["fsdp"] > 1 and places:
            split = PartitionSpec(*split[: places[0]], "fsdp", *split[places[0] + 1 :])
        return split

    return {name: NamedSharding(mesh, spec(name, value.shape)) for name, value in params.items()}


def working_shardings(params: Mapping[str, Any], mesh: Mesh, strategy: Strategy) -> dict[str, NamedSharding]:
    """A sharding per parameter's copy that a step computes with."""
    return param_shardings(params, mesh, "fsdp" if strategy == "fsdp" else "data")


def rows_part(place: NamedSharding) -> PartitionSpec:
    """What a sharding says of the axes that rows are split over, without dimensions after it."""
    spec = [*place.spec]
    return PartitionSpec(*[None] * spec.index("fsdp"), "fsdp") if "fsdp" in spec else PartitionSpec()


def part_of(parameter: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
    """The shape of what a device keeps of a parameter along the axes that rows are split over."""
    shape = [
        n // place.mesh.shape["fsdp"] if axis == "fsdp" else n
        for n, axis in zip(parameter.shape, [*place.spec, *parameter.shape])
    ]
    return jax.ShapeDtypeStruct(tuple(shape), parameter.dtype)


def sum_gradient(gradient: jax.Array, place: NamedSharding) -> jax.Array:
    """The sum over the rows' devices, inside a map over their axes: of a parameter that is kept in parts, this device's part."""
    axes = [a for a in RULES["batch"] if place.mesh.shape[a] > 1]
    if gradient.size == 0:
        return gradient
    if "fsdp" in (spec := [*place.spec]):
        gradient = jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=spec.index("fsdp"), tiled=True)
        axes.remove("fsdp")
    return jax.lax.psum(gradient, axes) if axes else gradient


def optimizer_shardings(
    optimizer: optax.GradientTransformation, params: Mapping[str, Any], mesh: Mesh, strategy: Strategy
) -> Any:
    """Shardings of the optimiser's state over the trained `params` (names to arrays or ShapeDtypeStructs)."""
    shapes = {n: jax.ShapeDtypeStruct(p.shape, p.dtype) for n, p in params.items()}
    return optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, shapes),
        param_shardings(params, mesh, strategy),
        transform_non_params=lambda _: replicated(mesh),
    )


@contextlib.contextmanager
def over(mesh: Mesh | None) -> Iterator[None]:
    """Traces what is inside for this mesh: `constrain` holds there. None does nothing."""
    if mesh is None:
        yield
    else:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            yield


def constrain(x: jax.Array, logical: Sequence[str]) -> jax.Array:
    """Fixes the partition of an intermediate array inside `over(mesh)`; x itself elsewhere.

    Without it XLA may split activations by width over the fsdp axis, as the parameters are, and keep the batch whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    spec = spec_for(logical, x.shape, mesh, "activation", mesh.manual_axes)
    # A device's own rows are all that it sees inside a map over them.
    return x if mesh.manual_axes and not any(spec) else jax.lax.with_sharding_constraint(x, spec)


def constrain_batch(x: jax.Array) -> jax.Array:
    """`constrain` for an array whose first dimension is rows or pictures and whose others stay whole."""
    return constrain(x, ("batch", *("none",) * (x.ndim - 1)))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def process_rows(mesh: Mesh, rows: int) -> np.ndarray:
    """Numbers of a batch's rows that lie on this process's devices, int[N]; processes along the tensor axis hold the same ones."""
    held = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    return np.unique(np.concatenate([np.arange(rows)[index] for index in held]))


def is_replicated(mesh: Mesh) -> bool:
    """Whether any row of a batch lies on devices of several processes."""
    groups = mesh.devices.reshape(batch_ways(mesh), -1)
    return any(len({device.process_index for device in group}) > 1 for group in groups)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of this process's share of a batch, its `process_rows`: leading dimension [local rows] -> [all rows]."""
    split, ways = batch_sharding(mesh), batch_ways(mesh)
    own = process_rows(mesh, ways).tolist()  # of the parts that the batch is split into

    def put(value: np.ndarray) -> jax.Array:
        parts, size = dict(zip(own, np.split(value, len(own)))), len(value) // len(own)

        def part(index: Any) -> np.ndarray:
            return parts[(index[0].start or 0) // size]

        return jax.make_array_from_callback((size * ways, *value.shape[1:]), split, part)

    return {name: put(np.asarray(value)) for name, value in batch.items()}
