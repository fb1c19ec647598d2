"""safetensors files, one tensor at a time. Format: huggingface.co/docs/safetensors.

The library checks files. It does not read them: a memory map counts as the process's own memory once touched, and it gives metadata
in any order. Nor does it write them: it wants all tensors in memory and sorts them, so that an imported file would not come back
byte for byte.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from smolrgpt_jax.errors import CheckpointError

DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


def tensor_bytes(shape: Sequence[int], dtype: str) -> int:
    return math.prod(shape) * DTYPES[dtype].itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file's header describes it; dtype as safetensors names it, begin: its first byte in the file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int

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
        raise CheckpointError(f"{path} is not a readable safetensors file (truncated?): {error}") from error
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
            file.write(data)
            if hasattr(os, "posix_fadvise"):
                # Linux starts writing these pages out, so that little is left for the flush at the end.
                os.posix_fadvise(file.fileno(), begin, data.size, os.POSIX_FADV_DONTNEED)
            missing.discard(name)

        yield write
        if missing:
            raise ValueError(f"{path}: never written: {', '.join(sorted(missing))}")
        file.flush()
        os.fsync(file.fileno())
