"""The one table between the PyTorch release's tensors and our parameters, and parameters that are read when they are asked for.

PyTorch stores a linear map as [out, in] and one tensor per layer; we store [in, out], with attention heads as dimensions of their own,
and stack the layers. Every rule is a permutation and a reshape, so no number changes. A piece is what is read at a time, so that a
checkpoint need not fit in memory: one layer of a stacked parameter, or a whole one that is not stacked.
"""

import math
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from jax import ShapeDtypeStruct

from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.models.smollm import inverse_frequencies
from smolrgpt_jax.models.smolrgpt import abstract_params

READ_AHEAD = 2  # pieces

# Parameter name and layer, None where the layers are not stacked.
Piece = tuple[str, int | None]

TIED_NAMES = ("decoder.head.weight", "decoder.token_embedding.weight")
INV_FREQ = "decoder.rotary_embd.inv_freq"


@dataclass(frozen=True)
class Rule:
    """torch: tensor name, "{i}" for the layer; jax: parameter name; kind: how the array is laid out (see `_torch_shape`)."""

    torch: str
    jax: str
    kind: str


def read_rules(table: str) -> tuple[Rule, ...]:
    """The rules of a table of mapping.toml."""
    rules: list[Rule] = []
    for kind, torch, jax in _TABLES[table]:
        name, _, of = kind.partition(" ")
        if name in ("norm", "dense"):
            weight, of = ("scale", "same") if name == "norm" else ("kernel", of)
            rules += Rule(f"{torch}.weight", f"{jax}/{weight}", of), Rule(f"{torch}.bias", f"{jax}/bias", "same")
        else:
            rules.append(Rule(torch, jax, kind))
    return tuple(rules)


_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
RULES = read_rules("release")


@dataclass(frozen=True)
class Entry:
    """One PyTorch tensor and its place in our parameters: `params[jax]`, or its layer `layer`."""

    torch: str
    jax: str
    layer: int | None
    kind: str
    torch_shape: tuple[int, ...]
    jax_shape: tuple[int, ...]  # of the layer, where there is one

    def to_jax(self, tensor: np.ndarray) -> np.ndarray:
        """torch_shape -> jax_shape; the vocabulary is padded with zero rows."""
        if self.kind == "vocabulary":
            return np.pad(tensor, ((0, self.jax_shape[0] - tensor.shape[0]), (0, 0)))
        return _permuted(tensor, _PERMUTATIONS.get(self.kind)).reshape(self.jax_shape)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """jax_shape -> torch_shape, C-contiguous."""
        if self.kind == "vocabulary":
            return np.ascontiguousarray(array[: self.torch_shape[0]])
        permutation = _PERMUTATIONS.get(self.kind)
        if permutation is None:
            return np.ascontiguousarray(array.reshape(self.torch_shape))
        array = array.reshape([self.torch_shape[axis] for axis in permutation])
        return np.ascontiguousarray(_permuted(array, tuple(np.argsort(permutation))))


# Dimension of the PyTorch tensor that each of ours is, in kinds that turn them round; several of ours may be one of PyTorch's.
_PERMUTATIONS = {"linear": (1, 0), "linear_from_heads": (1, 0), "conv": (2, 3, 1, 0), "upconv": (0, 2, 3, 1)}


def _permuted(array: np.ndarray, permutation: tuple[int, ...] | None) -> np.ndarray:
    if permutation is None:
        return array
    if permutation != (1, 0):
        return array.transpose(permutation)
    # By strips of rows, which NumPy copies twice as fast as all at once.
    result = np.empty(array.shape[::-1], array.dtype)
    for begin in range(0, len(array), 16):
        result[:, begin : begin + 16] = array[begin : begin + 16].T
    return result


def _torch_shape(kind: str, shape: tuple[int, ...], vocab_size: int) -> tuple[int, ...]:
    match kind:
        case "same":
            return (math.prod(shape),)
        case "positions":
            return (1, *shape)
        case "table":
            return shape
        case "vocabulary":
            return (vocab_size, *shape[1:])
        case "linear":
            shape = (shape[0], math.prod(shape[1:]))
        case "linear_from_heads":
            shape = (math.prod(shape[:-1]), shape[-1])
    return tuple(shape[axis] for axis in np.argsort(_PERMUTATIONS[kind]))


def entries(config: SmolRGPTConfig) -> list[Entry]:
    """Every tensor of a PyTorch checkpoint of this configuration but the rotary buffer, in table order."""
    shapes = {name: tuple(param.shape) for name, param in abstract_params(config).items()}
    return entries_of([rule for rule in RULES if rule.jax in shapes], shapes, config.decoder.vocab_size)


def entries_of(rules: Iterable[Rule], shapes: Mapping[str, tuple[int, ...]], vocab_size: int) -> list[Entry]:
    """The tensors that the rules make of parameters {name: shape}, in table order.

    vocab_size: rows of the tensors of kind "vocabulary". Raises KeyError if rules and parameters do not cover each other.
    """
    result = []
    for rule in rules:
        shape = shapes[rule.jax]
        stacked = "{i}" in rule.torch
        layer_shape = shape[1:] if stacked else shape
        torch_shape = _torch_shape(rule.kind, layer_shape, vocab_size)
        for i in range(shape[0]) if stacked else [None]:
            result.append(Entry(rule.torch.replace("{i}", str(i)), rule.jax, i, rule.kind, torch_shape, layer_shape))
    covered = {e.jax for e in result}
    if covered != set(shapes):
        raise KeyError(f"the conversion table does not cover {sorted(set(shapes) - covered)}")
    return result


def rotary_buffer(config: SmolRGPTConfig) -> np.ndarray:
    """The decoder's inv_freq buffer: float32[head_dim / 2]."""
    return inverse_frequencies(config.decoder.head_dim, config.decoder.rope_base)


class StreamedParams(Mapping[str, np.ndarray]):
    """{parameter name: NumPy array}, read anew at every access and not kept.

    infos: {name: ShapeDtypeStruct}, known without reading. Access raises what `read` raises, CheckpointError for a file that is damaged or
    gone.
    """

    def __init__(self, infos: Mapping[str, ShapeDtypeStruct], read: Callable[[Piece], np.ndarray]):
        """read: a piece -> its array; the layer None of a stacked parameter is never asked for."""
        self.infos, self._read = dict(infos), read

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
        return name in self.infos  # without reading it

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
    infos = {}
    for name, found in dtypes.items():
        shape = (len(found), *shapes[name]) if is_stacked(name) else shapes[name]
        infos[name] = ShapeDtypeStruct(shape, found[0] if len(set(found)) == 1 else np.dtype(np.float32))

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
