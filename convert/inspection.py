"""Looks into checkpoints: says what one is, from its headers alone, and compares a PyTorch folder with one of ours."""

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from jax import ShapeDtypeStruct

from convert.torch_model import left_padded, load_torch
from smolrgpt_jax.checkpoint import orbax
from smolrgpt_jax.checkpoint.load import Checkpoint, read_checkpoint
from smolrgpt_jax.checkpoint.mapping import INV_FREQ, RULES, TIED_NAMES, StreamedParams, entries, read_ahead
from smolrgpt_jax.checkpoint.safetensors_folder import CONFIG_FILE, SINGLE_FILE
from smolrgpt_jax.checkpoint.torch import read_folder
from smolrgpt_jax.config import SmolRGPTConfig

OUTPUT_TOLERANCE = 1e-4  # of the largest value of an output; float32 products in another order


def part_of(name: str) -> str:
    """The part a parameter belongs to: its first folder, or what stands in the decoder's."""
    first, _, rest = name.partition("/")
    words = f"decoder {rest.removeprefix('token_').partition('/')[0]}" if first == "decoder" else first
    return words.replace("_", " ").replace("rgb", "RGB")


PARTS = list(dict.fromkeys(part_of(rule.jax) for rule in RULES))


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """Rows as aligned text: the first column to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))).rstrip()
        for line in lines
    )


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
        _parameters(read.config, cast(StreamedParams, read.params).infos),
    ]
    if read.run is not None:
        steps, rows = [step for step in read.source.parent.glob("*") if step.name.isdigit()], []
        for step in sorted(steps, key=lambda step: int(step.name)):
            saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(step.stat().st_mtime))
            metrics = (orbax.read_meta(step).run or {}).get("metrics") or {}
            losses = [metrics.get(name) for name in ("loss", "validation_loss")]
            shown = [f"{loss:.4f}" if isinstance(loss, float | int) else "-" for loss in losses]
            rows.append([step.name, saved, *shown])
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
        stage, step, steps = (read.run.get(name) for name in ("stage", "step", "steps"))
        lines = [f"format: training checkpoint (Orbax), {read.source}", f"stage: {stage}, step {step} of {steps}"]
    imported = "no"
    if read.layout is not None:
        files, tensors = len(read.layout.files), sum(map(len, read.layout.files.values()))
        imported = f"{tensors} tensors in {files} file{'s' if files > 1 else ''}"
    return [*lines, f"arrays: {len(read.params)}, layers stacked", f"imported from PyTorch: {imported}"]


def _parameters(config: SmolRGPTConfig, infos: Mapping[str, ShapeDtypeStruct]) -> str:
    """Parameters per part as the release counts them, and with the vocabulary's padding."""
    counted, padded, dtypes = Counter(), Counter(), {}
    for entry in entries(config):
        counted[part_of(entry.jax)] += math.prod(entry.torch_shape)
    for name, info in infos.items():
        padded[part_of(name)] += info.size
        dtypes.setdefault(part_of(name), set()).add(info.dtype.name)
    parts = [part for part in [*PARTS, *sorted(dtypes.keys() - PARTS)] if part in dtypes]
    rows = [[part, f"{counted[part]:,}", f"{padded[part]:,}", "+".join(sorted(dtypes[part]))] for part in parts]
    every = "+".join(sorted(set().union(*dtypes.values())))
    rows.append(["total", f"{sum(counted.values()):,}", f"{sum(padded.values()):,}", every])
    return table(["part", "parameters", "with vocabulary padding", "dtype"], rows)


@dataclass
class PartComparison:
    """What was found in one part; dtypes and hashes of the PyTorch folder first, of our checkpoint second."""

    tensors: int = 0
    parameters: int = 0
    difference: float = 0.0
    dtypes: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))
    hashes: tuple = field(default_factory=lambda: (hashlib.sha256(), hashlib.sha256()))

    def row(self, part: str) -> list[str]:
        dtypes = ["+".join(sorted(d)) for d in self.dtypes]
        prints = [h.hexdigest()[:16] for h in self.hashes]
        shown = dtypes[0] if dtypes[0] == dtypes[1] else " / ".join(dtypes)
        return [part, str(self.tensors), f"{self.parameters:,}", shown, f"{self.difference:.3g}", *prints]


@dataclass(frozen=True)
class Comparison:
    """parts: {part: PartComparison}; problems: one line per difference, none if everything is equal."""

    parts: dict[str, PartComparison]
    problems: list[str]

    def table(self) -> str:
        header = ["part", "tensors", "parameters", "dtype", "max |diff|", "torch sha256", "jax sha256"]
        return table(header, [p.row(name) for name, p in self.parts.items() if p.tensors])


