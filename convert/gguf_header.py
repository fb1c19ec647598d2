"""GGUF files: their metadata and tensors.

A header (magic, version, metadata, one entry per tensor) stands before the data; all numbers are little-endian. It is read here, every
length held against the file's, since the package gguf, which decodes the tensors, takes what a damaged one says for granted.
"""

import functools
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.files import stand_in

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # bytes, of the data and of every tensor in it, unless the metadata has another
LONGEST_NAME = 256
MOST_DIMENSIONS = 4
# The types of metadata by the format's numbers, as `struct` has them; besides, texts and lists.
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor as its file's header describes it."""

    file: Path
    name: str
    kind: str  # as the package gguf names it
    shape: tuple[int, ...]  # rows first
    begin: int  # its first byte in the file
    bytes: int

    def read(self) -> np.ndarray:
        """The tensor's numbers, float32; raises CheckpointError if the file ends before them."""
        data = np.fromfile(self.file, np.uint8, self.bytes, offset=self.begin)
        if data.size < self.bytes:
            raise CheckpointError(f"{self.file} ends within {self.name}")
        rows = data.reshape(math.prod(self.shape[:-1]), -1)
        return package().quants.dequantize(rows, package().GGMLQuantizationType[self.kind]).reshape(self.shape)


@dataclass(frozen=True)
class GGUFHeader:
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]


def read_gguf(path: Path) -> GGUFHeader:
    """The header of a GGUF file, of which every tensor is there and can be decoded.

    Raises CheckpointError for a file that is something else, cut or damaged, ImportError without the package gguf.
    """
    package()
    try:
        with open(path, "rb") as file:
            return _Reader(path, file).header()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


class _Reader:
    def __init__(self, path: Path, file: BinaryIO):
        self.path, self.file, self.size = path, file, path.stat().st_size

    def header(self) -> GGUFHeader:
        if self.file.read(len(MAGIC)) != MAGIC:
            raise CheckpointError(f"{self.path} is {stand_in(self.file) or 'no GGUF file'}")
        version = self.number("I")
        if version not in VERSIONS:
            raise self.damaged(f"version {version} is not read, only {' and '.join(map(str, VERSIONS))}")
        tensors, pairs = self.number("Q"), self.number("Q")
        metadata = {}
        for _ in range(pairs):
            name = self.name()
            metadata[name] = self.value(self.number("I"), name)
        entries = [self.entry() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise self.damaged(f"general.alignment is {alignment!r}")
        data = -(-self.file.tell() // alignment) * alignment
        return GGUFHeader(metadata, {tensor.name: tensor for tensor in self.placed(entries, data)})

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """A tensor's name, shape, kind and place."""
        name, dimensions = self.name(), self.number("I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise self.damaged(f"{name} has {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))
        return name, shape[::-1], self.number("I"), self.number("Q")

    def name(self) -> str:
        name = self.text()
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise self.damaged("a name of its header is none")
        return name

    def placed(self, entries: list[tuple[str, tuple[int, ...], int, int]], data: int) -> Iterator[GGUFTensor]:
        """The tensors of these entries; data: where the data begin."""
        known = {kind.value: (kind.name, *sizes) for kind, sizes in package().GGML_QUANT_SIZES.items()}
        seen: set[str] = set()
        for name, shape, number, place in entries:
            if name in seen:
                raise self.damaged(f"{name} is there twice")
            seen.add(name)
            kind, block, block_bytes = known.get(number, (f"number {number}", 1, 1))
            if number not in known or not _decodes(kind):
                raise CheckpointError(f"{self.path}: {name} is of type {kind}, which the package gguf does not decode")
            if not shape[-1] or shape[-1] % block:
                raise self.damaged(f"rows of {name} have {shape[-1]} numbers, blocks of {kind} have {block}")
            size = math.prod(shape) // block * block_bytes
            if data + place + size > self.size:
                raise CheckpointError(
                    f"{self.path} is cut off: {name} ends at byte {data + place + size}, the file has {self.size}"
                )
            yield GGUFTensor(self.path, name, kind, shape, data + place, size)

    def value(self, kind: int, name: str) -> Any:
        if kind in _NUMBERS:
            value = self.number(_NUMBERS[kind])
            # Of a float32 the shortest number, as people wrote it: 1e-05.
            return float(str(np.float32(value))) if _NUMBERS[kind] == "f" else value
        if kind == _TEXT:
            return self.text()
        inner = self.number("I") if kind == _LIST else None
        if inner not in (*_NUMBERS, _TEXT):
            raise self.damaged(f"{name} is of an unknown type")
        count = self.number("Q")
        if inner == _TEXT:
            return [self.text() for _ in range(count)]
        code = np.dtype(f"<{_NUMBERS[inner]}")
        return np.frombuffer(self.take(count * code.itemsize), code).tolist()

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError as error:
            raise self.damaged(f"a text of its header is no UTF-8 ({error.reason})") from error

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def take(self, size: int) -> bytes:
        if size > self.size - self.file.tell():
            raise CheckpointError(f"{self.path} is cut off or damaged: it ends within its header")
        return self.file.read(size)

    def damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged or of another kind: {what}")


@functools.cache
def _decodes(kind: str) -> bool:
    """Whether the package decodes a kind of tensor."""
    number = package().GGMLQuantizationType[kind]
    try:
        package().quants.dequantize(np.zeros((1, package().GGML_QUANT_SIZES[number][1]), np.uint8), number)
    except NotImplementedError:
        return False
    return True


def package() -> Any:
    """The package gguf; raises ImportError where it is not installed."""
    try:
        import gguf
    except ImportError as error:
        needed = f"the package {error.name}: pip install -e '.[gguf]'"
        raise ImportError(f"reading GGUF files needs {needed}") from error
    return gguf
