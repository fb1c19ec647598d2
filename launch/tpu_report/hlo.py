"""Reads the text of a compiled XLA program: computations, instructions, how often each one runs.

`compiled.cost_analysis()` counts the body of a loop once; here a body counts as often as the loop's condition allows.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

BYTES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "s64": 8, "u64": 8,
    "f8e4m3fn": 1, "f8e5m2": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip

_ARRAY = re.compile(r"([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\](\{[^}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
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
        """The computation named by an attribute: calls, body, condition, to_apply."""
        return self.attribute(rf"\b{kind}=%?([\w.\-]+)")

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in the printed attributes."""
        found = re.search(pattern, self.text)
        return found and found.group(1)

    @property
    def number(self) -> int | None:
        """The whole number in the parentheses: of a parameter, or the value of a constant."""
        found = self.attribute(r"^\((-?\d+)\)")
        return None if found is None else int(found)


@dataclass
class Computation:
    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    def of(self, opcode: str) -> list[Instruction]:
        """The instructions of one kind."""
        return [i for i in self.instructions.values() if i.opcode == opcode]

    def operands(self, instruction: Instruction) -> list[Instruction | None]:
        """The instructions that make an instruction's operands; None for one printed without a name."""
        return [self.instructions.get(name) for name in instruction.operands]

    def source(self, instruction: Instruction | None, *through: str) -> Instruction | None:
        """The instruction that a value comes from, past those of the given opcodes."""
        while instruction is not None and instruction.opcode in through:
            instruction = self.instructions.get(instruction.operands[0]) if instruction.operands else None
        return instruction


