"""Parameters that are read when they are asked for, so that a checkpoint need not fit in memory.

A piece is what is read at a time: one layer of a stacked parameter, or a whole one that is not stacked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any

import numpy as np
from jax import ShapeDtypeStruct

from smolrgpt_jax.checkpoint.mapping import Entry

READ_AHEAD = 2  # pieces

# Parameter name and layer, None where the layers are not stacked.
Piece = tuple[str, int | None]


class StreamedParams(Mapping[str, np.ndarray]):
    """{parameter name: NumPy array}, read anew at every access and not kept.

    infos: {name: ShapeDtypeStruct}, known without reading. Access raises what `read` raises, CheckpointError for a file that is damaged or
    gone.
    """

    def __init__(self, infos: Mapping[str, ShapeDtypeStruct], read: Callable[[Piece], np.ndarray]):
        """read: a piece -> its array; the layer None of a stacked parameter is never asked for."""
        self.infos = dict(infos)
        self._read = read

    def piece(self, piece: Piece) -> np.ndarray:
        """One layer of a stacked parameter, or a whole parameter."""
        return self._read(piece)

    def pieces(self, name: str) -> list[Piece]:
        """The pieces of a parameter, in order."""
        return [(name, layer) for layer in (range(self.infos[name].shape[0]) if is_stacked(name) else [None])]

    def __getitem__(self, name: str) -> np.ndarray:
        info, pieces = self.infos[name], self.pieces(name)
        if not is_stacked(name):
            return self.piece(pieces[0])
        array = np.empty(info.shape, info.dtype)
        for layer, piece in enumerate(pieces):
            array[layer] = self.piece(piece)
        return array

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

    return StreamedParams({n: ShapeDtypeStruct(tuple(np.shape(v)), np.dtype(v.dtype)) for n, v in params.items()}, read)


def read_ahead(params: StreamedParams, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, np.ndarray]]:
    """(piece, its array) one by one; the next READ_AHEAD are read in the background meanwhile."""
    pieces = list(pieces)
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        under_way = deque(pool.submit(params.piece, piece) for piece in pieces[:READ_AHEAD])
        try:
            for piece, next_piece in zip_longest(pieces, pieces[READ_AHEAD:]):
                if next_piece is not None:
                    under_way.append(pool.submit(params.piece, next_piece))
                yield piece, under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def params_from_tensors(
    table: Iterable[Entry], dtype_of: Callable[[str], np.dtype], read: Callable[[str], np.ndarray]
) -> StreamedParams:
    """Our parameters from PyTorch tensors, layers stacked.

    table: of the mapping; dtype_of: tensor name -> its dtype, known without reading; read: tensor name -> array of the entry's
    torch_shape. A stack is float32 where its layers' dtypes differ.
    """
    by_piece: dict[Piece, Entry] = {(e.jax, e.layer): e for e in table}
    dtypes: dict[str, list[np.dtype]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in by_piece.values():
        dtypes.setdefault(entry.jax, []).append(dtype_of(entry.torch))
        shapes[entry.jax] = entry.jax_shape
    infos = {
        name: ShapeDtypeStruct(
            (len(found), *shapes[name]) if is_stacked(name) else shapes[name],
            found[0] if len(set(found)) == 1 else np.dtype(np.float32),
        )
        for name, found in dtypes.items()
    }

    def read_piece(piece: Piece) -> np.ndarray:
        entry = by_piece[piece]
        return entry.to_jax(read(entry.torch)).astype(infos[piece[0]].dtype, copy=False)

    return StreamedParams(infos, read_piece)


def tensors_from_params(table: Iterable[Entry], params: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, tensor) of every PyTorch tensor of the table, one by one: the inverse of `params_from_tensors`."""
    by_piece = {(entry.jax, entry.layer): entry for entry in table}
    for piece, array in read_ahead(streamed(params), by_piece):
        yield by_piece[piece].torch, by_piece[piece].to_torch(array)
        del array
