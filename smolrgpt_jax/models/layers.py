"""Layers shared by the towers: dense, norms, and scanned stacks of blocks.

Parameters are float32; matrix products run in the dtype of their input; norms run in float32.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from smolrgpt_jax.config import Compute
from smolrgpt_jax.sharding import constrain_batch

# Parameters as a flat dict, "decoder/blocks/q_proj/kernel" -> array: a stage, a sharding rule or a conversion
# table is then a pattern over names.
Params = Mapping[str, jax.Array]
Shape = tuple[int, ...]
_NORM = re.compile(r"(norm\d?|ln\d)/\w+$")

Block = TypeVar("Block", bound=nnx.Module)

# What of a block's forward pass is kept for the backward pass: nothing ("full") or the products of its matrices ("dots").
_REMAT_POLICIES = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


def working_copy(params: Params, dtype: Any, flat: bool = False) -> Params:
    """The parameters in the dtype that products compute in, those of norms as they are: what a model over them computes is the same.

    `flat` leaves kernels of attention two dimensions a layer, as heads apart would fill half of a TPU's lanes, and puts those of
    keys and values beside those of the queries, which then are one product.
    """
    copy = {name: p if _NORM.search(name) else p.astype(dtype) for name, p in params.items()}
    if not flat:
        return copy
    for name, p in copy.items():
        if name.endswith("_proj/kernel") and p.ndim > 3:
            inputs = math.prod(p.shape[1:-1]) if "out_proj" in name else p.shape[1]
            copy[name] = p.reshape(p.shape[0], inputs, -1)
    for names in _joined(copy):
        parts = [copy[name] for name in names]
        copy |= {name: part[..., :0] for name, part in zip(names, parts)}
        copy[names[0]] = jnp.concatenate(parts, axis=-1)
    return copy


def as_parameters(copy: Params, like: Mapping[str, Any]) -> Params:
    """What was computed for a `working_copy`, in the shapes and dtypes of the parameters."""
    found = dict(copy)
    for names in _joined(copy):
        ends = np.cumsum([math.prod(like[name].shape[2:]) for name in names])[:-1]
        if copy[names[1]].size == 0:
            found |= zip(names, jnp.split(copy[names[0]], ends, axis=-1))
    return {name: found[name].reshape(p.shape).astype(p.dtype) for name, p in like.items()}


def _joined(params: Mapping[str, Any]) -> list[list[str]]:
    """The names of the projections that make one product."""
    return [
        [q.replace("q_proj", p) for p in ("q_proj", "k_proj", "v_proj")] for q in params if q.endswith("/q_proj/kernel")
    ]


def random(rngs: nnx.Rngs, shape: Shape, stddev: float) -> jax.Array:
    """Normal float32 numbers."""
    return nnx.initializers.normal(stddev)(rngs.params(), shape, jnp.float32)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """float[..., I] by float[I, O] -> float[..., O].

    On CPUs the kernel's gradient is taken as the kernel lies, of inputs and the result's gradient. JAX by itself takes it the other way
    round, for which XLA there turns the result's gradient over, the larger of both, number by number.
    """
    return x @ kernel


def _product_kept(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _product_gradients(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    (of_x,) = jax.vjp(lambda x: x @ kernel, x)[1](gradient)
    of_kernel = jax.lax.platform_dependent(
        x,
        gradient,
        cpu=lambda x, g: jnp.einsum("ri,ro->io", x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])),
        default=lambda x, g: jax.vjp(lambda kernel: x @ kernel, kernel)[1](g)[0],
    )
    return of_x, of_kernel


product.defvjp(_product_kept, _product_gradients)


@jax.checkpoint
def gelu(x: jax.Array) -> jax.Array:
    """GELU by the error function, computed in float32, float[...] -> the same; only x is kept for the gradient."""
    y = x.astype(jnp.float32)
    return (0.5 * y * (1.0 + jax.lax.erf(y * math.sqrt(0.5)))).astype(x.dtype)


class Dense(nnx.Module):
    """Linear map over the last `len(in_shape)` dimensions: float[..., *in_shape] -> float[..., *out_shape]."""

    def __init__(self, in_shape: Shape, out_shape: Shape, *, bias: bool, rngs: nnx.Rngs, init_scale: float = 1.0):
        # Variance 1 / number of inputs.
        stddev = 1.0 / math.sqrt(math.prod(in_shape))
        self.kernel = nnx.Param(init_scale * random(rngs, (*in_shape, *out_shape), stddev))
        self.bias = nnx.Param(jnp.zeros(out_shape)) if bias else None
        self.inputs, self.out_shape = len(in_shape), out_shape

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.flat(x.reshape(*x.shape[: x.ndim - self.inputs], -1)).reshape(
            *x.shape[: x.ndim - self.inputs], *self.out_shape
        )

    def flat(self, x: jax.Array) -> jax.Array:
        """The same with inputs and outputs in one dimension each: float[..., I] -> float[..., O]."""
        y = product(x, self.kernel[...].astype(x.dtype).reshape(x.shape[-1], -1))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype).reshape(-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def scaled_to_unit(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """x, float32[..., D], divided by the root mean square of its last dimension, times scale, float32[D].

    On CPUs the gradient's sums are products: XLA there takes ten to twenty times as long for a sum of x * y along a dimension of an
    array that has more than two. On TPUs they would take longer.
    """
    return _scaled_kept(x, scale, eps)[0]


def _scaled_kept(x: jax.Array, scale: jax.Array, eps: float) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    size = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps)
    return x * size * scale, (x, size, scale)


def _scaled_gradients(eps: float, kept: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    def by_products(x: jax.Array, size: jax.Array, scale: jax.Array, gradient: jax.Array) -> tuple[jax.Array, ...]:
        unit, of_unit, rows = x * size, gradient * scale, (-1, x.shape[-1])
        mean = jnp.einsum("...d,...d->...", unit, of_unit)[..., None] / x.shape[-1]
        of_scale = jnp.einsum("rd,rd->d", unit.reshape(rows), gradient.reshape(rows))
        return size * (of_unit - unit * mean), of_scale

    def by_sums(x: jax.Array, _: jax.Array, scale: jax.Array, gradient: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vjp(lambda x, scale: _scaled_kept(x, scale, eps)[0], x, scale)[1](gradient)

    return jax.lax.platform_dependent(*kept, gradient, cpu=by_products, default=by_sums)


scaled_to_unit.defvjp(_scaled_kept, _scaled_gradients)


class LayerNorm(nnx.Module):
    """LayerNorm over the last dimension, computed in float32, returned in the input's dtype."""

    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = scaled_to_unit(y - jnp.mean(y, -1, keepdims=True), self.scale[...], self.eps)
        return (y + self.bias[...]).astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last dimension, computed in float32, returned in the input's dtype."""

    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        return scaled_to_unit(x.astype(jnp.float32), self.scale[...], self.eps).astype(x.dtype)


