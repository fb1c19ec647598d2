"""Compiles a run's real train step (or prefill, decoding) for a TPU topology on a machine without TPUs.

Prints memory per chip, collectives, FLOPs, and the time by the clock of the compiler. Needs libtpu, which pip installs anywhere:
pip install 'jax[tpu]'. Nothing is run.
"""

import logging

from absl import flags

from launch import run_config
from smolrgpt_jax.chips import SLICES as TOPOLOGIES
from smolrgpt_jax.chips import find_slice
from smolrgpt_jax.errors import RunError, told
from smolrgpt_jax.files import as_path, check_out, write_json

CONFIG = run_config.define()
TOPOLOGY = flags.DEFINE_string("topology", None, f"one of {', '.join(TOPOLOGIES)}", required=True)
SLICES = flags.DEFINE_integer("slices", 1, "slices of that topology", lower_bound=1)
WHAT = flags.DEFINE_enum("what", "train", ["train", "prefill", "decode"], "program to compile")
NEW_TOKENS = flags.DEFINE_integer("new_tokens", 64, "tokens that decode adds to the prompt", lower_bound=2)
FIND_BATCH = flags.DEFINE_bool("find_batch", False, "look for the largest number of rows per chip that fits")
START = flags.DEFINE_integer("start", 8, "rows per chip that --find_batch begins with", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "JSON file for the report")
TUNE = flags.DEFINE_bool("tune", False, "compile the train step in several ways and tell which is fastest")
HLO = flags.DEFINE_string("hlo", None, "file for the compiled program's text")


@told()
def run(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise RunError(f"unknown argument {arguments[1]!r}")
    if TUNE.value and (lost := [flag.name for flag in (WHAT, HLO, OUT, FIND_BATCH) if flag.present]):
        raise RunError(
            f"--tune compiles the train step in its own ways and prints a table, it has no use for --{lost[0]}"
        )
    if FIND_BATCH.value and HLO.present:
        raise RunError("--find_batch compiles several programs, --hlo writes the text of one")
    if OUT.value and HLO.value and as_path(OUT.value) == as_path(HLO.value):
        raise RunError("--out and --hlo name the same file")
    if NEW_TOKENS.present and WHAT.value != "decode":
        raise RunError("--new_tokens are those of --what=decode")
    if START.present and not FIND_BATCH.value:
        raise RunError("--start is where --find_batch begins")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    find_slice(TOPOLOGY.value)
    run, what = CONFIG.value.to_dict(), WHAT.value
    program = f"{what} of stage {run['stage']} ({run['model']['preset']})"
    print(f"compiling {program} for {SLICES.value} x {TOPOLOGY.value}; nothing is run", flush=True)
    text = as_path(HLO.value) if HLO.value else None
    for out in (OUT.value, HLO.value):
        if out:
            check_out(as_path(out))
    # Imported late: neither --help nor a mistyped name should wait for JAX.
    from launch.tpu_report.compiling import compile_run, find_batch
    from launch.tpu_report.report import as_text

    if TUNE.value:
        from launch.tpu_report.tuning import tune

        print(tune(run, TOPOLOGY.value, SLICES.value))
        return
    if FIND_BATCH.value:
        report = find_batch(run, TOPOLOGY.value, SLICES.value, what, START.value, NEW_TOKENS.value)
    else:
        report = compile_run(run, TOPOLOGY.value, SLICES.value, what, NEW_TOKENS.value, text)
    print(as_text(report))
    print(
        "computed in {compute_dtype}, attention {attention}, remat {remat}, strategy {strategy}".format(
            **report["settings"]
        )
    )
    if "largest_rows_per_chip" in report:
        print(f"largest batch found: {report['largest_rows_per_chip']} rows per chip")
    if OUT.value:
        write_json(as_path(OUT.value), report)


def main() -> None:
    run_config.start(run)


if __name__ == "__main__":
    main()
