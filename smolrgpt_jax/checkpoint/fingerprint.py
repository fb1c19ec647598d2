"""A hash of arrays' bits, the same whatever devices they lie on, and whether they are all finite numbers."""

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def digest(value: Any) -> str:
    """A hash of what JSON can hold."""
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def params_fingerprint(params: Mapping[str, Any], place: jax.sharding.Sharding | None = None) -> str:
    """A hash of the names, shapes and bits of parameters, whatever devices they lie on; `place` as in `fingerprint`."""
    return fingerprint(params, place)[0]


def fingerprint(arrays: Mapping[str, Any], place: jax.sharding.Sharding | None = None) -> tuple[str, list[str]]:
    """A hash of the names, shapes and bits of arrays, and the names of those that hold NaN or infinity.

    place: where all processes can read the result of arrays on devices of several of them, which then call this together.
    """
    # A program per shape, of which there are few, compiles sooner than one for all. One after the other: several collective ones at
    # once can keep simulated devices waiting for each other.
    sums = {name: np.asarray(_summed(place)(value)) for name, value in arrays.items()}
    bits = [(name, arrays[name].shape, int(sums[name][0])) for name in sorted(sums)]
    return digest(bits), [name for name in sorted(sums) if sums[name][1]]


@functools.cache
def _summed(place: jax.sharding.Sharding | None) -> Any:
    return jax.jit(_sums, out_shardings=place)


def _sums(value: jax.Array) -> jax.Array:
    """The sum of all hashed bits and places modulo 2^32, as whole numbers have no order of summation, and how many numbers are not
    finite; uint32[2]."""
    value = value.astype(jnp.float32)
    places = jnp.zeros((), jnp.uint32)
    # Not a reshaped range: every device of a sharded array counts its own part only.
    for axis in range(value.ndim):
        stride = math.prod(value.shape[axis + 1 :]) % 2**32
        places += jax.lax.broadcasted_iota(jnp.uint32, value.shape, axis) * jnp.uint32(stride)
    bits = _mixed(jax.lax.bitcast_convert_type(value, jnp.uint32) ^ _mixed(places))
    return jnp.stack([jnp.sum(each, dtype=jnp.uint32) for each in (bits, ~jnp.isfinite(value))])


def _mixed(bits: jax.Array) -> jax.Array:
    """A hash of each uint32; every bit of it depends on every bit."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    return bits ^ (bits >> 15)
