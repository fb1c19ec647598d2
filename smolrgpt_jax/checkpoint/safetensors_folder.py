"""A folder with config.json and safetensors files, one or several with an index, as PyTorch programs write models.

Reading is strict: every missing, unexpected or wrongly shaped tensor is reported in one error, from the headers alone. What the
numbers do not say (config fields, tensor order, dtypes, metadata) is kept in a `TorchLayout`, so that writing gives back the same
bytes.

The safetensors library (format: huggingface.co/docs/safetensors) only checks files: reading, its memory map counts as the process's
own memory once touched; writing, it wants all tensors in memory and sorts them.
"""

import json
import logging
import math
import os
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.files import new_folder, read_json, stand_in, write_text

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_LISTED = 40
# Parts of names that come from what a model was wrapped in when it was saved.
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "language_model")

_NAMED = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
DTYPES: dict[str, np.dtype] = {name: np.dtype(kind) for name, kind in _NAMED.items()}


def tensor_bytes(shape: Sequence[int], dtype: str) -> int:
    return math.prod(shape) * DTYPES[dtype].itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file's header describes it."""

    file: Path
    name: str
    dtype: str  # as safetensors names it
    shape: tuple[int, ...]
    begin: int  # its first byte in the file

    def read(self) -> np.ndarray:
        """The tensor in its own dtype, one of DTYPES; raises CheckpointError if the file ends before it."""
        size = tensor_bytes(self.shape, self.dtype)
        try:
            data = np.fromfile(self.file, np.uint8, size, offset=self.begin)
        except OSError as error:
            raise CheckpointError(f"{self.file} cannot be read: {error.strerror or error}") from error
        if data.size < size:
            raise CheckpointError(f"{self.file} ends within {self.name}")
        return data.view(DTYPES[self.dtype]).reshape(self.shape)


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str] | None]:
    """A file's tensors {name: StoredTensor} in the order of the data, and its metadata, None if there is none.

    Raises CheckpointError if the file is missing, truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="numpy"), open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
    except SafetensorError as error:
        what = stand_in(path) or f"not a readable safetensors file (truncated?): {error}"
        raise CheckpointError(f"{path} is {what}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    metadata = header.pop("__metadata__", None)
    tensors = [
        StoredTensor(path, name, entry["dtype"], tuple(entry["shape"]), 8 + size + entry["data_offsets"][0])
        for name, entry in header.items()
    ]
    return {tensor.name: tensor for tensor in sorted(tensors, key=lambda tensor: tensor.begin)}, metadata


@contextmanager
def write_file(
    path: Path, tensors: Sequence[tuple[str, str, Sequence[int]]], metadata: dict[str, str] | None
) -> Iterator[Callable[[str, np.ndarray], None]]:
    """A function (name, array) that puts a tensor in its place, in any order; at the end the file is flushed to the disk.

    tensors: (name, dtype as safetensors names it, shape) in the order of the data; each must be given, in that dtype and shape.
    Raises OSError, as on a full disk.
    """
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for name, dtype, shape in tensors:
        begin, end = end, end + tensor_bytes(shape, dtype)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        places[name] = begin, end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    missing = set(places)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)

        def write(name: str, array: np.ndarray) -> None:
            begin, end = (8 + len(text) + offset for offset in places[name])
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            if data.size != end - begin:
                raise ValueError(f"{name} has {data.size} bytes, its place has {end - begin}")
            file.seek(begin)
            file.write(data.data)
            if hasattr(os, "posix_fadvise"):
                # Linux starts writing these pages out, so that little is left for the flush at the end.
                os.posix_fadvise(file.fileno(), begin, data.size, os.POSIX_FADV_DONTNEED)
            missing.discard(name)

        yield write
        if missing:
            raise ValueError(f"{path}: never written: {', '.join(sorted(missing))}")
        file.flush()
        os.fsync(file.fileno())


@dataclass(frozen=True)
class TorchLayout:
    """What a folder holds beside the numbers of its parameters."""

    config: dict[str, Any]  # content of config.json
    files: dict[str, list[list[str]]]  # per file [name, dtype as in safetensors], in file order
    metadata: dict[str, dict[str, str] | None]  # of safetensors, per file
    buffers: dict[str, list[float]] = field(default_factory=dict)  # exact values of those that are no parameters
    index_metadata: dict[str, Any] | None = None  # None without an index


def read_config_json(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json; raises CheckpointError."""
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; a model is the folder that holds it")
    if not (folder / CONFIG_FILE).is_file():
        model = f"a folder with {CONFIG_FILE} and {SINGLE_FILE}"
        raise CheckpointError(f"{folder / CONFIG_FILE}: no such file; a model is {model}")
    return read_json(folder / CONFIG_FILE, dict, CheckpointError)


