"""safetensors files, one tensor at a time: read with plain reads (a memory map would count as the process's own memory
once touched), written at each tensor's place in any order. Format: huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from smolrgpt_jax.errors import CheckpointError

DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's entry in the header; dtype as safetensors names it, begin: its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int


class SafetensorsFile:
    """The header of one file, and its tensors on demand.

    tensors: {name: TensorInfo} in the order of the data; metadata: the header's own entry, None if there is none.
    """

    def __init__(self, path: Path):
        """Reads the header. Raises CheckpointError if the file is missing, truncated or no safetensors file."""
        self.path = path
        try:
            # The library checks that sizes, offsets and the file's length agree.
            with safe_open(path, framework="numpy") as file:
                self.metadata: dict[str, str] | None = file.metadata()
                names = file.offset_keys()
            with open(path, "rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(size))
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a readable safetensors file (truncated?): {error}") from error
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
        self.tensors = {
            n: TensorInfo(header[n]["dtype"], tuple(header[n]["shape"]), 8 + size + header[n]["data_offsets"][0])
            for n in names
        }

    def read(self, name: str) -> np.ndarray:
        """One tensor in its own dtype, one of DTYPES; raises CheckpointError if the file ends before it."""
        info = self.tensors[name]
        array = np.empty(info.shape, DTYPES[info.dtype])
        view = memoryview(array.reshape(-1).view(np.uint8))
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(info.begin)
                done = 0
                while done < len(view):
                    count = file.readinto(view[done:])
                    if not count:
                        raise CheckpointError(f"{self.path} ends within {name}")
                    done += count
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error.strerror or error}") from error
        return array


class SafetensorsWriter:
    """Writes one file whose tensors come in any order; a context manager, flushed to the disk on leaving it."""

    def __init__(
        self, path: Path, tensors: Sequence[tuple[str, str, tuple[int, ...]]], metadata: dict[str, str] | None
    ):
        """tensors: (name, dtype as safetensors names it, shape) in the order of the data. Raises OSError."""
        header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
        self._places: dict[str, tuple[int, int]] = {}
        offset = 0
        for name, dtype, shape in tensors:
            size = int(np.prod(shape)) * DTYPES[dtype].itemsize
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
            self._places[name] = (offset, size)
            offset += size
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self.data_bytes = offset
        self._start = 8 + len(text)
        self._missing = set(self._places)
        self._file = open(path, "wb", buffering=0)
        self._write_all(0, struct.pack("<Q", len(text)) + text)

    def __enter__(self) -> SafetensorsWriter:
        return self

    def write(self, name: str, array: np.ndarray) -> None:
        """Puts a tensor in its place; array: in the tensor's shape and dtype. Raises OSError, as on a full disk."""
        offset, size = self._places[name]
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if data.size != size:
            raise ValueError(f"{name} has {data.size} bytes, its place has {size}")
        self._write_all(self._start + offset, memoryview(data))
        if hasattr(os, "posix_fadvise"):
            # Linux starts writing these pages out, so that little is left for the flush at the end.
            os.posix_fadvise(self._file.fileno(), self._start + offset, size, os.POSIX_FADV_DONTNEED)
        self._missing.discard(name)

    def _write_all(self, position: int, data: bytes | memoryview) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._file.fileno(), data[done:], position + done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._missing:
                    raise ValueError(f"{self._file.name}: never written: {', '.join(sorted(self._missing))}")
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
