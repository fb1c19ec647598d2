"""The published model's programs, rows of 512 tokens, compiled for TPU topologies: memory, collectives, FLOPs, cycles.

    python -m benchmarks.tpu_compile [--out benchmarks/results] [--only NAME ...]

Writes tpu_compile/NAME.json for every program and the table tpu_compile.md. Nothing is run on a TPU; libtpu is needed (the `tpu`
extra). A program whose JSON is there already is not compiled again.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.shared import markdown, show
from eval.command_line import command_line
from smolrgpt_jax.chips import GIB, check_libtpu
from smolrgpt_jax.errors import RunError, told
from smolrgpt_jax.files import read_json

ROW_TOKENS = 512
# Name of a program -> configuration file, topology, rows of all chips, and further arguments of the command.
CASES: dict[str, list] = read_json(Path(__file__).with_suffix(".json"), dict)
HEAD = (
    "program | chips | mesh data x fsdp x tensor | strategy | rows per chip | GiB of | parameters | optimiser | temporaries "
    "| collectives, MB sent | TFLOP (x analytic) | M cycles | ms, MFU: collectives hidden .. none hidden"
)


def row(name: str, r: dict) -> str:
    """A report's row of the table."""
    memory, time, flops = r["memory"], r["clock"], r["flops"]
    kinds, accumulation = memory["arguments_by_kind"], r["settings"]["accumulation"]
    parameters = sum(v for k, v in kinds.items() if "parameters" in k)
    rows = f"{r['rows'] // (r['mesh']['data'] * r['mesh']['fsdp'])}"
    rows += f" in {accumulation} parts" if accumulation > 1 and r["what"] == "train" else ""
    sent = "; ".join(
        f"{c['runs_per_step']} {c['kind']} {(c['ici_bytes_per_step'] + c['dcn_bytes_per_step']) / 1e6:,.0f}"
        for c in r["collectives"]
    )
    return (
        f"{name} | {r['devices']} | {' x '.join(map(str, r['mesh'].values()))} | {r['settings']['strategy']} | {rows} "
        f"| {memory['total'] / GIB:.2f} of {memory['chip_hbm'] / GIB:.1f} | {parameters / GIB:.2f} "
        f"| {kinds.get('optimiser state', 0) / GIB:.3f} | {memory['temporaries'] / GIB:.2f} | {sent} "
        f"| {flops['of_compiled_program'] / 1e12:.2f} ({flops['compiled_over_analytic']:.2f}) "
        f"| {time['cycles'] / 1e6:,.1f} | {time['seconds'] * 1e3:,.0f} .. {time['seconds_no_overlap'] * 1e3:,.0f}, "
        f"{time['mfu']:.0%} .. {time['mfu_no_overlap']:.0%}"
    )


def table(reports: dict[str, dict]) -> str:
    """The Markdown page of the reports, by name."""
    chips = {r["chip"]["name"]: r["chip"] for r in reports.values()}
    figures = [
        f"- {c['name']}: {c['flops'] / 1e12:.0f} TFLOP/s bf16, HBM {c['hbm_bandwidth'] / 1e9:.0f} GB/s, ICI "
        f"{c['ici_bandwidth'] / 1e9:.0f} GB/s one way; {c['source']}"
        for c in chips.values()
    ]
    said = next(iter(reports.values()))["said"]
    parts = [
        "By the compiler's clock, not run; per chip unless said otherwise.",
        markdown(HEAD, (row(name, r) for name, r in reports.items())),
        "\n".join(f"- {sentence}" for sentence in said),
        "Figures:",
        "\n".join(figures),
    ]
    return "\n\n".join(parts)


def compile_into(
    report: Path, config: str, topology: str, rows: int, row_tokens: int, more: Sequence[str] = ()
) -> bool:
    """Has a run's program compiled in a process of its own, unless its report is there; whether it is there then. Raises RunError without libtpu."""
    if report.exists():
        print(f"{report.stem}: there already", flush=True)
        return True
    check_libtpu()
    report.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "launch.compile_for_tpu", f"--config={config}", f"--out={report}"]
    command += [f"--topology={topology}", f"--config.batch_rows={rows}", f"--config.data.row_tokens={row_tokens}"]
    return not subprocess.run([*command, *more]).returncode


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line("benchmarks.tpu_compile", __doc__, only=CASES)
    parser.set_defaults(only=list(CASES))
    a = parser.parse_args(arguments)
    results = {name: a.out / "tpu_compile" / f"{name}.json" for name in CASES}
    print(f"compiling {len(a.only)} programs into {a.out / 'tpu_compile'}; some minutes each on two cores", flush=True)
    failed = []
    for name in a.only:
        config, topology, rows, *more = CASES[name]
        if not compile_into(results[name], config, topology, rows, ROW_TOKENS, more):
            failed.append(name)
    reports = {name: read_json(file, dict) for name, file in results.items() if file.exists()}
    if reports:
        show(table(reports), a.out / "tpu_compile.md")
    if failed:
        raise RunError(f"did not compile: {', '.join(failed)}")


if __name__ == "__main__":
    main()
