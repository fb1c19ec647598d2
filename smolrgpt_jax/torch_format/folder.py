"""Reading and writing a PyTorch checkpoint folder: config.json and model.safetensors, one file or sharded with an index.

Reading is strict: every missing, unexpected or wrongly shaped tensor is reported in one error. What our parameters
do not hold (config fields, tensor order, dtypes, metadata, the rotary buffer's exact bits) is kept in a `TorchLayout`,
so that writing gives back the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from smolrgpt_jax.config import ConfigError, SmolRGPTConfig, config_from_torch, config_to_torch
from smolrgpt_jax.torch_format.mapping import INV_FREQ, TIED_NAMES, Entry, entries, rotary_buffer

DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_LISTED = 40


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message names the file and the tensors."""


@dataclass(frozen=True)
class TorchLayout:
    """What a PyTorch folder holds beside the numbers of its parameters.

    tensors: (name, dtype as in safetensors) in file order, per file; metadata: the safetensors metadata, per file;
    buffers: exact values of the rotary buffer; index_metadata: of a sharded checkpoint's index, else None.
    """

    config: dict[str, Any]
    files: dict[str, list[tuple[str, str]]]
    metadata: dict[str, dict[str, str] | None]
    buffers: dict[str, list[float]] = field(default_factory=dict)
    index_metadata: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TorchLayout:
        files = {f: [(n, d) for n, d in tensors] for f, tensors in values["files"].items()}
        return cls(**{**values, "files": files})


def is_torch_folder(path: Path) -> bool:
    """Whether the folder holds config.json beside safetensors files."""
    return (path / "config.json").is_file() and any(
        (path / name).is_file() for name in (SINGLE_FILE, INDEX_FILE)
    )


