"""A model on all devices of this process, in a run of one or several processes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model


def load_model(checkpoint: str | Path, dtype: str) -> Model:
    """Loads a checkpoint; with several devices each of them answers a part of every batch.

    Raises:
      CheckpointError: it cannot be read, see ``smolrgpt_jax.load``.
    """
    # Imported late: neither --help nor a mistyped path should wait for JAX.
    import jax

    import smolrgpt_jax
    from smolrgpt_jax import sharding

    devices = jax.local_devices()
    mesh = sharding.make_mesh(devices=devices) if len(devices) > 1 else None
    return smolrgpt_jax.load(checkpoint, compute_dtype=dtype, mesh=mesh)


def is_first_process() -> bool:
    """Whether this process writes the results; the others only answer."""
    import jax

    return jax.process_index() == 0
