"""Whole-folder conversion between the PyTorch release's checkpoints and ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smolrgpt_jax.data.text import ChatTokenizer
from smolrgpt_jax.data.tokenizer_files import tokenizer_files
from smolrgpt_jax.torch_format.folder import (
    CheckpointError,
    read_folder,
    with_dtype,
    write_folder,
    default_layout,
)
from smolrgpt_jax.training import checkpoints

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def torch_to_jax(
    source: Path, destination: Path, *, tokenizer: str | None = None, allow_nan: bool = False
) -> dict[str, int]:
    """Converts a PyTorch folder into one of our checkpoints; returns {"tensors", "parameters"}.

    The tokenizer comes along if the folder holds one or `tokenizer` names one (folder or hub id). Raises CheckpointError, with
    the destination untouched.
    """
    if destination.exists():
        raise CheckpointError(f"{destination} exists already; nothing was written")
    config, params, layout = read_folder(source, allow_nan=allow_nan)
    if tokenizer is None and (source / TOKENIZER_FILES[0]).is_file():
        tokenizer = str(source)
    files = None
    if tokenizer is not None:
        loaded = ChatTokenizer.load(tokenizer)
        if loaded.vocab_size != config.decoder.vocab_size:
            raise CheckpointError(
                f"tokenizer {tokenizer} has {loaded.vocab_size} tokens, {source} {config.decoder.vocab_size}"
            )
        files = tokenizer_files(loaded)
    checkpoints.save(destination, params, checkpoints.Meta(config, files, layout))
    return {
        "tensors": sum(map(len, layout.files.values())),
        "parameters": sum(int(np.prod(p.shape)) for p in params.values()),
    }


def jax_to_torch(source: Path, destination: Path, *, dtype: str | None = None) -> dict[str, int]:
    """Converts one of our checkpoints into a PyTorch folder; returns {"tensors"}.

    An imported checkpoint gets back its own tensor order, dtypes and metadata, unless `dtype` ("F32", "F16", "BF16") asks for
    another. Raises CheckpointError, with the destination untouched.
    """
    if destination.exists():
        raise CheckpointError(f"{destination} exists already; nothing was written")
    meta = checkpoints.read_meta(source)
    layout = default_layout(meta.config) if meta.layout is None else meta.layout
    if dtype is not None:
        layout = with_dtype(layout, dtype)
    write_folder(destination, meta.config, checkpoints.load_params(source), layout, tokenizer=meta.tokenizer)
    return {"tensors": sum(map(len, layout.files.values()))}


def verify(torch_folder: Path, checkpoint: Path) -> list[str]:
    """Compares every parameter of a PyTorch folder with our checkpoint's; returns one line per difference, none if equal."""
    config, ours, _ = read_folder(torch_folder, allow_nan=True)
    meta = checkpoints.read_meta(checkpoint)
    theirs = checkpoints.load_params(checkpoint)
    problems = []
    if (config.vision, config.decoder, config.shuffle_factor) != (
        meta.config.vision,
        meta.config.decoder,
        meta.config.shuffle_factor,
    ):
        problems.append("the configurations describe different models")
    problems += [f"{n}: only in {torch_folder}" for n in ours.keys() - theirs.keys()]
    problems += [f"{n}: only in {checkpoint}" for n in theirs.keys() - ours.keys()]
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = ours[name], theirs[name]
        if a.shape != b.shape:
            problems.append(f"{name}: shape {a.shape} against {b.shape}")
        elif not np.array_equal(a, b, equal_nan=True):
            problems.append(
                f"{name}: {int((a != b).sum())} of {a.size} values differ, by at most {np.abs(a.astype(np.float64) - b.astype(np.float64)).max():.3g}"
            )
    return problems
