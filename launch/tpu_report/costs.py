"""FLOPs and collectives of a parsed program, per device and per run."""

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from launch.tpu_report.hlo import Computation, Instruction, Program

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Collective:
    """One collective operation of the program.

    times: runs per step; size: devices of a group; bytes: of its result (reduce-scatter: its operand), on one device and for one
    run; slices: slices that a group spans; hidden: whether other work can run meanwhile.
    """

    kind: str
    channel: int
    times: int
    size: int
    bytes: int
    slices: int = 1
    hidden: bool = False

    @property
    def ici_bytes(self) -> float:
        """Bytes that a chip sends to others of its slice in one run, in the ring (or bucket) algorithm of each kind."""
        if self.kind == "collective-permute":
            return self.bytes if self.slices == 1 else 0
        return self._ring(self.size // self.slices) * self.bytes

    @property
    def dcn_bytes(self) -> float:
        """Bytes that a chip sends to other slices in one run: its share of the slice's sum, exchanged in a ring."""
        if self.slices == 1:
            return 0
        if self.kind == "collective-permute":
            return self.bytes
        return self._ring(self.slices) * self.bytes / (self.size // self.slices)

    def _ring(self, members: int) -> float:
        """Bytes that each member sends per byte of the collective."""
        return (2 if self.kind == "all-reduce" else 1) * (members - 1) / members if members else 0


def program_flops(program: Program) -> float:
    """FLOPs of a step: each fusion's are those of its parts."""
    return sum(flops_of(program, c, i) * times for c, i, times in program if c.name not in program.fused)


def flops_of(program: Program, computation: Computation, instruction: Instruction) -> float:
    """FLOPs of one run of an instruction; of a fusion those of its parts."""
    count = {"dot": dot_flops, "convolution": convolution_flops, "custom-call": kernel_flops}.get(instruction.opcode)
    if count is not None:
        return count(computation, instruction)
    inner = program.callee(instruction) if instruction.opcode == "fusion" else None
    return 0.0 if inner is None else sum(flops_of(program, inner, i) for i in inner.instructions.values())


def dot_flops(computation: Computation, instruction: Instruction) -> float:
    """Two per multiply-add of a matrix product."""
    left = computation.operands(instruction)[0].result[0].shape
    contracted = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    return 2.0 * math.prod(instruction.result[0].shape) * math.prod(left[d] for d in _numbers(contracted))


def convolution_flops(computation: Computation, instruction: Instruction) -> float:
    """Two per multiply-add whose input is not padding or a hole of dilation.

    XLA on TPU writes matrix products as convolutions, batch dimensions as strided and dilated spatial ones.
    """
    left, right = (operand.result[0].shape for operand in computation.operands(instruction))
    out = instruction.result[0].shape
    left_dims, right_dims, out_dims = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.text).groups()
    window = dict(part.split("=") for part in (instruction.attribute(r"window=\{([^}]*)\}") or "").split())
    ones = "x".join("1" * (len(out) - 2))
    stride, holes, spread = (_numbers(window.get(name, ones), "x") for name in ("stride", "lhs_dilate", "rhs_dilate"))
    pad = [int(p.split("_")[0]) for p in window["pad"].split("x")] if "pad" in window else [0] * len(stride)
    valid = 1
    for d in range(len(out) - 2):
        sides = ((left, left_dims), (right, right_dims), (out, out_dims))
        size, kernel, places = (shape[dims.index(str(d))] for shape, dims in sides)
        position = np.arange(places)[:, None] * stride[d] - pad[d] + np.arange(kernel) * spread[d]
        inside = (position >= 0) & (position <= (size - 1) * holes[d])
        valid *= int(np.count_nonzero(inside & (position % holes[d] == 0)))
    groups = int(instruction.attribute(r"batch_group_count=(\d+)") or 1)
    features = right[right_dims.index("i")]
    return 2.0 * valid * out[out_dims.index("f")] * out[out_dims.index("b")] * features / groups


def kernel_flops(computation: Computation, instruction: Instruction) -> float:
    """FLOPs of a kernel of `models.flat_attention`: XLA does not look inside. Other custom calls have none.

    Forward: two products of [S, D] with [S, D] per head; backward: five.
    """
    way = instruction.attribute(r"flat_attention_(forward|backward)")
    if way is None:
        return 0.0
    # The gradient of the output, or the output, is as wide as the queries.
    queries = computation.operands(instruction)[1].result[0] if way == "backward" else instruction.result[0]
    return 2.0 * (5 if way == "backward" else 2) * math.prod(queries.shape) * queries.shape[1]


def collectives(program: Program, slice_of: Sequence[int] = ()) -> list[Collective]:
    """The program's collectives, one per kind and channel.

    slice_of: the slice of each device in the order of the mesh; empty for one slice. Asynchronous ones are printed in several
    computations under one channel and count once. Programs for several slices hold the part between slices as a send to the
    host, after a reduction within the slice.
    """
    found: dict[tuple[str, int], Collective] = {}
    without_channel = itertools.count(-1, -1)
    for computation, instruction, times in program:
        kind = instruction.opcode.removesuffix("-start")
        if kind == "send" and "megascale" in instruction.text:
            between = _between_slices(instruction, times)
            found[between.kind, between.channel] = between
        if kind not in COLLECTIVES:
            continue
        channel = int(instruction.attribute(r"channel_id=(\d+)") or 0) or next(without_channel)
        groups = replica_groups(instruction.text)
        spans = max((len({slice_of[d] for d in group}) for group in groups), default=1) if len(slice_of) else 1
        amount = sum(a.bytes for a in instruction.result)
        if kind in ("all-gather", "collective-permute") and kind != instruction.opcode and len(instruction.result) > 1:
            # The result of these starts holds the operands besides.
            amount = instruction.result[1].bytes
        if computation.name.startswith("all-reduce-scatter") and kind == "all-reduce":
            kind = "reduce-scatter"
        taken = [a.bytes for o in computation.operands(instruction) if o is not None for a in o.result]
        if kind == "reduce-scatter" and taken:
            amount = sum(taken)
        size = len(groups[0]) if groups else 1
        # Started and awaited apart, or in one fusion with a product that runs meanwhile.
        hidden = instruction.opcode.endswith("-start") or "async" in computation.name
        new = Collective(kind, channel, times, size, amount, spans, hidden)
        known = found.get((kind, channel), new)
        # One that steps on in every run of a loop is printed there too, and is started once.
        once = new if times < known.times else known
        found[kind, channel] = dataclasses.replace(once, hidden=hidden or known.hidden)
    return list(found.values())


def _between_slices(send: Instruction, times: int) -> Collective:
    kind = (send.attribute(r'_xla_megascale_transfer_type="(\w+)"') or "").lower().replace("_", "-")
    members = send.attribute(r'_xla_megascale_target="\{([\d,:]+)\}') or "0:1"
    ends = [_numbers(part, ":") for part in members.split(",")]
    slices = sum(end[-1] - end[0] + 1 for end in ends)
    kind = kind if kind in COLLECTIVES else "collective-permute"
    channel = int(send.attribute(r"channel_id=(\d+)") or 0)
    return Collective(kind, channel, times, size=slices, bytes=send.result[0].bytes, slices=slices)


def replica_groups(text: str) -> list[list[int]]:
    """The device groups of a collective, from any of the three forms XLA prints; raises ValueError for another one.

    {{0,1},{2,3}}, also of pairs of source and target; [2,2]<=[4] or [2,2]<=[2,2]T(1,0); mesh['a'=2,'b'=2] {'b'}, groups along the named axes, with
    device_ids=([2,2]T(1,0)) where the mesh is not in the devices' order.
    """
    if listed := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}", text):
        return [_numbers(group) for group in re.findall(r"\{([\d, ]+)\}", listed.group(1))]
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, dims, order = map(_numbers, iota.groups())
        return _iota(dims, order).reshape(shape).tolist()
    mesh = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((?:\[([\d,]+)\](?:T\(([\d,]+)\))?|([\d,]+))\))? "
        r"\{([^}:]*)\}",
        text,
    )
    if mesh:
        axes, dims, order, ids, chosen = mesh.groups()
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
        devices = np.array(_numbers(ids)) if ids else _iota(_numbers(dims) or [*sizes.values()], _numbers(order))
        inner = [list(sizes).index(name) for name in re.findall(r"'([^']+)'", chosen)]
        moved = np.moveaxis(devices.reshape([*sizes.values()]), inner, range(-len(inner), 0))
        return moved.reshape(-1, math.prod(moved.shape[len(sizes) - len(inner) :])).tolist()
    if form := re.search(r"replica_groups=.{0,80}", text):
        raise ValueError(f"device groups in an unknown form: {form.group(0)}")
    return []


def _numbers(text: str | None, separator: str = ",") -> list[int]:
    return [int(number) for number in text.split(separator)] if text else []


def _iota(dims: Sequence[int], order: Sequence[int]) -> np.ndarray:
    """0, 1, 2, ... in an array of these sizes, its axes in that order."""
    return np.arange(math.prod(dims)).reshape(dims).transpose(order or range(len(dims)))
