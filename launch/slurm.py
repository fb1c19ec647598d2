"""A training on the GPUs of a Slurm cluster, one process per GPU."""

import sys
from collections.abc import Sequence

from launch.pods.commands import ROOT, SAVE_SECONDS, Launcher, Runner, train_command
from smolrgpt_jax.errors import told


@told("interrupted")
def main(arguments: Sequence[str] | None = None, runner: Runner | None = None) -> None:
    a, runner = Launcher("slurm", __doc__).parse(arguments, runner)
    for command in a.commands:
        runner.run(command)
    if a.verb == "submit":
        options = [f"--job-name={a.name}", f"--nodes={a.nodes}"]
        options += [f"--ntasks-per-node={a.gpus_per_node}", f"--gpus-per-node={a.gpus_per_node}"]
        # Whole nodes: the coordinator's port is the same for every job.
        options += ["--exclusive", "--requeue", f"--signal=B:USR1@{SAVE_SECONDS}", f"--chdir={ROOT}"]
        options += [f"--output={a.name}-%j.log", "--open-mode=append", f"--time={a.time}"]
        options += [f"--{name}={value}" for name in ("partition", "account") if (value := getattr(a, name))]
        script = str(ROOT / "launch" / "pods" / "slurm.sbatch")
        runner.run(["sbatch", *options, script, *train_command(a, sys.executable)])


if __name__ == "__main__":
    main()
