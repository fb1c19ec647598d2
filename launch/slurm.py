"""A training on the GPUs of a Slurm cluster, one process per GPU."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.pods.commands import ROOT, SAVE_SECONDS, Launcher, Runner, train_arguments, train_command
from launch.pods.suits import gpu_devices
from smolrgpt_jax.errors import RunError, told

# Those of sbatch's manual; "unlimited", which it takes too, would leave no end to save before.
TIMES = "minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or days-hours:minutes:seconds"
TIME = re.compile(r"[0-9]+(:[0-9]+){0,2}|[0-9]+-[0-9]+(:[0-9]+){0,2}")


def python() -> str:
    """This Python as `python3`, a name that it has wherever it is installed and whichever of its names started it."""
    running = Path(sys.executable)
    usual = running.with_name("python3")
    return str(usual if usual.exists() and usual.samefile(running) else running)


@told("interrupted")
def main(arguments: Sequence[str] | None = None, runner: Runner | None = None) -> None:
    a, runner = Launcher("slurm", __doc__).parse(arguments, runner)
    for command in a.commands:
        runner.run(command)
    if a.verb == "submit":
        if not TIME.fullmatch(a.time):
            raise RunError(f"--time {a.time} is no time limit of Slurm's: {TIMES}")
        # The job starts in this folder (--chdir), which all nodes have to see anyway.
        train = train_arguments(a, gpu_devices(a.nodes * a.gpus_per_node), shared=True)
        options = [f"--job-name={a.name}", f"--nodes={a.nodes}"]
        options += [f"--ntasks-per-node={a.gpus_per_node}", f"--gpus-per-node={a.gpus_per_node}"]
        # Whole nodes: the coordinator's port is the same for every job.
        options += ["--exclusive", "--requeue", f"--signal=B:USR1@{SAVE_SECONDS}", f"--chdir={ROOT}"]
        options += [f"--output={a.name}-%j.log", "--open-mode=append", f"--time={a.time}"]
        options += [f"--{name}={value}" for name in ("partition", "account") if (value := getattr(a, name))]
        script = str(ROOT / "launch" / "pods" / "slurm.sbatch")
        runner.run(["sbatch", *options, script, *train_command(train, python())])


if __name__ == "__main__":
    main()
