"""Whole-folder conversion between the PyTorch release's checkpoints and ours."""

from __future__ import annotations

from pathlib import Path

from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.checkpoint.load import read_checkpoint, tokenizer_files
from smolrgpt_jax.checkpoint.torch import default_layout, read_folder, with_dtype, with_shards, write_folder
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.errors import CheckpointError


def fitting_tokenizer(name: str, config: SmolRGPTConfig, model: str) -> dict[str, str]:
    """The files of a tokenizer (folder or hub id), {name: text}; raises CheckpointError if its size is not the model's."""
    loaded = ChatTokenizer.load(name)
    if loaded.vocab_size != config.decoder.vocab_size:
        raise CheckpointError(f"tokenizer {name} has {loaded.vocab_size} tokens, {model} {config.decoder.vocab_size}")
    return tokenizer_files(loaded)


def torch_to_jax(
    source: Path, destination: Path, *, tokenizer: str | None = None, allow_nan: bool = False
) -> dict[str, int]:
    """Converts a PyTorch folder into one of our checkpoints, tensor by tensor; returns {"tensors", "parameters"}.

    The tokenizer comes along if the folder holds one or `tokenizer` names one (folder or hub id). Raises CheckpointError, with
    the destination untouched.
    """
    if destination.exists():
        raise CheckpointError(f"{destination} exists already; nothing was written")
    config, params, layout = read_folder(source, allow_nan=allow_nan)
    if tokenizer is None and (source / "tokenizer.json").is_file():
        tokenizer = str(source)
    files = None if tokenizer is None else fitting_tokenizer(tokenizer, config, str(source))
    checkpoints.save(destination, params, checkpoints.Meta(config, files, layout))
    return {
        "tensors": sum(map(len, layout.files.values())),
        "parameters": sum(info.size for info in params.infos.values()),
    }


def jax_to_torch(
    source: Path,
    destination: Path,
    *,
    dtype: str | None = None,
    max_shard_bytes: int | None = None,
    allow_nan: bool = False,
) -> dict[str, int]:
    """Converts one of our checkpoints into a PyTorch folder, tensor by tensor; returns {"tensors", "files"}.

    An imported checkpoint gets back its own tensor order, dtypes, files and metadata, unless `dtype` ("F32", "F16", "BF16") or
    `max_shard_bytes` asks for others. The chat format of a trained one says how long its answers are. Raises CheckpointError,
    with the destination untouched.
    """
    if destination.exists():
        raise CheckpointError(f"{destination} exists already; nothing was written")
    # Before anything is taken for a PyTorch folder.
    read = read_checkpoint(checkpoints.find_checkpoint(source))
    layout = default_layout(read.config) if read.layout is None else read.layout
    if dtype is not None:
        layout = with_dtype(layout, dtype)
    if max_shard_bytes is not None:
        layout = with_shards(layout, read.config, max_shard_bytes)
    tokenizer = None if read.tokenizer is None else tokenizer_files(read.tokenizer)
    write_folder(destination, read.config, read.params, layout, tokenizer=tokenizer, allow_nan=allow_nan)
    return {"tensors": sum(map(len, layout.files.values())), "files": len(layout.files)}
