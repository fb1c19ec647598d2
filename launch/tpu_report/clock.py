"""Where a compiled program's time goes by the compiler's own estimate, which stands in a TPU program's text.

Nearly every instruction carries its cycles. Pallas kernels and collectives do not: a kernel is taken to last as long as the
larger of its FLOPs at the chip's peak and its bytes at full bandwidth, a collective as its bytes over the chip's links.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from launch.tpu_report.costs import Collective, flops_of
from launch.tpu_report.hlo import Computation, Instruction, Program
from smolrgpt_jax.chips import Chip

KERNEL = "tpu_custom_call"
# The innermost of these functions names the part of the model that an instruction belongs to.
PARTS = {
    r"Vision(Encoder|Block)\.": "encoder",
    r"Connector\.|pixel_shuffle": "connectors",
    r"Refiner\.|UpConv\.|mask_pooling|pool_cells|row_major|mask_cells": "refiners and mask pooling",
    r"Decoder\.logits|loss_sums|at_answers": "head and loss",
    r"Decoder\.embed|SmolRGPT\.embed": "embedding",
    r"DecoderBlock\.|Decoder\.|rotate|attend_flat|flat_attention|_gradients": "decoder layers",
    r"(chain|clip_by_\w+|scale_by_\w+|partition)\.<locals>|apply_updates|global_norm": "optimiser",
}
# What a fusion may hold besides and still be of the kind.
_ASIDE = frozenset(
    "parameter constant bitcast tuple get-tuple-element reshape slice dynamic-slice dynamic-update-slice".split()
)
_KINDS = (
    ("conversions", frozenset(("convert", "copy", "transpose"))),
    (
        "copies between layouts",
        frozenset("copy transpose concatenate pad reverse copy-start copy-done slice-start slice-done".split()),
    ),
    ("broadcasts", frozenset(("broadcast", "iota"))),
)


@dataclass(frozen=True)
class Work:
    """One instruction that takes time by itself: cycles and FLOPs of one run, and runs per step.

    part: of the model; kind: what it does; way: forward, backward, or recomputed (rematerialisation).
    """

    name: str
    part: str
    kind: str
    way: str
    cycles: float
    flops: float
    times: int


def work(program: Program, chip: Chip) -> list[Work]:
    """What a program does, instruction by instruction; those without cycles are left out (`unknown`)."""
    found = []
    for computation, instruction, times in program:
        if computation.name in program.fused:
            continue
        flops = flops_of(program, computation, instruction)
        cycles = _cycles(computation, instruction, flops, chip)
        if cycles:
            place = part(program, instruction), kind(program, instruction, flops), way(instruction)
            found.append(Work(instruction.name, *place, cycles, flops, times))
    return found


def _cycles(computation: Computation, instruction: Instruction, flops: float, chip: Chip) -> float:
    known = instruction.attribute(r'"estimated_cycles":"(\d+)"')
    if known is not None:
        return float(known)
    if not is_kernel(instruction):
        return 0.0
    return max(flops / chip.flops, kernel_bytes(computation, instruction) / chip.hbm_bandwidth) * chip.clock


def is_kernel(instruction: Instruction) -> bool:
    """Whether an instruction is a Pallas kernel."""
    return instruction.opcode == "custom-call" and KERNEL in instruction.text


def kernel_bytes(computation: Computation, instruction: Instruction) -> int:
    """Bytes that a kernel reads and writes: every operand and result once."""
    read = [a.bytes for o in computation.operands(instruction) if o is not None for a in o.result]
    return sum(read) + sum(a.bytes for a in instruction.result)


def part(program: Program, instruction: Instruction) -> str:
    """The part of the model that an instruction belongs to, "other" where its text does not tell."""
    for function in program.functions(instruction):
        for pattern, name in PARTS.items():
            if re.match(pattern, function):
                return name
    return "other"


def kind(program: Program, instruction: Instruction, flops: float) -> str:
    """What an instruction does, from what its fusion holds."""
    if is_kernel(instruction):
        return "kernels"
    if flops:
        return "products"
    held = set(_opcodes(program, instruction)) - _ASIDE
    for name, opcodes in _KINDS:
        if held <= opcodes and (name != "conversions" or "convert" in held):
            return name
    return "scatter and gather" if held & {"scatter", "gather"} else "element by element, sums"


def _opcodes(program: Program, instruction: Instruction) -> Iterator[str]:
    inner = program.callee(instruction) if instruction.opcode == "fusion" else None
    if inner is None:
        yield instruction.opcode
    else:
        for held in inner.instructions.values():
            yield from _opcodes(program, held)


def way(instruction: Instruction) -> str:
    """Forward, backward or recomputed, by the name of the operation it comes from."""
    name = instruction.attribute(r'op_name="([^"]*)"') or ""
    if "rematted" in name and "flat_attention_backward" not in name:
        return "recomputed"
    return "backward" if "transpose(jvp" in name else "forward"


def unknown(program: Program) -> Counter[str]:
    """Instructions that the compiler gives no cycles and that move or compute something, by kind, runs per step."""
    silent: Counter[str] = Counter()
    for computation, instruction, times in program:
        if computation.name in program.fused or instruction.opcode not in _TAKES_TIME or is_kernel(instruction):
            continue
        if "estimated_cycles" not in instruction.text and sum(a.bytes for a in instruction.result) > SMALL:
            silent[instruction.opcode] += times
    return silent


# Instructions that take time; below this many bytes too little to be told.
_TAKES_TIME = frozenset(
    "fusion copy copy-start slice-start dot convolution custom-call dynamic-update-slice sort scatter".split()
)
SMALL = 2**16


def communication(found: Sequence[Collective], chip: Chip) -> dict[str, Any]:
    """Seconds of a step's collectives: those that nothing runs beside, those that other work can hide, and between slices.

    The last is None where the chip's bandwidth is not public.
    """
    ici = {hidden: sum(c.ici_bytes * c.times for c in found if c.hidden == hidden) for hidden in (False, True)}
    crossing = sum(c.dcn_bytes * c.times for c in found)
    between = 0.0 if not crossing else crossing / chip.dcn_bandwidth if chip.dcn_bandwidth else None
    return {
        "alone": ici[False] / chip.ici_bandwidth,
        "beside_other_work": ici[True] / chip.ici_bandwidth,
        "between_slices": between,
    }


def summary(program: Program, found: Sequence[Collective], chip: Chip, model_flops: float) -> dict[str, Any]:
    """A step's time as plain JSON values: cycles by part and kind, communication, seconds, MFU.

    model_flops: FLOPs per chip that the model needs, rematerialisation left out. `seconds` hides what other work can hide and
    what goes between slices, `seconds_no_overlap` nothing.
    """
    done, links = work(program, chip), communication(found, chip)
    cycles = sum(w.cycles * w.times for w in done)
    busy = cycles / chip.clock + links["alone"]
    hidden = links["beside_other_work"], links["between_slices"] or 0.0
    times = {"": max(busy, *hidden), "_no_overlap": busy + sum(hidden)}
    return {
        "cycles": round(cycles),
        "clock_hz": chip.clock,
        "by_part": _summed(done, lambda w: w.part),
        "by_kind": _summed(done, lambda w: w.kind),
        "by_way": _summed(done, lambda w: w.way),
        "without_cycles": dict(unknown(program)),
        "communication_seconds": links,
        **{f"seconds{end}": time for end, time in times.items()},
        **{f"mfu{end}": model_flops / chip.flops / time if time else 0.0 for end, time in times.items()},
    }


def _summed(done: Sequence[Work], key: Callable[[Work], str]) -> dict[str, int]:
    """Cycles per step of each, most first."""
    total: Counter[str] = Counter()
    for w in done:
        total[key(w)] += round(w.cycles * w.times)
    return dict(total.most_common())
