"""Stopping on a signal, at the same step on every process."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


@contextlib.contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them, so that the step under way is finished and saved."""
    received: list[int] = []
    handlers = {s: signal.signal(s, lambda number, _: received.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class StopTogether:
    """Whether any process wants to stop, with the same answer on all of them.

    Processes that stopped at different steps would wait for each other for ever. Every call starts a small reduction over all
    devices behind the step just dispatched and returns the result of the call before, so that nothing waits for it.
    """

    def __init__(self, mesh: Mesh):
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._local = len(mesh.local_devices)
        self._any = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._before: jax.Array | None = None

    def __call__(self, wanted: bool) -> bool:
        """Tells the others whether this process wants to stop; returns whether one of them wanted to at the last call.

        To be called equally often by all processes. One process alone is answered at once.
        """
        if jax.process_count() == 1:
            return wanted
        asked = jax.make_array_from_process_local_data(self._sharding, np.full(self._local, wanted, np.int32))
        before, self._before = self._before, self._any(asked)
        return before is not None and bool(before)
