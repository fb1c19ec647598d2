"""Reads the text of a compiled XLA program: computations, instructions, how often each one runs.

`compiled.cost_analysis()` counts the body of a loop once; here a body counts as often as the loop's condition allows.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

BYTES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "s64": 8, "u64": 8,
    "f8e4m3fn": 1, "f8e5m2": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip

_ARRAY = re.compile(r"([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\](\{[^}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(r"(calls|body|condition|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")


@dataclass(frozen=True)
class Array:
    """One array of an instruction's result. memory: XLA's memory space, 0 the device's main memory (HBM)."""

    dtype: str
    shape: tuple[int, ...]
    memory: int = 0

    @property
    def bytes(self) -> int:
        return math.ceil(math.prod(self.shape) * BYTES.get(self.dtype, 0))

    @property
    def hbm_bytes(self) -> int:
        return 0 if self.memory else self.bytes


@dataclass(frozen=True)
class Instruction:
    """name = result opcode(operands), attributes."""

    name: str
    opcode: str
    result: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str  # operands and attributes as printed
    root: bool = False

    def called(self, kind: str) -> str | None:
        """The computation named by an attribute (calls, body, condition, to_apply)."""
        return next((name for k, name in _CALLED.findall(self.text) if k == kind), None)

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in the printed attributes."""
        found = re.search(pattern, self.text)
        return found and found.group(1)


@dataclass
class Computation:
    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @property
    def root(self) -> Instruction:
        return next(i for i in self.instructions.values() if i.root)

    def operand(self, instruction: Instruction, index: int) -> Instruction | None:
        """The instruction that makes an operand; None for one printed without a name."""
        if index >= len(instruction.operands):
            return None
        return self.instructions.get(instruction.operands[index])


@dataclass
class Program:
    """A parsed module. fused: computations that are bodies of fusions, whose intermediate results are never in memory."""

    computations: dict[str, Computation]
    entry: str
    fused: set[str] = field(default_factory=set)
    runs: dict[str, int] = field(default_factory=dict)
    loops: list[tuple[str, str, int]] = field(default_factory=list)
    unknown_loops: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """Every instruction that runs, with how often."""
        for name, times in self.runs.items():
            for instruction in self.computations[name].instructions.values():
                yield self.computations[name], instruction, times


def parse(text: str) -> Program:
    """Parses `compiled.as_text()`; raises ValueError if it holds no entry computation.

    A loop's number of runs comes from its known trip count, or from the bound its counter is compared with; loops with
    neither count once and are listed in `unknown_loops`.
    """
    computations: dict[str, Computation] = {}
    entry = current = last = None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations.setdefault(header.group(2), Computation(header.group(2)))
            if header.group(1):
                entry = current.name
        elif current is not None and line == "}":
            current = last = None
        elif current is not None:
            instruction = _instruction(line)
            if instruction is None and last is not None:
                # Attributes of kernels are printed over several lines.
                instruction = dataclasses.replace(last, text=last.text + line)
            if instruction is not None:
                current.instructions[instruction.name] = last = instruction
    if entry is None:
        raise ValueError("the text holds no entry computation of a compiled program")
    program = Program(computations, entry)
    _count_runs(program)
    return program


def _instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if not match:
        return None
    rest = match.group(3)
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    result, rest = rest[:end], rest[end:].lstrip()
    opening = rest.find("(")
    if opening < 0:
        return None
    closing = _closing(rest, opening)
    operands = re.findall(r"%([\w.\-]+)", rest[opening : closing + 1])
    return Instruction(
        match.group(2), rest[:opening], arrays(result), tuple(operands), rest[opening:], bool(match.group(1))
    )


def _closing(text: str, opening: int) -> int:
    depth = 0
    for place in range(opening, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a printed type: "(s32[], bf16[2,3]{1,0:T(8,128)S(1)})" has two."""
    found = []
    for dtype, shape, layout in _ARRAY.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        sizes = tuple(int(s) for s in shape.split(",") if s)
        found.append(Array(dtype, sizes, int(space.group(1)) if space else 0))
    return tuple(found)


