"""What a compiled program needs of a chip, as JSON values and as text."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from launch.tpu_report import costs, hlo
from smolrgpt_jax.chips import Chip

GIB = 2**30
ASSUMPTIONS = (
    "matrix products run at the chip's peak bf16 rate; other arithmetic takes no time",
    "HBM traffic is what the compiled instructions read and write, at the full bandwidth; padding of tiles is left out",
    "instructions run one after another, each as long as the larger of its compute and HBM time; asynchronous copies overlap",
    "a collective uses all of a chip's links in one direction; latencies take no time",
    "`seconds` hides communication behind everything else, `seconds_no_overlap` hides none of it",
)


@dataclass(frozen=True)
class ProgramToCompile:
    """A jitted function with its abstract arguments, by what they are.

    FLOPs are of one run on all devices: what the model needs, and with what rematerialisation computes again.
    """

    function: Callable[..., Any]
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
    """Plain JSON values: memory, collectives, FLOPs, and an estimate of the time.

    Bytes and FLOPs are of one device and one run, unless named otherwise.
    """
    parsed = hlo.parse(compiled.as_text())
    work = costs.work(parsed)
    slices = [getattr(d, "slice_index", 0) or 0 for d in mesh.devices.flat]
    found = costs.collectives(parsed, slices)
    devices = mesh.devices.size
    flops = sum(w.flops * w.times for w in work)
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
        "hbm_traffic_bytes": sum(w.bytes * w.times for w in work),
        "loops": [{"name": n, "runs": t} for n, t in parsed.loops],
        "loops_of_unknown_length": parsed.unknown_loops,
        "collectives": summed(found),
        "estimate": estimate(chip, work, found, program.model_flops / devices),
        "chip": dataclasses.asdict(chip),
        "assumptions": list(ASSUMPTIONS),
    }


def estimate(
    chip: Chip, work: Sequence[costs.Work], collectives: Sequence[costs.Collective], model_flops: float
) -> dict[str, float | None]:
    """An estimate of a program's time on one chip, in seconds, from what it computes and moves. Nothing of it was measured.

    model_flops: FLOPs per chip that the model needs, rematerialisation left out. Returns each resource by itself: compute, hbm,
    ici, dcn (adds no time and is None where the chip's bandwidth is not public); `seconds` and `seconds_no_overlap`, see
    ASSUMPTIONS; `mfu` and `mfu_no_overlap`: the model's FLOPs over peak FLOPs in that time.
    """
    compute = sum(w.flops * w.times for w in work) / chip.flops
    hbm = sum(w.bytes * w.times for w in work) / chip.hbm_bandwidth
    serial = sum(max(w.flops / chip.flops, w.bytes / chip.hbm_bandwidth) * w.times for w in work if not w.overlaps)
    ici = sum(c.ici_bytes * c.times for c in collectives) / chip.ici_bandwidth
    crossing = sum(c.dcn_bytes * c.times for c in collectives)
    dcn = 0.0 if not crossing else crossing / chip.dcn_bandwidth if chip.dcn_bandwidth else None
    busy = max(serial, hbm)
    found = {"compute": compute, "hbm": hbm, "ici": ici, "dcn": dcn}
    for end, time in (("", max(busy, ici, dcn or 0.0)), ("_no_overlap", busy + ici + (dcn or 0.0))):
        found |= {f"seconds{end}": time, f"mfu{end}": model_flops / chip.flops / time if time else 0.0}
    return found


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
    e, chip = report["estimate"], report["chip"]
    dcn = "unknown" if e["dcn"] is None else f"{e['dcn'] * 1e3:.1f} ms"
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
            f"{c['bytes_per_step'] / 1e6:.1f} MB per step{crossing}"
        )
    if report["loops_of_unknown_length"]:
        lines.append(f"  loops of unknown length, counted once: {', '.join(report['loops_of_unknown_length'])}")
    lines += [
        f"estimated for {chip['name']}: compute {e['compute'] * 1e3:.1f} ms, HBM {e['hbm'] * 1e3:.1f} ms, "
        f"ICI {e['ici'] * 1e3:.1f} ms, between slices {dcn}",
        f"  {e['seconds'] * 1e3:.1f} ms and {e['mfu']:.1%} MFU with communication hidden, "
        f"{e['seconds_no_overlap'] * 1e3:.1f} ms and {e['mfu_no_overlap']:.1%} with none hidden",
        *(f"  assumed: {a}" for a in report["assumptions"]),
        f"  figures: {chip['source']}",
    ]
    return "\n".join(lines)