def read_config(folder: Path) -> tuple[SmolRGPTConfig, dict[str, Any]]:
    """The model's configuration and config.json's content as it stands; raises CheckpointError."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return config_from_torch(values), values
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file; a PyTorch checkpoint is a folder with config.json and {SINGLE_FILE}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _weight_files(folder: Path) -> tuple[list[str], dict[str, Any] | None]:
    if (folder / SINGLE_FILE).is_file():
        return [SINGLE_FILE], None
    index = folder / INDEX_FILE
    if not index.is_file():
        pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*"))
        hint = (
            f"; {pickles[0]} is a pickle, which is never loaded: save it as safetensors first"
            if pickles
            else ""
        )
        raise CheckpointError(f"{folder}: neither {SINGLE_FILE} nor {INDEX_FILE} is there{hint}")
    content = json.loads(index.read_text(encoding="utf-8"))
    names = sorted(set(content["weight_map"].values()))
    outside = [n for n in names if Path(n).name != n]
    if outside:
        raise CheckpointError(f"{index} names a file outside its folder: {outside[0]!r}")
    return names, content.get("metadata", {})


def read_folder(
    folder: Path, *, allow_nan: bool = False
) -> tuple[SmolRGPTConfig, dict[str, np.ndarray], TorchLayout]:
    """Reads a PyTorch checkpoint folder.

    Returns the configuration, our parameters (stacked over layers, in the files' dtypes; float32 where layers differ)
    and the layout. Raises CheckpointError for an unreadable file, for missing, unexpected or wrongly shaped tensors (all
    listed at once), for a rotary buffer that contradicts the configuration, for two different heads in a tied model,
    and for NaN or infinite weights unless `allow_nan`.
    """
    config, values = read_config(folder)
    names, index_metadata = _weight_files(folder)
    expected = {e.torch: e for e in entries(config)}
    layout = TorchLayout(values, {}, {}, index_metadata=index_metadata)
    params: dict[str, np.ndarray] = {}
    problems: list[str] = []
    seen: set[str] = set()
    for name in names:
        try:
            with safe_open(folder / name, framework="numpy") as file:
                layout.metadata[name] = file.metadata()
                layout.files[name] = []
                for tensor_name in file.offset_keys():
                    part = file.get_slice(tensor_name)
                    layout.files[name].append((tensor_name, part.get_dtype()))
                    seen.add(tensor_name)
                    _place(
                        tensor_name,
                        tuple(part.get_shape()),
                        part.get_dtype(),
                        file,
                        config,
                        expected,
                        params,
                        layout,
                        problems,
                        allow_nan,
                    )
        except FileNotFoundError:
            raise CheckpointError(f"{folder / name}: no such file, though {INDEX_FILE} names it") from None
        except SafetensorError as error:
            raise CheckpointError(
                f"{folder / name} is not a readable safetensors file (truncated?): {error}"
            ) from error
    if config.decoder.tied_head and not seen & set(TIED_NAMES):
        problems.append(f"missing {' or '.join(TIED_NAMES)}")
    problems += [
        f"missing {n} {list(e.torch_shape)}"
        for n, e in expected.items()
        if n not in seen and not (config.decoder.tied_head and n in TIED_NAMES)
    ]
    if problems:
        more = f"; and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        raise CheckpointError(
            f"{folder} does not fit its config.json: {'; '.join(problems[:MAX_LISTED])}{more}"
        )
    return config, params, layout


def _place(
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    file: Any,
    config: SmolRGPTConfig,
    expected: Mapping[str, Entry],
    params: dict[str, np.ndarray],
    layout: TorchLayout,
    problems: list[str],
    allow_nan: bool,
) -> None:
    """Puts one tensor where it belongs, or notes what is wrong with it."""
    if dtype not in DTYPES:
        problems.append(f"{name} has dtype {dtype}, only {', '.join(DTYPES)} are read")
        return
    if name == INV_FREQ:
        buffer = file.get_tensor(name)
        want = rotary_buffer(config)
        if buffer.shape != want.shape or not np.allclose(
            buffer.astype(np.float32), want, rtol=1e-2 if dtype != "F32" else 1e-5
        ):
            problems.append(f"{name} contradicts lm_re_base and the head size of config.json")
        layout.buffers[name] = buffer.astype(np.float64).tolist()
        return
    tied = config.decoder.tied_head and name in TIED_NAMES
    entry = expected.get(TIED_NAMES[1] if tied else name)
    if entry is None:
        problems.append(f"unexpected {name} {list(shape)}")
        return
    if shape != entry.torch_shape:
        problems.append(f"{name} has shape {list(shape)}, config.json asks for {list(entry.torch_shape)}")
        return
    tensor = file.get_tensor(name)
    if not allow_nan and not np.isfinite(tensor.astype(np.float32, copy=False)).all():
        problems.append(f"{name} holds NaN or infinite values")
        return
    array = entry.to_jax(tensor)
    if entry.layer is None:
        if tied and entry.jax in params and not np.array_equal(params[entry.jax], array, equal_nan=True):
            problems.append(f"{' and '.join(TIED_NAMES)} differ though config.json ties them")
        params[entry.jax] = array
        return
    layers = config.vision.layers if entry.jax.startswith("vision_encoder") else config.decoder.layers
    if entry.jax not in params:
        params[entry.jax] = np.empty((layers, *entry.jax_shape), tensor.dtype)
    elif params[entry.jax].dtype != tensor.dtype:
        params[entry.jax] = params[entry.jax].astype(np.float32)
    params[entry.jax][entry.layer] = array


def default_layout(config: SmolRGPTConfig) -> TorchLayout:
    """The layout the PyTorch release itself would write: float32, names in order, the tied head once."""
    names = {e.torch for e in entries(config)} | {INV_FREQ}
    metadata: dict[str, str] = {"format": "pt"}
    if config.decoder.tied_head:
        names = names - {TIED_NAMES[1]} | {TIED_NAMES[0]}
        metadata = {TIED_NAMES[1]: TIED_NAMES[0]}
    return TorchLayout(
        config_to_torch(config), {SINGLE_FILE: [(n, "F32") for n in sorted(names)]}, {SINGLE_FILE: metadata}
    )


def with_dtype(layout: TorchLayout, dtype: str) -> TorchLayout:
    """The layout with every parameter in one dtype ("F32", "F16" or "BF16"); the rotary buffer stays float32."""
    files = {
        f: [(n, d if n == INV_FREQ else dtype) for n, d in tensors] for f, tensors in layout.files.items()
    }
    return TorchLayout(layout.config, files, layout.metadata, layout.buffers, layout.index_metadata)


def write_folder(
    folder: Path,
    config: SmolRGPTConfig,
    params: Mapping[str, np.ndarray],
    layout: TorchLayout | None = None,
    tokenizer: Mapping[str, str] | None = None,
) -> None:
    """Writes a PyTorch checkpoint folder; `layout` from `read_folder` gives back the same bytes.

    tokenizer: {file name: text} to put beside the weights.
    The folder appears whole or not at all. Raises CheckpointError if it exists already or cannot be written.
    """
    if folder.exists():
        raise CheckpointError(f"{folder} exists already; nothing was written")
    layout = default_layout(config) if layout is None else layout
    aside = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        weight_map, total = {}, 0
        for name, tensors in layout.files.items():
            total += _write_safetensors(
                aside / name, tensors, layout.metadata.get(name), config, params, layout.buffers
            )
            weight_map |= {tensor: name for tensor, _ in tensors}
        if layout.index_metadata is not None or len(layout.files) > 1:
            index = {
                "metadata": layout.index_metadata or {"total_size": total},
                "weight_map": dict(sorted(weight_map.items())),
            }
            (aside / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        (aside / "config.json").write_text(
            json.dumps(config_to_torch(config, layout.config), indent=4), encoding="utf-8"
        )
        for name, text in (tokenizer or {}).items():
            (aside / Path(name).name).write_text(text, encoding="utf-8")
        aside.rename(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} could not be written, nothing was left behind: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_safetensors(
    path: Path,
    tensors: list[tuple[str, str]],
    metadata: dict[str, str] | None,
    config: SmolRGPTConfig,
    params: Mapping[str, np.ndarray],
    buffers: Mapping[str, list[float]],
) -> int:
    """One safetensors file, tensor by tensor; returns the bytes of tensor data. Format: huggingface.co/docs/safetensors."""
    by_name = {e.torch: e for e in entries(config)}
    if config.decoder.tied_head:
        by_name[TIED_NAMES[0]] = by_name[TIED_NAMES[1]]
    inv_freq = np.asarray(buffers[INV_FREQ]) if INV_FREQ in buffers else rotary_buffer(config)
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    offset = 0
    for name, dtype in tensors:
        shape = inv_freq.shape if name == INV_FREQ else by_name[name].torch_shape
        size = int(np.prod(shape)) * DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, dtype in tensors:
            if name == INV_FREQ:
                array = inv_freq
            else:
                entry = by_name[name]
                source = params[entry.jax] if entry.layer is None else params[entry.jax][entry.layer]
                array = entry.to_torch(np.asarray(source))
            file.write(
                memoryview(
                    np.ascontiguousarray(array.astype(DTYPES[dtype], copy=False)).view(np.uint8).reshape(-1)
                )
            )
        file.flush()
        os.fsync(file.fileno())
    return offset
