"""Says what a checkpoint is, from its headers alone."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax import ShapeDtypeStruct

from convert.compare import PARTS, part_of, table
from smolrgpt_jax.checkpoint import orbax
from smolrgpt_jax.checkpoint.load import Checkpoint, read_checkpoint
from smolrgpt_jax.checkpoint.mapping import TIED_NAMES, entries
from smolrgpt_jax.checkpoint.safetensors_folder import CONFIG_FILE, SINGLE_FILE
from smolrgpt_jax.config import SmolRGPTConfig


def describe(path: Path) -> str:
    """A text about a PyTorch folder, a checkpoint of ours or a training work directory; no weights are read.

    Raises CheckpointError for anything else, and for headers that do not fit the configuration.
    """
    read = read_checkpoint(path, allow_nan=True)
    lines = _describe_torch(read) if (path / CONFIG_FILE).is_file() else _describe_ours(read)
    lines.append(f"tokenizer: {'not there' if read.tokenizer is None else 'present'}")
    v, d = read.config.vision, read.config.decoder
    lines += [
        f"vision encoder: {v.layers} blocks of width {v.width}, {v.heads} heads, MLP {v.mlp_width}, "
        f"pictures {v.image_size}x{v.image_size} in patches of {v.patch_size}",
        f"decoder: {d.layers} blocks of width {d.width}, {d.heads} query and {d.kv_heads} key-value heads, MLP {d.mlp_width}, "
        f"{d.vocab_size} tokens",
        f"image tokens: {read.config.image_tokens}; region map: {read.config.mask_grid}x{read.config.mask_grid}",
        "",
        _parameters(read.config, read.params.infos),
    ]
    if read.run is not None:
        steps = sorted(
            (step for step in read.source.parent.glob("*") if step.name.isdigit()), key=lambda s: int(s.name)
        )
        rows = [_step_row(orbax.read_meta(step).run or {}, step) for step in steps]
        lines += ["", table(["step", "saved", "loss", "validation loss"], rows)]
    return "\n".join(lines)


def _describe_torch(read: Checkpoint) -> list[str]:
    names = list(read.layout.files)
    tensors = [name for held in read.layout.files.values() for name, _ in held]
    files = "one file" if names == [SINGLE_FILE] else f"{len(names)} files and an index"
    size = sum((read.source / n).stat().st_size for n in names)
    head = "head: not tied to the token embedding"
    if read.config.decoder.tied_head:
        head = f"tied head: stored under {' and '.join(n for n in TIED_NAMES if n in tensors)}"
    unused = sorted(n for n, metadata in read.layout.metadata.items() if metadata)
    return [
        "format: PyTorch folder of the release (safetensors)",
        f"layout: {files}, {size:,} bytes",
        f"tensors: {len(tensors)}",
        head,
        *(f"metadata of {n}: {read.layout.metadata[n]}" for n in unused[:1]),
    ]


def _describe_ours(read: Checkpoint) -> list[str]:
    lines = ["format: checkpoint of ours (Orbax), no training state"]
    if read.run is not None:
        lines = [
            f"format: training checkpoint (Orbax), {read.source}",
            f"stage: {read.run['stage']}, step {read.run['step']} of {read.run['steps']}",
        ]
    imported = "no"
    if read.layout is not None:
        files, tensors = len(read.layout.files), sum(map(len, read.layout.files.values()))
        imported = f"{tensors} tensors in {files} file{'s' if files > 1 else ''}"
    return [*lines, f"arrays: {len(read.params)}, layers stacked", f"imported from PyTorch: {imported}"]


def _step_row(run: Mapping[str, Any], folder: Path) -> list[str]:
    metrics = run.get("metrics") or {}
    saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(folder.stat().st_mtime))
    shown = [f"{metrics[n]:.4f}" if n in metrics else "-" for n in ("loss", "validation_loss")]
    return [folder.name, saved, *shown]


def _parameters(config: SmolRGPTConfig, infos: Mapping[str, ShapeDtypeStruct]) -> str:
    """Parameters per part as the release counts them, and with the vocabulary's padding."""
    counted: Counter[str] = Counter()
    for entry in entries(config):
        counted[part_of(entry.jax)] += math.prod(entry.torch_shape)
    padded: Counter[str] = Counter()
    dtypes: dict[str, set[str]] = {}
    for name, info in infos.items():
        padded[part_of(name)] += info.size
        dtypes.setdefault(part_of(name), set()).add(info.dtype.name)
    rows = [
        [part, f"{counted[part]:,}", f"{padded[part]:,}", "+".join(sorted(dtypes[part]))]
        for part in [*PARTS, *sorted(dtypes.keys() - PARTS)]
        if part in dtypes
    ]
    every = "+".join(sorted(set().union(*dtypes.values())))
    rows.append(["total", f"{sum(counted.values()):,}", f"{sum(padded.values()):,}", every])
    return table(["part", "parameters", "with vocabulary padding", "dtype"], rows)