def _count_runs(program: Program) -> None:
    runs: dict[str, int] = defaultdict(int)

    def visit(name: str, times: int, fused: bool) -> None:
        runs[name] += times
        if fused:
            program.fused.add(name)
        computation = program.computations[name]
        for instruction in computation.instructions.values():
            if instruction.opcode == "while":
                body, condition = instruction.called("body"), instruction.called("condition")
                trips = trip_count(program, computation, instruction)
                if trips is None:
                    program.unknown_loops.append(instruction.name)
                    trips = 1
                program.loops.append((instruction.name, body, times * trips))
                visit(body, times * trips, fused)
                visit(condition, times * trips, fused)
                continue
            inner = [instruction.called("calls")]
            if instruction.opcode == "call":
                inner.append(instruction.called("to_apply"))
            for group in _BRANCHES.findall(instruction.text):
                inner += re.findall(r"%?([\w.\-]+)", group)
            for callee in inner:
                if callee in program.computations:
                    visit(callee, times, fused or instruction.opcode == "fusion")

    visit(program.entry, 1, False)
    program.runs = dict(runs)


def trip_count(program: Program, computation: Computation, loop: Instruction) -> int | None:
    """How often a loop's body runs at most; None if its text does not tell."""
    known = loop.attribute(r'known_trip_count":\{"n":"(\d+)"')
    if known:
        return int(known)
    body, condition = (program.computations[loop.called(k)] for k in ("body", "condition"))
    for compare in _compares(program, condition):
        owner, instruction, inputs = compare
        left, right = (_source(owner, instruction, i, inputs) for i in (0, 1))
        if instruction.attribute(r"direction=(LT)") is None or left is None or right is None:
            continue
        index = left.attribute(r"index=(\d+)") if left.opcode == "get-tuple-element" else None
        bound = _constant(right) if right.opcode == "constant" else _initial(computation, loop, right)
        if index is None or bound is None:
            continue
        start = _initial(computation, loop, left)
        step = _step(body, int(index))
        return max(0, -(-(bound - (start or 0)) // step))
    return None


def _compares(program: Program, condition: Computation):
    """Comparisons in a condition or its fusions: (computation, comparison, what the fusion's parameters stand for)."""
    for instruction in condition.instructions.values():
        if instruction.opcode == "compare":
            yield condition, instruction, None
        elif instruction.opcode == "fusion":
            inner = program.computations[instruction.called("calls")]
            inputs = [condition.operand(instruction, i) for i in range(len(instruction.operands))]
            for i in inner.instructions.values():
                if i.opcode == "compare":
                    yield inner, i, inputs


def _source(
    owner: Computation, instruction: Instruction, index: int, inputs: list[Instruction | None] | None
) -> Instruction | None:
    found = owner.operand(instruction, index)
    while found is not None and found.opcode in ("bitcast", "copy", "broadcast", "convert"):
        found = owner.operand(found, 0)
    if found is not None and found.opcode == "parameter" and inputs is not None:
        return inputs[int(found.attribute(r"^\((\d+)\)"))]
    return found


def _constant(instruction: Instruction) -> int | None:
    value = instruction.attribute(r"^\((-?\d+)\)")
    return None if value is None else int(value)


def _initial(computation: Computation, loop: Instruction, element: Instruction) -> int | None:
    """The constant that an element of a loop's state starts from."""
    index = element.attribute(r"index=(\d+)")
    state = computation.operand(loop, 0)
    if index is None or state is None or state.opcode != "tuple":
        return None
    start = computation.operand(state, int(index))
    while start is not None and start.opcode in ("copy", "bitcast"):
        start = computation.operand(start, 0)
    return None if start is None or start.opcode != "constant" else _constant(start)


def _step(body: Computation, index: int) -> int:
    """By how much a loop's counter grows; 1 unless the body adds another constant to it."""
    if body.root.opcode != "tuple":
        return 1
    new = body.operand(body.root, index)
    if new is not None and new.opcode == "add":
        for i in (0, 1):
            added = body.operand(new, i)
            if added is not None and added.opcode == "constant":
                return _constant(added) or 1
    return 1