def stack_blocks(make_block: Callable[[nnx.Rngs], Block], layers: int, rngs: nnx.Rngs) -> Block:
    """One block module whose every parameter has a leading `layers` dimension, each layer with its own key."""
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: make_block(nnx.Rngs(0))), graph=False)
    keys = jax.random.split(rngs.params(), layers)
    return nnx.merge(graphdef, jax.vmap(lambda key: nnx.split(make_block(nnx.Rngs(key)), graph=False)[1])(keys))


def run_blocks(
    blocks: Block,
    x: jax.Array,
    step: Callable[[Block, jax.Array], tuple[jax.Array, Any]],
    compute: Compute = Compute(),
    outputs: bool = False,
) -> tuple[jax.Array, Any]:
    """Runs `step(block, x) -> (x, output)` over stacked blocks, scanned and rematerialised as `compute` says.

    Outputs (a pytree), if there are any, come back stacked. x has the batch first, which stays split over the devices from layer to layer.
    """
    graphdef, state = nnx.split(blocks, graph=False)

    def body(x: jax.Array, layer_state: Any) -> tuple[jax.Array, Any]:
        x, output = step(nnx.merge(graphdef, layer_state), constrain_batch(x))
        return constrain_batch(x), output

    if compute.remat == "full" and compute.scan_layers and not outputs:
        return _run_in_place(lambda x, layer: body(x, layer)[0], x, state), None
    if compute.remat != "none":
        body = jax.checkpoint(body, policy=_REMAT_POLICIES[compute.remat], prevent_cse=not compute.scan_layers)
    if compute.scan_layers:
        return jax.lax.scan(body, x, state)
    stacked = []
    for i in range(len(jax.tree.leaves(state)[0])):
        x, output = body(x, jax.tree.map(lambda a: a[i], state))
        stacked.append(output)
    return x, jax.tree.map(lambda *a: jnp.stack(a), *stacked)