@dataclass
class Program:
    """A parsed module.

    runs: computation -> runs per step. fused: bodies of fusions, whose intermediate results are never in memory. loops: body
    runs of each by its name; those of unknown length count once.
    """

    computations: dict[str, Computation]
    entry: str
    runs: Counter[str] = field(default_factory=Counter)
    fused: set[str] = field(default_factory=set)
    loops: list[tuple[str, int]] = field(default_factory=list)
    unknown_loops: list[str] = field(default_factory=list)
    frames: dict[int, tuple[str, int]] = field(default_factory=dict)  # stack frame -> function, frame of its caller

    def __iter__(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """Every instruction that runs, with how often."""
        for name, times in self.runs.items():
            for instruction in self.computations[name].instructions.values():
                yield self.computations[name], instruction, times

    def callee(self, instruction: Instruction) -> Computation | None:
        """The body of a fusion or an asynchronous operation."""
        return self.computations.get(instruction.called("calls") or "")

    def functions(self, instruction: Instruction) -> Iterator[str]:
        """The Python functions that an instruction comes from, innermost first; none where the text does not tell."""
        frame = int(instruction.attribute(r"stack_frame_id=(\d+)") or 0)
        while frame in self.frames:
            name, frame = self.frames[frame]
            yield name

    def count(self, name: str, times: int = 1, fused: bool = False) -> None:
        """Adds the runs of a computation and of all that it calls."""
        self.runs[name] += times
        if fused:
            self.fused.add(name)
        computation = self.computations[name]
        for instruction in computation.instructions.values():
            if instruction.opcode == "while":
                trips = trip_count(self, computation, instruction)
                if trips is None:
                    self.unknown_loops.append(instruction.name)
                    trips = 1
                self.loops.append((instruction.name, times * trips))
                self.count(instruction.called("body"), times * trips, fused)
                self.count(instruction.called("condition"), times * trips, fused)
                continue
            called = [instruction.called("calls")]
            called += [instruction.called("to_apply")] if instruction.opcode == "call" else []
            for group in _BRANCHES.findall(instruction.text):
                called += re.findall(r"%?([\w.\-]+)", group)
            for callee in called:
                if callee in self.computations:
                    self.count(callee, times, fused or instruction.opcode == "fusion")


def parse(text: str) -> Program:
    """Parses `compiled.as_text()`; raises ValueError if it holds no entry computation.

    A loop's number of runs comes from its known trip count, or from the bound its counter is compared with.
    """
    computations: dict[str, Computation] = {}
    entry = current = last = None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations.setdefault(header.group(2), Computation(header.group(2)))
            entry = current.name if header.group(1) else entry
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
    program = Program(computations, entry, frames=_frames(text))
    program.count(entry)
    return program


def _frames(text: str) -> dict[int, tuple[str, int]]:
    """The stack frames in front of the computations; a caller's number is printed one too high."""
    names = dict(re.findall(r'^(\d+) "(.*)"$', _table(text, "FunctionNames"), re.M))
    places = dict(re.findall(r"^(\d+) \{.*function_name_id=(\d+)", _table(text, "FileLocations"), re.M))
    found = re.findall(r"^(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?", _table(text, "StackFrames"), re.M)
    return {int(n): (names.get(places.get(place, ""), ""), int(caller or 1) - 1) for n, place, caller in found}


def _table(text: str, title: str) -> str:
    return (re.search(rf"^{title}\n((?:\d+ .*\n)*)", text, re.M) or [""] * 2)[1]


def _instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if not match:
        return None
    root, name, rest = match.groups()
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    result, rest = rest[:end], rest[end:].lstrip()
    opening = rest.find("(")
    if opening < 0:
        return None
    operands = re.findall(r"%([\w.\-]+)", rest[opening : _closing(rest, opening) + 1])
    return Instruction(name, rest[:opening], arrays(result), tuple(operands), rest[opening:], bool(root))


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


def trip_count(program: Program, computation: Computation, loop: Instruction) -> int | None:
    """How often a loop's body runs at most; None if its text does not tell."""
    known = loop.attribute(r'known_trip_count":\{"n":"(\d+)"')
    if known:
        return int(known)
    (state,) = computation.operands(loop) or [None]
    for counter, bound in _comparisons(program, program.computations[loop.called("condition")]):
        index = counter.attribute(r"index=(\d+)") if counter.opcode == "get-tuple-element" else None
        stop = bound.number if bound.opcode == "constant" else _initial(computation, state, bound)
        if index is not None and stop is not None:
            start = _initial(computation, state, counter) or 0
            return max(0, -(-(stop - start) // _step(program.computations[loop.called("body")], int(index))))
    return None


def _comparisons(program: Program, condition: Computation) -> Iterator[tuple[Instruction, Instruction]]:
    """What a condition, or a fusion in it, compares by "less than": elements of the loop's state, constants."""
    for fusion in (None, *condition.of("fusion")):
        owner = condition if fusion is None else program.callee(fusion)
        for compare in owner.of("compare"):
            sides = [owner.source(side, "bitcast", "copy", "broadcast", "convert") for side in owner.operands(compare)]
            if fusion is not None:
                given = condition.operands(fusion)
                sides = [given[s.number] if s is not None and s.opcode == "parameter" else s for s in sides]
            if "direction=LT" in compare.text and None not in sides:
                yield tuple(sides)


def _initial(computation: Computation, state: Instruction | None, element: Instruction) -> int | None:
    """The constant that an element of a loop's state starts from."""
    index = element.attribute(r"index=(\d+)")
    if index is None or state is None or state.opcode != "tuple":
        return None
    start = computation.source(computation.operands(state)[int(index)], "copy", "bitcast")
    return start.number if start is not None and start.opcode == "constant" else None


def _step(body: Computation, index: int) -> int:
    """By how much a loop's counter grows: what the body adds to it, as the TPU's compiler unrolls some loops by two; else 1."""
    root = next(i for i in body.instructions.values() if i.root)
    new = body.operands(root)[index] if root.opcode == "tuple" else None
    added = body.operands(new) if new is not None and new.opcode == "add" else []
    return next((i.number or 1 for i in added if i is not None and i.opcode == "constant"), 1)
