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

SMALL = 2**18  # numbers; the host hashes them in some 5 ms, a program is compiled in 50


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
    # One after the other: several collective programs at once can keep simulated devices waiting for each other.
    sums = {name: _array_sums(value, place) for name, value in arrays.items()}
    bits = [(name, arrays[name].shape, int(sums[name][0])) for name in sorted(sums)]
    return digest(bits), [name for name in sorted(sums) if sums[name][1]]


def _array_sums(value: Any, place: jax.sharding.Sharding | None) -> np.ndarray:
    """`_sums` by the host where that takes less time than a program, which is compiled for every shape."""
    if value.size < SMALL and getattr(value, "is_fully_addressable", True):
        with np.errstate(over="ignore"):  # a sum modulo 2^32
            return _sums(np.asarray(value), np)
    return np.asarray(_summed(place)(value))


@functools.cache
def _summed(place: jax.sharding.Sharding | None) -> Any:
    return jax.jit(functools.partial(_sums, xp=jnp), out_shardings=place)


def _sums(value: Any, xp: Any) -> Any:
    """The sum of all hashed bits and places modulo 2^32, as whole numbers have no order of summation, and how many numbers are not
    finite; uint32[2], of NumPy or JAX, whichever `xp` is."""
    value = value.astype(xp.float32)
    places = xp.zeros(value.shape, xp.uint32)
    # Not a reshaped range: every device of a sharded array counts its own part only.
    for axis, length in enumerate(value.shape):
        stride = math.prod(value.shape[axis + 1 :]) % 2**32
        along = xp.arange(length, dtype=xp.uint32) * xp.uint32(stride)
        places = places + xp.expand_dims(along, [other for other in range(value.ndim) if other != axis])
    bits = _mixed(value.view(xp.uint32) ^ _mixed(places, xp), xp)
    return xp.stack([xp.sum(each, dtype=xp.uint32) for each in (bits, ~xp.isfinite(value))])


def _mixed(bits: Any, xp: Any) -> Any:
    """A hash of each uint32; every bit of it depends on every bit."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        bits = (bits ^ (bits >> shift)) * xp.uint32(factor)
    return bits ^ (bits >> 15)
