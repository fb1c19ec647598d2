"""Start checkpoints: what another checkpoint holds, with some parts of the model drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from smolrgpt_jax.checkpoint.load import read_checkpoint, tokenizer_files
from smolrgpt_jax.checkpoint.orbax import Meta, save
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.models.smolrgpt import abstract_params, init_params

BETWEEN = ("rgb_connector", "depth_connector", "rgb_refiner", "depth_refiner")  # encoder and decoder


def draw(config: SmolRGPTConfig, parts: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """Random parameters whose names begin with a part's, float32; raises CheckpointError for a part that the model does not have."""
    names = [name for name in abstract_params(config) if any(f"{name}/".startswith(f"{part}/") for part in parts)]
    missing = [part for part in parts if not any(f"{name}/".startswith(f"{part}/") for name in names)]
    if missing:
        raise CheckpointError(f"the model has no part {', '.join(sorted(missing))}")
    # Compiled as a whole, so that nothing else is drawn.
    drawn = jax.jit(lambda key: {n: v for n, v in init_params(config, key).items() if n in names})
    return {name: np.asarray(value) for name, value in drawn(jax.random.key(seed)).items()}


def write_start(source: str | Path, destination: str | Path, parts: Sequence[str] = BETWEEN, seed: int = 0) -> None:
    """Writes the checkpoint `source`, of any kind, as the new folder `destination`, with `parts` drawn from the seed.

    Raises CheckpointError if `destination` exists, `source` cannot be read or the model has no such part.
    """
    read = read_checkpoint(source)
    params = {**read.params, **draw(read.config, parts, seed)}
    tokenizer = None if read.tokenizer is None else tokenizer_files(read.tokenizer)
    save(destination, params, Meta(read.config, tokenizer, read.layout, read.run))
