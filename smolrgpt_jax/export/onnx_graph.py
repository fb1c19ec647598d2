"""ONNX programs node by node, their weights in a file beside them: in float32, or matrices in few bits.

Few bits are as onnxruntime's `MatMulNBits` and `GatherBlockQuantized` read them: along the inputs of a product, blocks of numbers
share a scale. Needs the package onnx; importing this file does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

CONTRIB = "com.microsoft"  # operators that onnxruntime has besides ONNX's own
OPSETS = {"": 20, CONTRIB: 1}
IR_VERSION = 10  # that runtimes of the last years read
PAGE = 4096  # bytes: weights that begin on one are mapped into memory instead of read
SMALL = 1024  # bytes, of a tensor that lies in the program itself
LEAST_BLOCK = 32
INT8_PRODUCTS = 4  # an `accuracy_level`: activations are rounded to int8 too, block by block

Arrays = Mapping[str, tuple[Any, Sequence[int | str]]]  # dtype and shape


@dataclass(frozen=True)
class Quant:
    """How the numbers of matrices are stored."""

    bits: int  # 4 or 8
    block: int  # most numbers that share a scale

    def fitting(self, columns: int) -> "Quant":
        """The same with blocks that such rows divide into, if there are."""
        return self if columns % self.block == 0 else replace(self, block=LEAST_BLOCK)

    def codes(self, rows: np.ndarray) -> list[np.ndarray]:
        """float32[N, K] -> codes uint8[N, K * bits / 8], scales float32[N, K / block], zero points uint8[N, ...] if of four bits.

        A number is (code - zero point) * scale, the zero point of eight bits 128; K is filled up to whole blocks.
        """
        blocks = np.pad(rows, ((0, 0), (0, -rows.shape[1] % self.block))).reshape(len(rows), -1, self.block)
        low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
        scale = np.maximum(-low, high) / 127 if self.bits == 8 else (high - low) / 15
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        zero = np.full(low.shape, 128.0) if self.bits == 8 else np.rint(-low / scale)
        codes = np.clip(np.rint(blocks / scale[..., None]) + zero[..., None], 0, 2**self.bits - 1)
        codes = codes.astype(np.uint8).reshape(len(rows), -1)
        return [codes, scale] if self.bits == 8 else [_halves(codes), scale, _halves(zero.astype(np.uint8))]


def _halves(codes: np.ndarray) -> np.ndarray:
    """Two codes a byte, the first in its lower half: uint8[N, M] -> uint8[N, ceil(M / 2)]."""
    codes = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return codes[:, ::2] | codes[:, 1::2] << 4


INT8, INT4 = Quant(8, 64), Quant(4, 32)


def onnx_package() -> Any:
    """Raises ImportError, which says what to install, without it."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError("exporting to ONNX needs the package onnx: pip install -e '.[onnx]'") from error
    return onnx


@dataclass(frozen=True)
class Matrix:
    """A stored matrix of N rows of K numbers, by which rows of K are multiplied to N, or whose rows are looked up."""

    rows: int
    columns: int
    tensors: list[str]
    quant: Quant | None


