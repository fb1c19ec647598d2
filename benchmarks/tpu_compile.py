"""The published model's programs, rows of 512 tokens, compiled for TPU topologies: memory, collectives, FLOPs, estimated time.

    python -m benchmarks.tpu_compile [--out benchmarks/results] [--only NAME ...]

Writes tpu_compile/NAME.json for every program and the table tpu_compile.md. Nothing is run on a TPU; libtpu is needed (the `tpu`
extra). A program whose JSON is there already is not compiled again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
ROW_TOKENS = 512
STAGE1, STAGE2, STAGE3 = (f"configs/{name}.py" for name in ("stage1_connector", "stage2_refiner", "stage3_sft"))


@dataclass(frozen=True)
class Case:
    """One program: configuration file, topology, slices, rows of all chips, and further arguments of the command."""

    config: str
    topology: str
    rows: int
    slices: int = 1
    arguments: tuple[str, ...] = ()

    def command(self, out: Path) -> list[str]:
        """The command that compiles it."""
        return [
            sys.executable,
            "-m",
            "launch.compile_for_tpu",
            f"--config={self.config}",
            f"--topology={self.topology}",
            f"--slices={self.slices}",
            f"--config.batch_rows={self.rows}",
            f"--config.data.row_tokens={ROW_TOKENS}",
            f"--out={out}",
            *self.arguments,
        ]


FSDP = ("--config.strategy=fsdp",)
CASES: dict[str, Case] = {
    "stage3_v5e_4x4": Case(STAGE3, "v5e:4x4", 1024, arguments=("--config.accumulation=4",)),
    "stage3_v5e_8x8": Case(STAGE3, "v5e:8x8", 1024),
    "stage3_v5e_16x16": Case(STAGE3, "v5e:16x16", 1024),
    "stage3_v5e_16x16_fsdp": Case(STAGE3, "v5e:16x16", 1024, arguments=FSDP),
    "stage3_v5e_16x16_data": Case(STAGE3, "v5e:16x16", 1024, arguments=("--config.strategy=data",)),
    "stage3_2_slices_v5e_16x16": Case(STAGE3, "v5e:16x16", 2048, slices=2),
    "stage3_v5p_4x4x4": Case(STAGE3, "v5p:4x4x4", 1024),
    "stage3_v6e_16x16": Case(STAGE3, "v6e:16x16", 1024),
    "stage1_v5e_16x16": Case(STAGE1, "v5e:16x16", 1024, arguments=("--config.data.row_pictures=1",)),
    "stage2_v5e_16x16": Case(STAGE2, "v5e:16x16", 1024),
    "prefill_v5e_4x4": Case(STAGE3, "v5e:4x4", 1024, arguments=("--what=prefill",)),
    "decode_v5e_4x4": Case(STAGE3, "v5e:4x4", 1024, arguments=("--what=decode", "--new_tokens=64")),
    "largest_batch_stage3_v5e_4x4": Case(STAGE3, "v5e:4x4", 16, arguments=("--find_batch", "--start=32")),
}


def table(reports: dict[str, dict]) -> str:
    """The Markdown table of the reports, by name."""
    lines = [
        "Compiled, not run. Estimates rest on the assumptions below; per chip unless said otherwise.",
        "",
        "| program | chips | mesh data x fsdp x tensor | strategy | rows per chip | GiB of | parameters | optimiser | "
        "temporaries | collectives, MB sent | TFLOP (x analytic) | estimated ms, MFU: all hidden .. none hidden |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in reports.items():
        memory, estimate = r["memory"], r["estimate"]
        kinds = memory["arguments_by_kind"]
        parameters = sum(v for k, v in kinds.items() if "parameters" in k)
        accumulation = r["settings"]["accumulation"]
        rows = f"{r['rows'] // (r['mesh']['data'] * r['mesh']['fsdp'])}"
        rows += f" in {accumulation} parts" if accumulation > 1 and r["what"] == "train" else ""
        sent = "; ".join(
            f"{c['runs_per_step']} {c['kind']}" + f" {(c['ici_bytes_per_step'] + c['dcn_bytes_per_step']) / 1e6:,.0f}"
            for c in r["collectives"]
        )
        lines.append(
            f"| {name} | {r['devices']} | {' x '.join(map(str, r['mesh'].values()))} | {r['settings']['strategy']} | {rows} "
            f"| {memory['total'] / GIB:.2f} of {memory['chip_hbm'] / GIB:.1f} | {parameters / GIB:.2f} "
            f"| {kinds.get('optimiser state', 0) / GIB:.3f} | {memory['temporaries'] / GIB:.2f} | {sent} "
            f"| {r['flops']['of_compiled_program'] / 1e12:.2f} ({r['flops']['compiled_over_analytic']:.2f}) "
            f"| {estimate['seconds'] * 1e3:,.0f} .. {estimate['seconds_no_overlap'] * 1e3:,.0f}, "
            f"{estimate['mfu']:.0%} .. {estimate['mfu_no_overlap']:.0%} |"
        )
    any_report = next(iter(reports.values()))
    lines += ["", "Assumed:", "", *(f"- {a}" for a in any_report["assumptions"])]
    chips = {r["chip"]["name"]: r["chip"] for r in reports.values()}
    lines += ["", "Figures:", ""]
    lines += [
        f"- {c['name']}: {c['flops'] / 1e12:.0f} TFLOP/s bf16, HBM {c['hbm_bandwidth'] / 1e9:.0f} GB/s, ICI "
        f"{c['ici_bandwidth'] / 1e9:.0f} GB/s one way; {c['source']}"
        for c in chips.values()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tpu_compile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME")
    a = parser.parse_args()
    folder = a.out / "tpu_compile"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"compiling {len(a.only)} programs into {folder}; some minutes each on two cores", flush=True)
    failed = []
    for name in a.only:
        out = folder / f"{name}.json"
        if out.exists():
            print(f"{name}: there already", flush=True)
        elif subprocess.run(CASES[name].command(out)).returncode:
            failed.append(name)
    reports = {n: json.loads((folder / f"{n}.json").read_text()) for n in CASES if (folder / f"{n}.json").exists()}
    if reports:
        text = table(reports)
        aside = a.out / "tpu_compile.md.partial"
        aside.write_text(text, encoding="utf-8")
        aside.replace(a.out / "tpu_compile.md")
        print(text)
    if failed:
        raise SystemExit(f"error: did not compile: {', '.join(failed)}")


if __name__ == "__main__":
    main()
