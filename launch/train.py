"""Trains one stage."""

import gc
import logging

from absl import flags

from launch import run_config
from smolrgpt_jax import distributed
from smolrgpt_jax.errors import RunError, told
from smolrgpt_jax.files import as_path

CONFIG = run_config.define()
WORKDIR = flags.DEFINE_string("workdir", None, "where checkpoints and metrics go", required=True)
ADDRESS_HELP = f"host of process 0, with its port if that is not {distributed.PORT}"
COORDINATOR_ADDRESS = flags.DEFINE_string("coordinator_address", None, ADDRESS_HELP)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "processes of the run", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this is, from 0", lower_bound=0)
PATIENCE = distributed.INITIALIZATION_TIMEOUT
WAIT_HELP = "seconds to wait for the other processes"
TIMEOUT = flags.DEFINE_integer("initialization_timeout", PATIENCE, WAIT_HELP, lower_bound=1)


@told()
def run(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise RunError(f"unknown argument {arguments[1]!r}")
    workdir = as_path(WORKDIR.value, "--workdir")
    this = distributed.Processes(COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value)
    distributed.start(this, initialization_timeout=TIMEOUT.value)
    # Instead of absl's handler: what Orbax and the like say at every save is not for the screen.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", force=True)
    # Imported after the processes have found each other.
    from eval.scoring.in_training import WAREHOUSE_SCORES
    from smolrgpt_jax.training.metrics import CSV_NAME
    from smolrgpt_jax.training.noise import noise_scale
    from smolrgpt_jax.training.run import train

    # Half a million records that all stay would be looked through for garbage again and again, for longer than reading them takes.
    gc.set_threshold(100_000)
    with distributed.end_on_error(), told("interrupted; the same command goes on from the newest checkpoint"):
        result = train(CONFIG.value.to_dict(), workdir, WAREHOUSE_SCORES)
    values = "".join(f", {name} {result[name]:.4f}" for name in ("loss", "validation_loss") if name in result)
    print(f"step {result['step']} of {result['steps']}{values}")
    # Of several hosts only the first may have the file.
    scale = noise_scale(workdir / CSV_NAME) if (workdir / CSV_NAME).is_file() else None
    if scale is not None:
        print(f"gradient noise scale: {scale:.3g} rows; the batch has {CONFIG.value.batch_rows}")
    if result["stopped"]:
        raise SystemExit("stopped by a signal; the same command goes on from here")


def main() -> None:
    run_config.start(run)


if __name__ == "__main__":
    main()