class Graph:
    """A program that grows by calls; names stand for arrays."""

    def __init__(self, file: Path):
        """file: NAME.onnx, beside which NAME.data is written right away. Raises ImportError without the package onnx."""
        self._onnx, self._file = onnx_package(), file
        self._nodes: list[Any] = []
        self._tensors: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._data = open(self._file.with_suffix(".data"), "wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()

    def __call__(self, op: str, *inputs: str, into: str | Sequence[str] = "", **attributes: Any) -> Any:
        """Adds a node; "!" before its name marks one of onnxruntime's. Returns its output's name, or the names that `into` lists."""
        domain, op = (CONTRIB, op[1:]) if op.startswith("!") else ("", op)
        if not into:
            into = f"{op}_{len(self._nodes)}"
        outputs = [into] if isinstance(into, str) else list(into)
        self._nodes.append(self._onnx.helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return into

    def weight(self, array: np.ndarray) -> str:
        """Stores an array."""
        name, value = f"weight_{len(self._tensors)}", np.asarray(array, order="C")
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        tensor = self._onnx.TensorProto(name=name, data_type=kind, dims=value.shape)
        if value.nbytes < SMALL:
            tensor.raw_data = value.tobytes()
        else:
            self._data.write(bytes(-self._data.tell() % PAGE))
            where = {"location": Path(self._data.name).name, "offset": self._data.tell(), "length": value.nbytes}
            for key, held in where.items():
                tensor.external_data.add(key=key, value=str(held))
            tensor.data_location = self._onnx.TensorProto.EXTERNAL
            self._data.write(value.data)
        self._tensors[name] = tensor
        return name

    def ints(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))

    def matrix(self, rows: np.ndarray, quant: Quant | None = None) -> Matrix:
        """Stores float32[N, K]."""
        quant = quant and quant.fitting(rows.shape[1])
        parts = [rows] if quant is None else quant.codes(rows)
        return Matrix(len(rows), rows.shape[1], [self.weight(part) for part in parts], quant)

    def product(self, x: str, matrix: Matrix, bias: np.ndarray | None = None, into: str = "") -> str:
        """float32[..., K] -> float32[..., N]."""
        if matrix.quant is None:
            if bias is None:
                return self("!FusedMatMul", x, *matrix.tensors, transB=1, into=into)
            return self("Add", self("!FusedMatMul", x, *matrix.tensors, transB=1), self.weight(bias), into=into)
        codes, scales, *zeros = matrix.tensors
        bits, block = matrix.quant.bits, matrix.quant.block
        blocks = -(-matrix.columns // block)
        inputs = [x, self._as(codes, (matrix.rows, blocks, block * bits // 8)), scales, *(zeros or [""])]
        inputs += ["", self.weight(bias)] if bias is not None else []
        sizes: dict[str, Any] = {"K": matrix.columns, "N": matrix.rows, "bits": bits, "block_size": block}
        return self("!MatMulNBits", *inputs, **sizes, accuracy_level=INT8_PRODUCTS, into=into)

    def lookup(self, matrix: Matrix, index: str) -> str:
        """int64[...] -> those rows, float32[..., K]; K must be whole blocks."""
        if matrix.quant is None:
            return self("Gather", *matrix.tensors, index)
        codes, scales, *zeros = matrix.tensors
        quant: dict[str, Any] = {"bits": matrix.quant.bits, "block_size": matrix.quant.block}
        return self("!GatherBlockQuantized", codes, index, scales, *zeros, gather_axis=0, quantize_axis=1, **quant)

    def _as(self, name: str, shape: Sequence[int]) -> str:
        """The same stored bytes in another shape."""
        tensor = self._onnx.TensorProto()
        tensor.CopyFrom(self._tensors[name])
        tensor.name, tensor.dims[:] = f"{name}_as", shape
        self._tensors[tensor.name] = tensor
        return tensor.name

    def save(self, inputs: Arrays, outputs: Arrays) -> dict[str, Any]:
        """Writes the program; returns what a manifest says of it."""
        helper = self._onnx.helper

        def infos(arrays: Arrays) -> list[Any]:
            kinds = {name: helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for name, (kind, _) in arrays.items()}
            return [helper.make_tensor_value_info(name, kinds[name], shape) for name, (_, shape) in arrays.items()]

        used = {name for node in self._nodes for name in node.input}
        tensors = [tensor for name, tensor in self._tensors.items() if name in used]
        graph = helper.make_graph(self._nodes, self._file.stem, infos(inputs), infos(outputs), tensors)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="smolrgpt_jax")
        self._file.write_bytes(model.SerializeToString())

        def described(arrays: Arrays) -> dict[str, Any]:
            return {
                name: {"shape": list(shape), "dtype": np.dtype(kind).name} for name, (kind, shape) in arrays.items()
            }

        return {"file": self._file.name, "inputs": described(inputs), "outputs": described(outputs)}
