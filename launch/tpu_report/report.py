"""What a compiled program needs of a chip, as JSON values and as text."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from launch.tpu_report import clock, costs, hlo
from smolrgpt_jax.chips import Chip

GIB = 2**30
# Of a training's program.
LOGITS = "logits are those of half of a row's tokens: about as many are answers; a run makes them for those of its fullest row"
SAID = (
    "cycles are the compiler's own estimates, summed, loops as often as they run; nothing was run",
    "a Pallas kernel carries none: the larger of its FLOPs at the chip's peak and its bytes at full bandwidth is taken",
    "a collective carries none: its bytes at the speed of all links in one direction are taken, without latency",
)


@dataclass(frozen=True)
class ProgramToCompile:
    """A jitted function with its abstract arguments, by what they are.

    FLOPs are of one run on all devices: what the model needs, and with what rematerialisation computes again.
    """

    function: jax.stages.Wrapped
    arguments: Mapping[str, Any]
    rows: int
    model_flops: float
    computed_flops: float

    def argument_bytes(self) -> dict[str, int]:
        """Bytes on one device by kind of argument."""
        return {
            kind: sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
            for kind, tree in self.arguments.items()
            if kind != "key"
        }


def report_on(program: ProgramToCompile, compiled: Any, mesh: Mesh, chip: Chip) -> dict[str, Any]:
    """Plain JSON values: memory, collectives, FLOPs, and the time by the compiler's clock.

    Bytes and FLOPs are of one device and one run, unless named otherwise.
    """
    parsed = hlo.parse(compiled.as_text())
    slices = [getattr(d, "slice_index", 0) or 0 for d in mesh.devices.flat]
    found = costs.collectives(parsed, slices)
    devices = mesh.devices.size
    flops = costs.program_flops(parsed)
    return {
        "run": "compiled, not run",
        "devices": devices,
        "mesh": dict(mesh.shape),
        "slices": len(set(slices)),
        "rows": program.rows,
        "memory": memory(compiled, program.argument_bytes(), chip),
        "flops": {
            "of_compiled_program": flops,
            "analytic": program.computed_flops / devices,
            "compiled_over_analytic": flops / (program.computed_flops / devices),
            "needed_by_the_model": program.model_flops / devices,
        },
        "loops": [{"name": n, "runs": t} for n, t in parsed.loops],
        "loops_of_unknown_length": parsed.unknown_loops,
        "collectives": summed(found),
        "clock": clock.summary(parsed, found, chip, program.model_flops / devices),
        "chip": dataclasses.asdict(chip),
        "said": list(SAID),
    }


def memory(compiled: Any, kept: Mapping[str, int], chip: Chip) -> dict[str, Any]:
    """Bytes on one device by kind; `total` counts arguments and outputs that share memory once."""
    stats = compiled.memory_analysis()
    named = {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes,
        "donated": stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
    }
    total = named["arguments"] + named["outputs"] - named["donated"] + named["temporaries"]
    return named | {"total": total, "arguments_by_kind": dict(kept), "chip_hbm": chip.hbm_bytes}


def summed(collectives: Sequence[costs.Collective]) -> list[dict[str, Any]]:
    """Collectives of one kind, group size and span of slices together: operations, runs and bytes per step."""
    groups: dict[tuple, list[costs.Collective]] = {}
    for c in collectives:
        groups.setdefault((c.kind, c.size, c.slices), []).append(c)
    return [
        {
            "kind": kind,
            "group_size": size,
            "slices": slices,
            "operations": len(members),
            "runs_per_step": sum(c.times for c in members),
            "bytes_per_step": sum(c.times * c.bytes for c in members),
            "ici_bytes_per_step": sum(c.times * c.ici_bytes for c in members),
            "dcn_bytes_per_step": sum(c.times * c.dcn_bytes for c in members),
        }
        for (kind, size, slices), members in sorted(groups.items())
    ]


def as_text(report: Mapping[str, Any]) -> str:
    """The report in a few lines for people."""
    memory, flops = report["memory"], report["flops"]
    time, chip = report["clock"], report["chip"]
    links = time["communication_seconds"]
    between = "unknown" if links["between_slices"] is None else f"{links['between_slices'] * 1e3:.1f} ms"
    mesh = " x ".join(f"{axis} {size}" for axis, size in report["mesh"].items())
    lines = [
        f"{report['run']}: {report['rows']} rows on {report['devices']} devices, {mesh}, {report['slices']} slice(s)",
        f"memory per chip {memory['total'] / GIB:.2f} GiB of {memory['chip_hbm'] / GIB:.2f}: "
        f"arguments {memory['arguments'] / GIB:.2f}, outputs {memory['outputs'] / GIB:.2f} "
        f"({memory['donated'] / GIB:.2f} of them in donated arguments), temporaries {memory['temporaries'] / GIB:.2f}",
        "  " + ", ".join(f"{k} {v / GIB:.3f}" for k, v in memory["arguments_by_kind"].items()),
        f"FLOPs per chip {flops['of_compiled_program']:.4g}, {flops['compiled_over_analytic']:.3f} x the analytic count",
    ]
    for c in report["collectives"]:
        crossing = f", {c['dcn_bytes_per_step'] / 1e6:.1f} MB sent to other slices" if c["slices"] > 1 else ""
        lines.append(
            f"  {c['kind']} over {c['group_size']}: {c['operations']} operations, {c['runs_per_step']} runs, "
            f"{c['bytes_per_step'] / 1e6:.1f} MB per step, {c['ici_bytes_per_step'] / 1e6:.1f} MB sent over links{crossing}"
        )
    if report["loops_of_unknown_length"]:
        lines.append(f"  loops of unknown length, counted once: {', '.join(report['loops_of_unknown_length'])}")
    lines.append(
        f"by the compiler's clock, not run: {time['cycles'] / 1e6:.1f} M cycles at {time['clock_hz'] / 1e9:.2f} GHz"
    )
    for title in ("by_part", "by_kind", "by_way"):
        shares = (f"{name} {cycles / 1e6:.1f} ({cycles / time['cycles']:.0%})" for name, cycles in time[title].items())
        lines.append(f"  {title.replace('_', ' ')}, M: {', '.join(shares)}")
    if time["without_cycles"]:
        silent = (f"{times} {opcode}" for opcode, times in time["without_cycles"].items())
        lines.append(f"  runs of instructions of unknown cost: {', '.join(silent)}")
    lines += [
        f"  collectives: {links['alone'] * 1e3:.1f} ms by themselves, {links['beside_other_work'] * 1e3:.1f} ms that other work "
        f"can hide, {between} between slices",
        f"  {time['seconds'] * 1e3:.1f} ms and {time['mfu']:.1%} MFU with that hidden, {time['seconds_no_overlap'] * 1e3:.1f} ms and "
        f"{time['mfu_no_overlap']:.1%} with none hidden",
        *(f"  {sentence}" for sentence in report["said"]),
        f"  figures of {chip['name']}: {chip['source']}",
    ]
    return "\n".join(lines)
