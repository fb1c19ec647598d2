"""Reading and writing a PyTorch checkpoint folder: config.json and model.safetensors, one file or sharded with an index.

Reading is strict: every missing, unexpected or wrongly shaped tensor is reported in one error, from the headers alone. The
numbers are read when asked for. What our parameters do not hold (config fields, tensor order, dtypes, metadata, the
rotary buffer's exact bits) is kept in a `TorchLayout`, so that writing gives back the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from smolrgpt_jax.checkpoint.config_json import config_from_torch, config_to_torch
from smolrgpt_jax.checkpoint.mapping import INV_FREQ, TIED_NAMES, entries, rotary_buffer
from smolrgpt_jax.checkpoint.safetensors_file import DTYPES, SafetensorsFile, SafetensorsWriter
from smolrgpt_jax.checkpoint.streaming import StreamedParams, params_from_tensors, read_ahead, streamed
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.errors import CheckpointError, ConfigError
from smolrgpt_jax.files import new_folder

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_LISTED = 40


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
    return (path / "config.json").is_file() and any((path / name).is_file() for name in (SINGLE_FILE, INDEX_FILE))


def read_json(path: Path) -> dict[str, Any]:
    """A file with one JSON object; raises CheckpointError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return values


def read_config(folder: Path) -> tuple[SmolRGPTConfig, dict[str, Any]]:
    """The model's configuration and config.json's content as it stands; raises CheckpointError."""
    path = folder / "config.json"
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; a PyTorch checkpoint is the folder that holds it")
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; a PyTorch checkpoint is a folder with config.json and {SINGLE_FILE}"
        )
    values = read_json(path)
    try:
        return config_from_torch(values), values
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (TypeError, KeyError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise CheckpointError(f"{path} holds a value of the wrong kind: {error!r}") from error


def weight_files(folder: Path) -> tuple[dict[str, SafetensorsFile], dict[str, Any] | None]:
    """The safetensors files of a folder, {name: header}, and the index's metadata (None for a single file).

    Raises CheckpointError when there are none, or when the index is damaged or disagrees with the files.
    """
    if (folder / SINGLE_FILE).is_file():
        return {SINGLE_FILE: SafetensorsFile(folder / SINGLE_FILE)}, None
    path = folder / INDEX_FILE
    if not path.is_file():
        pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*"))
        hint = f"; {pickles[0]} is a pickle, which is never loaded: save it as safetensors first" if pickles else ""
        raise CheckpointError(f"{folder}: neither {SINGLE_FILE} nor {INDEX_FILE} is there{hint}")
    index = read_json(path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise CheckpointError(f"{path} has no weight_map from tensor names to file names")
    if not weight_map:
        raise CheckpointError(f"{path} has an empty weight_map")
    metadata = index.get("metadata", {})
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: metadata is no JSON object")
    names = sorted(set(weight_map.values()))
    outside = [n for n in names if Path(n).name != n]
    if outside:
        raise CheckpointError(f"{path} names a file outside its folder: {outside[0]!r}")
    absent = [n for n in names if not (folder / n).is_file()]
    if absent:
        raise CheckpointError(f"{folder / absent[0]}: no such file, though {INDEX_FILE} names it")
    files = {n: SafetensorsFile(folder / n) for n in names}
    holder = {tensor: name for name, file in files.items() for tensor in file.tensors}
    problems = [
        f"{tensor} is listed in {name} but " + (f"lies in {holder[tensor]}" if tensor in holder else "lies in no file")
        for tensor, name in sorted(weight_map.items())
        if tensor not in files[name].tensors
    ]
    problems += [
        f"{tensor} lies in {name} but is not listed"
        for name, file in files.items()
        for tensor in file.tensors
        if tensor not in weight_map
    ]
    problems += [
        f"{tensor} lies in {name} and in {holder[tensor]}"
        for name, file in files.items()
        for tensor in file.tensors
        if holder[tensor] != name
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit its files: {listed(problems)}")
    return files, metadata


def listed(problems: list[str]) -> str:
    """All problems in one sentence, the first MAX_LISTED by name."""
    more = f"; and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
    return "; ".join(problems[:MAX_LISTED]) + more


@dataclass(frozen=True)
class TorchFolder:
    """An opened PyTorch checkpoint folder.

    params: our parameters (stacked over layers, in the files' dtypes), read when asked for; files: header of the file that
    holds each tensor.
    """

    folder: Path
    config: SmolRGPTConfig
    params: StreamedParams
    layout: TorchLayout
    files: dict[str, SafetensorsFile]

    def value_problems(self) -> list[str]:
        """Reads every tensor: one line per tensor with NaN or infinite values, and one if the two tied heads differ."""
        problems = []
        for name, file in self.files.items():
            if not _finite(file.read(name)):
                problems.append(f"{name} holds NaN or infinite values")
        if self.config.decoder.tied_head and all(n in self.files for n in TIED_NAMES):
            problems += _tied_problems(*(self.files[n].read(n) for n in TIED_NAMES))
        return problems


def _finite(array: np.ndarray) -> bool:
    # The sum is NaN or infinite if any value is; it may overflow without one, which the full check settles.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(array, dtype=np.float32)):
            return True
    return bool(np.isfinite(array.astype(np.float32, copy=False)).all())


def _tied_problems(head: np.ndarray, embedding: np.ndarray) -> list[str]:
    if np.array_equal(head, embedding, equal_nan=True):
        return []
    return [f"{' and '.join(TIED_NAMES)} differ though config.json ties them"]


def _misfit(folder: Path, problems: list[str]) -> CheckpointError:
    return CheckpointError(f"{folder} does not fit its config.json: {listed(problems)}")


def open_folder(folder: Path, *, allow_nan: bool = False) -> TorchFolder:
    """Opens a PyTorch checkpoint folder from its headers.

    Raises CheckpointError for an unreadable file, for missing, unexpected or wrongly shaped tensors (all listed at
    once) and for a rotary buffer that contradicts the configuration. Reading a parameter raises it for two different heads in a
    tied model, and for NaN or infinite weights unless `allow_nan`; that error too lists all such tensors.
    """
    config, values = read_config(folder)
    by_file, index_metadata = weight_files(folder)
    layout = TorchLayout(
        values,
        {n: [(t, i.dtype) for t, i in f.tensors.items()] for n, f in by_file.items()},
        {n: f.metadata for n, f in by_file.items()},
        index_metadata=index_metadata,
    )
    files = {t: f for f in by_file.values() for t in f.tensors}
    try:
        table = entries(config)
    except (TypeError, ValueError, ArithmeticError, IndexError, MemoryError) as error:
        raise CheckpointError(f"{folder / 'config.json'} describes no model: {error}") from error
    expected = {e.torch: e for e in table}
    tied = config.decoder.tied_head
    problems: list[str] = []
    for name, file in files.items():
        info = file.tensors[name]
        if info.dtype not in DTYPES:
            problems.append(f"{name} has dtype {info.dtype}, only {', '.join(DTYPES)} are read")
        elif name == INV_FREQ:
            problems += _buffer_problems(file, config, layout)
        else:
            entry = expected.get(TIED_NAMES[1] if tied and name in TIED_NAMES else name)
            if entry is None:
                problems.append(f"unexpected {name} {list(info.shape)}")
            elif info.shape != entry.torch_shape:
                problems.append(f"{name} has shape {list(info.shape)}, config.json asks for {list(entry.torch_shape)}")
    if tied and not any(n in files for n in TIED_NAMES):
        problems.append(f"missing {' or '.join(TIED_NAMES)}")
    problems += [
        f"missing {n} {list(e.torch_shape)}"
        for n, e in expected.items()
        if n not in files and not (tied and n in TIED_NAMES)
    ]
    if problems:
        raise _misfit(folder, problems)

    def held(name: str) -> str:
        """The name in the files: a tied head may stand under either."""
        return name if name in files else TIED_NAMES[0]

    def read(name: str) -> np.ndarray:
        name = held(name)
        array = files[name].read(name)
        if (not allow_nan and not _finite(array)) or (
            tied
            and name == TIED_NAMES[1]
            and TIED_NAMES[0] in files
            and _tied_problems(array, files[TIED_NAMES[0]].read(TIED_NAMES[0]))
        ):
            problems = opened.value_problems()
            raise _misfit(folder, [p for p in problems if not (allow_nan and p.endswith("infinite values"))])
        return array

    params = params_from_tensors(table, lambda name: DTYPES[files[held(name)].tensors[held(name)].dtype], read)
    opened = TorchFolder(folder, config, params, layout, files)
    return opened


def _buffer_problems(file: SafetensorsFile, config: SmolRGPTConfig, layout: TorchLayout) -> list[str]:
    """Keeps the rotary buffer's values in the layout; a line if they contradict the configuration."""
    buffer = file.read(INV_FREQ)
    want = rotary_buffer(config)
    layout.buffers[INV_FREQ] = buffer.astype(np.float64).tolist()
    tolerance = 1e-5 if buffer.dtype == np.float32 else 1e-2
    if buffer.shape == want.shape and np.allclose(buffer.astype(np.float32), want, rtol=tolerance):
        return []
    return [f"{INV_FREQ} contradicts lm_re_base and the head size of config.json"]


def read_folder(folder: Path, *, allow_nan: bool = False) -> tuple[SmolRGPTConfig, StreamedParams, TorchLayout]:
    """Opens a PyTorch checkpoint folder after reading every number of it once.

    Returns the configuration, our parameters (stacked over layers, in the files' dtypes; float32 where layers differ; read
    when asked for) and the layout. Raises CheckpointError for everything that `open_folder` and access to its parameters do.
    """
    opened = open_folder(folder, allow_nan=allow_nan)
    problems = [p for p in opened.value_problems() if not (allow_nan and p.endswith("infinite values"))]
    if problems:
        raise _misfit(folder, problems)
    return opened.config, opened.params, opened.layout


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
    files = {f: [(n, d if n == INV_FREQ else dtype) for n, d in tensors] for f, tensors in layout.files.items()}
    index_metadata = layout.index_metadata
    if index_metadata is not None and "total_size" in index_metadata:
        shapes = torch_shapes(config_from_torch(layout.config))
        total = sum(_tensor_bytes(shapes[n], d) for tensors in files.values() for n, d in tensors)
        index_metadata = {**index_metadata, "total_size": total}
    return replace(layout, files=files, index_metadata=index_metadata)


def _tensor_bytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape)) * DTYPES[dtype].itemsize


def with_shards(layout: TorchLayout, config: SmolRGPTConfig, max_bytes: int) -> TorchLayout:
    """The layout cut into files of at most `max_bytes` of tensors each, in order; one file if they all fit.

    A tensor that is larger alone has a file of its own. The metadata of the first file goes into all.
    """
    shapes = torch_shapes(config)
    shards: list[list[tuple[str, str]]] = []
    room = 0
    for name, dtype in (t for tensors in layout.files.values() for t in tensors):
        size = _tensor_bytes(shapes[name], dtype)
        if not shards or size > room:
            shards.append([])
            room = max_bytes
        shards[-1].append((name, dtype))
        room -= size
    names = [SINGLE_FILE]
    if len(shards) > 1:
        names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    metadata = next(iter(layout.metadata.values()), None)
    return replace(
        layout,
        files=dict(zip(names, shards, strict=True)),
        metadata=dict.fromkeys(names, metadata),
        index_metadata=None,
    )


def torch_shapes(config: SmolRGPTConfig) -> dict[str, tuple[int, ...]]:
    """{tensor name: shape} of a PyTorch checkpoint, the rotary buffer and both names of a tied head included."""
    shapes = {e.torch: e.torch_shape for e in entries(config)}
    if config.decoder.tied_head:
        shapes[TIED_NAMES[0]] = shapes[TIED_NAMES[1]]
    return shapes | {INV_FREQ: rotary_buffer(config).shape}


def write_folder(
    folder: Path,
    config: SmolRGPTConfig,
    params: Mapping[str, np.ndarray],
    layout: TorchLayout | None = None,
    tokenizer: Mapping[str, str] | None = None,
    *,
    allow_nan: bool = True,
) -> None:
    """Writes a PyTorch checkpoint folder; `layout` from `read_folder` gives back the same bytes.

    params: read piece by piece where they are streamed; tokenizer: {file name: text} to put beside the weights.
    The folder appears whole or not at all. Raises CheckpointError if it exists already or cannot be written, for a finite value
    that the layout's dtype cannot hold, and for NaN or infinite values unless `allow_nan`.
    """
    layout = default_layout(config) if layout is None else layout
    shapes = torch_shapes(config)
    with new_folder(folder) as aside:
        weight_map: dict[str, str] = {}
        with ExitStack() as stack:
            # Tensors that stand in several files, or under both names of a tied head, are written to each.
            places: dict[str, list[tuple[SafetensorsWriter, str]]] = {}
            total = 0
            for name, tensors in layout.files.items():
                described = [(t, dtype, shapes[t]) for t, dtype in tensors]
                writer = SafetensorsWriter(aside / name, described, layout.metadata.get(name))
                stack.enter_context(writer)
                total += writer.data_bytes
                for tensor, dtype in tensors:
                    weight_map[tensor] = name
                    places.setdefault(tensor, []).append((writer, dtype))
            buffer = np.asarray(layout.buffers.get(INV_FREQ, rotary_buffer(config)))
            for writer, dtype in places.get(INV_FREQ, []):
                writer.write(INV_FREQ, buffer.astype(DTYPES[dtype]))
            by_piece = {(e.jax, e.layer): e for e in entries(config)}
            for piece, array in read_ahead(streamed(params), by_piece):
                entry = by_piece[piece]
                tied = config.decoder.tied_head and entry.torch in TIED_NAMES
                names = [n for n in (TIED_NAMES if tied else (entry.torch,)) if n in places]
                tensor = entry.to_torch(array)
                for name in names:
                    for writer, dtype in places[name]:
                        writer.write(name, _cast(tensor, dtype, name, allow_nan))
                del array, tensor
        if list(layout.files) != [SINGLE_FILE]:
            index = {
                "metadata": {"total_size": total} if layout.index_metadata is None else layout.index_metadata,
                "weight_map": dict(sorted(weight_map.items())),
            }
            write_text(aside / INDEX_FILE, json.dumps(index, indent=2) + "\n")
        write_text(aside / "config.json", json.dumps(config_to_torch(config, layout.config), indent=4))
        for name, text in (tokenizer or {}).items():
            write_text(aside / Path(name).name, text)


def write_text(path: Path, text: str) -> None:
    """Writes a file down to the disk."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _cast(tensor: np.ndarray, dtype: str, name: str, allow_nan: bool) -> np.ndarray:
    """The tensor in the dtype that safetensors calls `dtype`."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = tensor.astype(DTYPES[dtype], copy=False)
    if cast is tensor and allow_nan or _finite(cast):
        return cast
    if _finite(tensor):
        raise CheckpointError(f"{name} holds a value too large for {dtype}; nothing was written")
    if not allow_nan:
        raise CheckpointError(f"{name} holds NaN or infinite values; nothing was written")
    return cast