def open_tensors(folder: Path, wanted: Collection[str]) -> tuple[dict[str, StoredTensor], TorchLayout]:
    """The tensors of a folder {name: StoredTensor}, and its layout.

    wanted: names to be found; where those in the files have WRAPPERS in them or all begin with more, this is left out, which a
    logged line says. Raises CheckpointError when there are none, or when the index is damaged or disagrees with the files.
    """
    config = read_config_json(folder)
    index = None if (folder / SINGLE_FILE).is_file() else _read_index(folder)
    names = [SINGLE_FILE] if index is None else sorted(set(index["weight_map"].values()))
    headers = {name: read_header(folder / name) for name in names}
    tensors = {tensor.name: tensor for held, _ in headers.values() for tensor in held.values()}
    if index is not None:
        listing = index["weight_map"]
        lies: dict[str, list[str]] = {name: [] for name in tensors}
        for file, (held, _) in headers.items():
            for name in held:
                lies[name].append(file)
        problems = [
            f"{name} is listed in {listing.get(name, 'no file')} but lies in {' and '.join(lies.get(name, ['no file']))}"
            for name in sorted({*listing, *lies})
            if lies.get(name) != [listing.get(name)]
        ]
        if problems:
            raise CheckpointError(f"{folder / INDEX_FILE} does not fit its files: {listed(problems)}")
    plain, left_out = _unwrapped(tensors, wanted)
    if left_out:
        logging.getLogger(__name__).warning("%s: tensors are read without %s in their names", folder, left_out)
    files = {name: [[plain[tensor], held[tensor].dtype] for tensor in held] for name, (held, _) in headers.items()}
    metadata = {name: of_file for name, (_, of_file) in headers.items()}
    layout = TorchLayout(config, files, metadata, index_metadata=None if index is None else index.get("metadata", {}))
    return {plain[name]: tensor for name, tensor in tensors.items()}, layout


def _unwrapped(names: Collection[str], wanted: Collection[str]) -> tuple[dict[str, str], str]:
    """{name in the files: the one to read it under}, and what that leaves out.

    Left out are WRAPPERS and the beginning that most of the wanted names have in front; nothing where two would become the same.
    """
    plain = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in names}
    starts: Counter[str] = Counter()
    for parts in (name.split(".") for name in plain.values()):
        starts.update(
            "".join(f"{part}." for part in parts[:i]) for i in range(len(parts)) if ".".join(parts[i:]) in wanted
        )
    (start, most), (_, second) = [*starts.most_common(2), ("", 0), ("", 0)][:2]
    start = start if most > second else ""
    found = {name: short.removeprefix(start) for name, short in plain.items()}
    if not starts or len(set(found.values())) < len(found):
        return dict(zip(names, names)), ""
    wrappers = [f"{part}." for part in WRAPPERS if any(part in name.split(".") for name in names)]
    return found, " and ".join(filter(None, (*wrappers, start)))


def untied(tensors: Mapping[str, StoredTensor], names: Sequence[str]) -> list[str]:
    """What is wrong with two tensors that config.json says are one: how far they differ, if both are there and do."""
    held = [tensors[name].read() for name in names if name in tensors]
    if len(held) < 2 or np.array_equal(held[0], held[1], equal_nan=True):
        return []
    with np.errstate(invalid="ignore", over="ignore"):
        furthest = np.max(np.abs(held[0].astype(np.float32) - held[1].astype(np.float32)))
    return [f"{' and '.join(names)} differ though {CONFIG_FILE} ties them, by up to {furthest:.3g}"]


def _read_index(folder: Path) -> dict[str, Any]:
    """The index; raises CheckpointError if there is none, or one without {tensor name: name of a file that is there}."""
    path = folder / INDEX_FILE
    if not path.is_file():
        pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*"))
        hint = f"; {pickles[0]} is a pickle, which is never loaded: save it as safetensors first" if pickles else ""
        raise CheckpointError(f"{folder}: neither {SINGLE_FILE} nor {INDEX_FILE} is there{hint}")
    index = read_json(path, dict, CheckpointError)
    weight_map = index.get("weight_map")
    if not weight_map or not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise CheckpointError(f"{path} has no weight_map from tensor names to file names")
    if not isinstance(index.get("metadata", {}), dict):
        raise CheckpointError(f"{path}: metadata is no JSON object")
    # "./name" is "name".
    index["weight_map"] = weight_map = {tensor: os.path.normpath(name) for tensor, name in weight_map.items()}
    for name in sorted(set(weight_map.values())):
        if os.path.isabs(name) or name.split(os.sep)[0] in (os.curdir, os.pardir):
            raise CheckpointError(f"{path} names a file outside its folder: {name!r}")
        if not os.path.isfile(folder / name):
            raise CheckpointError(f"{folder / name}: no such file, though {INDEX_FILE} names it")
    return index


