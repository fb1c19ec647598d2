"""Parameters that are read when they are asked for, so that a checkpoint need not fit in memory.

A piece is what is read at a time: one layer of a stacked parameter, or a whole one that is not stacked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from smolrgpt_jax.checkpoint.mapping import Entry

READ_AHEAD = 2  # pieces

# Parameter name and layer, None where the layers are not stacked.
Piece = tuple[str, int | None]


@dataclass(frozen=True)
class ArrayInfo:
    """Shape and dtype of an array that was not read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


class StreamedParams(MutableMapping[str, np.ndarray]):
    """{parameter name: NumPy array}, read anew at every access and not kept.

    infos: {name: ArrayInfo}, known without reading. Assigning an array keeps that one in memory. Access raises what `read`
    raises, CheckpointError for a file that is damaged or gone.
    """

    def __init__(self, infos: Mapping[str, ArrayInfo], read: Callable[[Piece], np.ndarray]):
        """read: a piece -> its array; the layer None of a stacked parameter is never asked for."""
        self.infos = dict(infos)
        self._read = read
        self._assigned: dict[str, np.ndarray] = {}

    def piece(self, piece: Piece) -> np.ndarray:
        """One layer of a stacked parameter, or a whole parameter."""
        name, layer = piece
        if name in self._assigned:
            return self._assigned[name] if layer is None else self._assigned[name][layer]
        return self._read(piece)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.infos:
            raise KeyError(name)
        if name in self._assigned or not is_stacked(name):
            return self.piece((name, None))
        array = np.empty(self.infos[name].shape, self.infos[name].dtype)
        for layer in range(len(array)):
            array[layer] = self._read((name, layer))
        return array

    def __setitem__(self, name: str, value: np.ndarray) -> None:
        self._assigned[name] = value
        self.infos[name] = ArrayInfo(tuple(value.shape), value.dtype)

    def __delitem__(self, name: str) -> None:
        del self.infos[name]
        self._assigned.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self.infos

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)


def is_stacked(name: str) -> bool:
    """Whether the parameter's first dimension counts layers."""
    return "/blocks/" in name


def streamed(params: Mapping[str, Any]) -> StreamedParams:
    """Arrays in memory behind the interface of those that are not."""
    if isinstance(params, StreamedParams):
        return params

    def read(piece: Piece) -> np.ndarray:
        name, layer = piece
        return np.asarray(params[name] if layer is None else params[name][layer])

    infos = {n: ArrayInfo(tuple(np.shape(v)), np.dtype(v.dtype)) for n, v in params.items()}
    return StreamedParams(infos, read)


def pieces_of(names: Iterable[str], params: StreamedParams) -> list[Piece]:
    """The pieces of these parameters, in order."""
    return [
        (name, layer)
        for name in names
        for layer in (range(params.infos[name].shape[0]) if is_stacked(name) else [None])
    ]


def read_ahead(params: StreamedParams, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, np.ndarray]]:
    """(piece, its array) one by one; the next READ_AHEAD are read in the background meanwhile."""
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        under_way: deque[tuple[Piece, Future[np.ndarray]]] = deque()
        try:
            for piece in pieces:
                under_way.append((piece, pool.submit(params.piece, piece)))
                if len(under_way) > READ_AHEAD:
                    done, future = under_way.popleft()
                    yield done, future.result()
                    del future  # with its array
            while under_way:
                done, future = under_way.popleft()
                yield done, future.result()
                del future
        finally:
            for _, future in under_way:
                future.cancel()


def entries_by_param(table: list[Entry]) -> dict[str, list[Entry]]:
    """{parameter name: its PyTorch tensors}, one per layer for a stacked parameter, in layer order."""
    grouped: dict[str, list[Entry]] = {}
    for entry in table:
        grouped.setdefault(entry.jax, []).append(entry)
    return grouped


def params_from_tensors(
    table: list[Entry], dtype_of: Callable[[str], np.dtype], read: Callable[[str], np.ndarray]
) -> StreamedParams:
    """Our parameters from PyTorch tensors, layers stacked.

    table: of the mapping; dtype_of: tensor name -> its dtype, known without reading; read: tensor name -> array of the entry's
    torch_shape. A stack is float32 where its layers' dtypes differ.
    """
    by_piece: dict[Piece, Entry] = {(e.jax, e.layer): e for e in table}
    infos = {}
    for name, members in entries_by_param(table).items():
        dtypes = {dtype_of(e.torch) for e in members}
        dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
        stack = (len(members),) if is_stacked(name) else ()
        infos[name] = ArrayInfo((*stack, *members[0].jax_shape), dtype)

    def read_piece(piece: Piece) -> np.ndarray:
        entry = by_piece[piece]
        return entry.to_jax(read(entry.torch)).astype(infos[piece[0]].dtype, copy=False)

    return StreamedParams(infos, read_piece)