def compare_tensors(torch_folder: Path, checkpoint: Path) -> Comparison:
    """Compares every parameter, layer by layer, without holding either model in memory.

    Fingerprints are the sha256 of a part's numbers as little-endian float32 in our order of names, layers and dimensions,
    without the vocabulary's padding. Raises CheckpointError for an unreadable folder.
    """
    config, ours, layout = read_folder(torch_folder, allow_nan=True)
    meta, theirs = orbax.read_meta(checkpoint), orbax.load_params(checkpoint)
    problems = []
    if any(getattr(config, n) != getattr(meta.config, n) for n in ("vision", "decoder", "shuffle_factor")):
        problems.append("the configurations describe different models")
    problems += [f"{n}: only in {torch_folder}" for n in sorted(ours.keys() - theirs.keys())]
    problems += [f"{n}: only in {checkpoint}" for n in sorted(theirs.keys() - ours.keys())]
    parts = {part: PartComparison() for part in PARTS}
    for name in sorted(ours.keys() & theirs.keys()):
        shapes = ours.infos[name].shape, theirs.infos[name].shape
        if shapes[0] != shapes[1]:
            problems.append(f"{name}: shape {shapes[0]} against {shapes[1]}")
            continue
        part, pieces = parts.setdefault(part_of(name), PartComparison()), ours.pieces(name)
        rows = config.decoder.vocab_size if name in ("decoder/token_embedding", "decoder/head") else None
        size, different, largest = 0, 0, 0.0
        for (_, a), (_, b) in zip(read_ahead(ours, pieces), read_ahead(theirs, pieces)):
            a, b = a[:rows], b[:rows]
            size += a.size
            for dtypes, hashed, array in zip(part.dtypes, part.hashes, (a, b)):
                dtypes.add(array.dtype.name)
                hashed.update(np.ascontiguousarray(array, np.dtype("<f4")).reshape(-1).view(np.uint8))
            if np.array_equal(a, b, equal_nan=True):
                continue
            a, b = a.astype(np.float64), b.astype(np.float64)
            unequal = (a != b) & ~(np.isnan(a) & np.isnan(b))
            different += int(unequal.sum())
            with np.errstate(invalid="ignore"):
                # A number against NaN differs by more than any number.
                largest = max(largest, float(np.nan_to_num(np.abs(a - b)[unequal], nan=np.inf, posinf=np.inf).max()))
        part.tensors += len(pieces)
        part.parameters += size
        part.difference = max(part.difference, largest)
        if different:
            problems.append(f"{name}: {different} of {size} values differ, by at most {largest:.3g}")
    if meta.layout is not None and meta.layout.buffers != layout.buffers:
        problems.append(f"{INV_FREQ}: the buffer that came with the checkpoint is another")
    return Comparison(parts, problems)


def compare_outputs(torch_folder: Path, checkpoint: Path, seed: int = 0) -> tuple[str, list[str]]:
    """Runs both models in float32 on the same random conversation, pictures and masks.

    Returns a table of the largest difference per output, and one line per output that differs by more than OUTPUT_TOLERANCE of its
    largest value. Raises ImportError without PyTorch, CheckpointError for an unreadable folder.
    """
    import jax

    from smolrgpt_jax.model import load

    theirs = load_torch(torch_folder)
    ours = load(checkpoint)
    inputs = _random_inputs(ours.config, np.random.default_rng(seed))
    expected = theirs.forward(*inputs)
    with jax.default_matmul_precision("highest"):
        found = ours.forward(*inputs)
    rows, problems = [], []
    for name in sorted(expected):
        want, has = expected[name], found[name]
        largest = float(np.abs(want).max())
        if want.shape[:2] == inputs[1].shape:  # per token: what a padding token gives means nothing
            want, has = want[inputs[1] != 0], has[inputs[1] != 0]
        difference = float(np.abs(want - has.reshape(want.shape)).max())
        rows.append([name, str(list(expected[name].shape)), f"{largest:.4g}", f"{difference:.3g}"])
        if not difference <= OUTPUT_TOLERANCE * largest:
            problems.append(f"output {name} differs by {difference:.3g}, its largest value is {largest:.4g}")
    return table(["output", "shape", "max |value|", "max |diff|"], rows), problems


def _random_inputs(config, rng: np.random.Generator) -> tuple:
    """Two left-padded conversations with their pictures: input_ids, attention_mask int32[2, S]; images, depths
    float32[2, H, W, 3]; masks, one [H, W, R] per row."""
    size, image_id = config.vision.image_size, config.decoder.vocab_size - 3
    rows, masks = [], []
    for regions, words in ((2, 12), (3, 20)):
        text = rng.integers(3, image_id, words).tolist()
        pairs = [image_id + 1, image_id + 2] * regions
        rows.append(np.array([1, *[image_id] * config.image_tokens, *text, *pairs, *text], np.int32))
        corners = rng.integers(0, size // 2, (regions, 2))
        mask = np.zeros((size, size, regions), bool)
        for region, (top, left) in enumerate(corners):
            mask[top : top + size // 3, left : left + size // 2, region] = True
        masks.append(mask)
    images, depths = (rng.uniform(-1, 1, (len(rows), size, size, 3)).astype(np.float32) for _ in range(2))
    return *left_padded(rows, pad=2), images, depths, masks