def listed(problems: Sequence[str]) -> str:
    """All problems in one sentence, the first MAX_LISTED by name."""
    more = f"; and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
    return "; ".join(problems[:MAX_LISTED]) + more


def check_fit(
    folder: Path,
    held: Mapping[str, Any],
    expected: Mapping[str, Sequence[int]],
    config: str = CONFIG_FILE,
    problems: Sequence[str] = (),
) -> None:
    """Raises CheckpointError listing every array that is missing, unexpected, wrongly shaped or of a dtype that is not read.

    held: {name: StoredTensor, or anything else with a shape}; expected: {name: shape}; config: what asks for these; problems: found
    before, to be listed too.
    """
    problems = [*problems, *(f"missing {n} {list(shape)}" for n, shape in expected.items() if n not in held)]
    for name, array in held.items():
        if name not in expected:
            problems.append(f"unexpected {name} {list(array.shape)}")
        elif isinstance(array, StoredTensor) and array.dtype not in DTYPES:
            problems.append(f"{name} has dtype {array.dtype}, only {', '.join(DTYPES)} are read")
        elif tuple(array.shape) != tuple(expected[name]):
            problems.append(f"{name} has shape {list(array.shape)}, {config} asks for {list(expected[name])}")
    if problems:
        raise CheckpointError(f"{folder} does not fit its {config}: {listed(problems)}")


def is_finite(array: np.ndarray) -> bool:
    """Whether there is neither NaN nor an infinite value."""
    # The sum is NaN or infinite if any value is; it may overflow without one, which the full check settles.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(array, dtype=np.float32)):
            return True
    return bool(np.isfinite(array.astype(np.float32, copy=False)).all())


def write_tensors(
    folder: Path,
    layout: TorchLayout,
    shapes: Mapping[str, Sequence[int]],
    tensors: Iterable[tuple[str, np.ndarray]],
    texts: Mapping[str, str],
    twins: Mapping[str, str] | None = None,
    *,
    allow_nan: bool = True,
) -> None:
    """Writes a folder of this layout, whole or not at all.

    shapes: of the layout's tensors; tensors: (name, array of any dtype) in any order, those that the layout lacks are left out;
    texts: {name: content} of the files beside the weights, config.json among them; twins: {name: the other name that
    its tensor is given under}. Raises CheckpointError if the folder exists already or cannot be written, for a finite value that the
    layout's dtype cannot hold, and for NaN or infinite values unless `allow_nan`.
    """
    with new_folder(folder) as aside, ExitStack() as stack:
        weight_map: dict[str, str] = {}
        # A tensor that stands in several files is written to each.
        places: dict[str, list[tuple[Any, str, str]]] = {}
        for file, held in layout.files.items():
            described = [(name, dtype, shapes[name]) for name, dtype in held]
            (aside / file).parent.mkdir(parents=True, exist_ok=True)
            write = stack.enter_context(write_file(aside / file, described, layout.metadata.get(file)))
            for name, dtype in held:
                weight_map[name] = file
                places.setdefault((twins or {}).get(name, name), []).append((write, name, dtype))
        for name, tensor in tensors:
            for write, stored, dtype in places.get(name, ()):
                write(stored, _cast(tensor, dtype, stored, allow_nan))
            del tensor
        if list(layout.files) != [SINGLE_FILE]:
            metadata = {"total_size": None} if layout.index_metadata is None else layout.index_metadata
            if metadata.get("total_size", 0) is None:
                total = sum(tensor_bytes(shapes[n], dtype) for held in layout.files.values() for n, dtype in held)
                metadata = {**metadata, "total_size": total}
            index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
            write_text(aside / INDEX_FILE, json.dumps(index, indent=2) + "\n")
        for name, text in texts.items():
            write_text(aside / Path(name).name, text)


def _cast(tensor: np.ndarray, dtype: str, name: str, allow_nan: bool) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        cast = tensor.astype(DTYPES[dtype], copy=False)
    if cast is tensor and allow_nan or is_finite(cast):
        return cast
    if is_finite(tensor):
        raise CheckpointError(f"{name} holds a value too large for {dtype}; nothing was written")
    if not allow_nan:
        raise CheckpointError(f"{name} holds NaN or infinite values; nothing was written")
    return cast
