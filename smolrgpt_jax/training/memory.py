"""What a step keeps in memory, and what of a layer's forward pass is therefore computed again in the backward pass."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp

from smolrgpt_jax.config import Compute, RematPolicy, SmolRGPTConfig
from smolrgpt_jax.data.rows import RowShape
from smolrgpt_jax.models.attention import BLOCK

# Numbers that the compiler keeps of a decoder layer: of a token, for every feature of the width and of the MLP; and of a pair of tokens
# that attention computes, for every head. Fitted to compiled programs of several sizes (`tests/training/test_memory.py`).
_KEPT: dict[RematPolicy, tuple[float, float, float]] = {"none": (9, 4, 1), "dots": (4, 3, 0), "full": (1, 0, 0)}
_REFINED = 4  # maps of a picture's cells, of each kind
_LOGITS = 2.5  # copies
SHARE = 0.7  # of the memory that a step may take: the batches that wait, and the program itself, need some


def row_bytes(config: SmolRGPTConfig, shape: RowShape, compute: Compute, remat: RematPolicy) -> float:
    """Bytes that a step keeps for one packed row, estimated."""
    decoder, tokens, width = config.decoder, shape.tokens, jnp.dtype(compute.dtype).itemsize
    of_width, of_mlp, of_pairs = _KEPT[remat]
    layer = tokens * (of_width * decoder.width + of_mlp * decoder.mlp_width) * width
    # One layer at a time is there whole.
    seen = tokens * (tokens + min(tokens, BLOCK)) / 2
    pairs = (of_pairs * decoder.layers + 2) * decoder.heads * seen * 4
    cells = sum((config.mask_grid >> stage) ** 2 for stage in range(3)) if shape.regions else 0
    maps = shape.pictures * 2 * _REFINED * cells * decoder.width * width
    return decoder.layers * layer + pairs + maps + _LOGITS * (compute.answers or tokens) * decoder.padded_vocab_size * 4


def device_memory(device: Any) -> float:
    """Bytes of memory of a device: its own, 0 where it does not tell, or for a CPU its part of what the machine, or the container, has."""
    if device.platform != "cpu":
        # Not told where memory is taken piece by piece (XLA_PYTHON_CLIENT_ALLOCATOR=platform).
        return float((device.memory_stats() or {}).get("bytes_limit", 0))
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            machine = min(machine, int(file.read()))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return machine / jax.local_device_count()


def kept_bytes(parameters: Mapping[str, jax.ShapeDtypeStruct], trained: Callable[[Iterable[str]], list[str]]) -> int:
    """Bytes of all parameters, and of gradients and the optimiser's two moments of those that are trained; float32."""
    return 4 * sum(p.size for p in parameters.values()) + 12 * sum(parameters[n].size for n in trained(parameters))


def choose_remat(
    config: SmolRGPTConfig, shape: RowShape, rows: int, compute: Compute, kept: float, device: Any
) -> RematPolicy:
    """What is fastest on a device that computes `rows` rows at once and keeps `kept` bytes of parameters and the like.

    TPUs compute a layer again faster than they write it to memory and read it back (docs/lab/tpu.md); elsewhere the least is computed
    again for which the memory suffices.
    """
    if device.platform == "tpu":
        return "full"
    free = SHARE * device_memory(device) - kept
    fitting = (policy for policy in get_args(RematPolicy) if rows * row_bytes(config, shape, compute, policy) <= free)
    return next(fitting, "full")
