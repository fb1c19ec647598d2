"""Says what a checkpoint is, from its headers alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convert.parts import PARTS, part_of, table
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.checkpoint.load import read_checkpoint
from smolrgpt_jax.checkpoint.mapping import TIED_NAMES, entries
from smolrgpt_jax.checkpoint.safetensors_folder import SINGLE_FILE
from smolrgpt_jax.checkpoint.streaming import ArrayInfo
from smolrgpt_jax.checkpoint.torch import read_folder
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.errors import CheckpointError


def describe(path: Path) -> str:
    """A text about a PyTorch folder, a checkpoint of ours or a training work directory; no weights are read.

    Raises CheckpointError for anything else, and for headers that do not fit the configuration.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    if path.is_file() or (path / "config.json").is_file():
        return _describe_torch(path)
    return _describe_ours(path)


def _describe_torch(path: Path) -> str:
    config, params, layout = read_folder(path, allow_nan=True)
    names = list(layout.files)
    tensors = [name for held in layout.files.values() for name, _ in held]
    lines = ["format: PyTorch folder of the release (safetensors)"]
    files = "one file" if names == [SINGLE_FILE] else f"{len(names)} files and an index"
    size = sum((path / n).stat().st_size for n in names)
    lines.append(f"layout: {files}, {size:,} bytes")
    lines.append(f"tensors: {len(tensors)}")
    if config.decoder.tied_head:
        lines.append(f"tied head: stored under {' and '.join(n for n in TIED_NAMES if n in tensors)}")
    else:
        lines.append("head: not tied to the token embedding")
    unused = sorted(n for n, metadata in layout.metadata.items() if metadata)
    lines += [f"metadata of {n}: {layout.metadata[n]}" for n in unused[:1]]
    lines.append(f"tokenizer: {'present' if (path / 'tokenizer.json').is_file() else 'not there'}")
    return "\n".join([*lines, *_sizes(config), "", _parameters(config, params.infos)])


def _describe_ours(path: Path) -> str:
    found = checkpoints.find_checkpoint(path)
    meta = checkpoints.read_meta(found)
    infos = read_checkpoint(found).params.infos
    lines = []
    if meta.run is None:
        lines.append("format: checkpoint of ours (Orbax), no training state")
    else:
        lines.append(f"format: training checkpoint (Orbax), {found}")
        lines.append(f"stage: {meta.run['stage']}, step {meta.run['step']} of {meta.run['steps']}")
    lines.append(f"arrays: {len(infos)}, layers stacked")
    if meta.layout is None:
        lines.append("imported from PyTorch: no")
    else:
        files = len(meta.layout.files)
        tensors = sum(map(len, meta.layout.files.values()))
        lines.append(f"imported from PyTorch: {tensors} tensors in {files} file{'s' if files > 1 else ''}")
    lines.append(f"tokenizer: {'not there' if meta.tokenizer is None else 'present'}")
    lines += [*_sizes(meta.config), "", _parameters(meta.config, infos)]
    steps = found.parent.glob("*") if meta.run is not None else ()
    rows = [
        _step_row(checkpoints.read_meta(step).run or {}, step)
        for step in sorted((s for s in steps if s.name.isdigit()), key=lambda s: int(s.name))
    ]
    if rows:
        lines += ["", table(["step", "saved", "loss", "validation loss"], rows)]
    return "\n".join(lines)


def _step_row(run: Mapping[str, Any], folder: Path) -> list[str]:
    metrics = run.get("metrics") or {}
    saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(folder.stat().st_mtime))
    shown = [f"{metrics[n]:.4f}" if n in metrics else "-" for n in ("loss", "validation_loss")]
    return [folder.name, saved, *shown]


def _sizes(config: SmolRGPTConfig) -> list[str]:
    v, d = config.vision, config.decoder
    return [
        f"vision encoder: {v.layers} blocks of width {v.width}, {v.heads} heads, MLP {v.mlp_width}, "
        f"pictures {v.image_size}x{v.image_size} in patches of {v.patch_size}",
        f"decoder: {d.layers} blocks of width {d.width}, {d.heads} query and {d.kv_heads} key-value heads, MLP {d.mlp_width}, "
        f"{d.vocab_size} tokens",
        f"image tokens: {config.image_tokens}; region map: {config.mask_grid}x{config.mask_grid}",
    ]


def _parameters(config: SmolRGPTConfig, infos: Mapping[str, ArrayInfo]) -> str:
    """Parameters per part as the release counts them, and with the vocabulary's padding."""
    counted: Counter[str] = Counter()
    for entry in entries(config):
        size = 1
        for side in entry.torch_shape:
            size *= side
        counted[part_of(entry.jax)] += size
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