def _run_in_place(body: Callable[[jax.Array, Any], jax.Array], x: jax.Array, layers: Any) -> jax.Array:
    """A scan of `body` over stacked layers of which only the layers' inputs are kept for the backward pass.

    There every layer is computed again, and its gradient takes the place of its parameters: a second stack would have to be
    filled with zeros first, which on a TPU takes longer than writing the gradients.
    """
    count = len(jax.tree.leaves(layers)[0])

    @jax.custom_vjp
    def run(x: jax.Array, layers: Any) -> jax.Array:
        return jax.lax.scan(lambda x, layer: (body(x, layer), None), x, layers)[0]

    def forward(x: Any, layers: Any) -> tuple[jax.Array, Any]:
        # Frozen layers pass the gradient on and get none themselves; a residual's structure is what can tell the backward pass.
        trained = () if any(leaf.perturbed for leaf in jax.tree.leaves(layers)) else None
        x, layers = x.value, jax.tree.map(lambda leaf: leaf.value, layers)
        x, inputs = jax.lax.scan(lambda x, layer: (body(x, layer), x), x, layers)
        return x, (inputs, layers, trained)

    def backward(kept: Any, gradient: jax.Array) -> tuple[jax.Array, Any]:
        inputs, layers, trained = kept

        def step(i: jax.Array, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            (gradient, stack), at = carry, count - 1 - i
            given, layer = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, at, keepdims=False), (inputs, stack))
            with jax.named_scope("rematted"):
                if trained is None:
                    _, back = jax.vjp(lambda x: body(x, layer), given)
                else:
                    _, back = jax.vjp(body, given, layer)
            gradient, *found = back(gradient)
            for g in found:
                stack = jax.tree.map(lambda a, g: jax.lax.dynamic_update_index_in_dim(a, g, at, 0), stack, g)
            return gradient, stack

        gradient, found = jax.lax.fori_loop(0, count, step, (gradient, layers))
        return gradient, None if trained is None else found

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(x, layers)


# A model is a module `make(*sizes, rngs)` over flat parameters. Its structure and its parameters' shapes follow from the sizes.


@functools.lru_cache(maxsize=64)
def _abstract(make: Callable[..., nnx.Module], *sizes: Any) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
    graphdef, state = nnx.split(nnx.eval_shape(lambda: make(*sizes, nnx.Rngs(0))), graph=False)
    return graphdef, _flat(state)


def _flat(state: Any) -> dict[str, Any]:
    return {"/".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def abstract(make: Callable[..., nnx.Module], *sizes: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Names, shapes and dtypes of all parameters, without making any array."""
    return dict(_abstract(make, *sizes)[1])


def initial(make: Callable[..., nnx.Module], *sizes: Any, key: jax.Array) -> Params:
    """Random parameters from one key; float32."""
    return _flat(nnx.split(make(*sizes, nnx.Rngs(key)), graph=False)[1])


def bound(make: Callable[..., nnx.Module], *sizes: Any, params: Mapping[str, jax.Array]) -> Any:
    """The module over these parameters; cheap, made to be called inside jit. Raises KeyError on missing or unexpected names."""
    graphdef, expected = _abstract(make, *sizes)
    if params.keys() != expected.keys():
        raise KeyError(f"parameters differ from the configuration's: {sorted(params.keys() ^ expected.keys())}")
    state = nnx.from_flat_state([(tuple(name.split("/")), nnx.Param(value)) for name, value in sorted(params.items())])
    return nnx.merge(graphdef, state)
