"""A training on the GPUs of a Slurm cluster, one process per GPU.

    python -m launch.pods.slurm submit --nodes 2 --gpus_per_node 8 --time 24:00:00 --config C --workdir W [-- --config.key=value]

The job saves before its time limit and goes back into the queue, and goes on from its newest checkpoint. --dry_run prints the
commands.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from launch.pods.commands import (
    ROOT,
    DryRun,
    Runner,
    add_dry_run,
    add_training_arguments,
    run_main,
    split_arguments,
    train_arguments,
)

SAVE_SECONDS = 300  # between the warning and the time limit


def submit_command(a: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """The sbatch command of parsed arguments; raises LaunchError."""
    options = [
        f"--job-name={a.name}",
        f"--nodes={a.nodes}",
        f"--ntasks-per-node={a.gpus_per_node}",
        f"--gpus-per-node={a.gpus_per_node}",
        # Whole nodes: the coordinator's port is the same for every job.
        "--exclusive",
        "--requeue",
        f"--signal=B:USR1@{SAVE_SECONDS}",
        f"--chdir={ROOT}",
        f"--output={a.name}-%j.log",
        "--open-mode=append",
        f"--time={a.time}",
    ]
    options += [f"--{name}={value}" for name in ("partition", "account") if (value := getattr(a, name))]
    train = [sys.executable, "-u", "-m", "launch.train", *train_arguments(a.config, a.workdir, rest)]
    return ["sbatch", *options, str(ROOT / "launch" / "pods" / "slurm.sbatch"), *train]


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    add_dry_run(common)
    common.add_argument("--name", default="smolrgpt", help="of the job (default %(default)s)")
    parser = argparse.ArgumentParser(
        prog="python -m launch.pods.slurm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    submit = verbs.add_parser("submit", parents=[common], help="queue the training")
    submit.add_argument("--nodes", type=int, default=1, help="default %(default)s")
    submit.add_argument("--gpus_per_node", type=int, required=True)
    submit.add_argument("--time", required=True, help="limit of one run, as sbatch takes it")
    submit.add_argument("--partition")
    submit.add_argument("--account")
    add_training_arguments(submit)
    verbs.add_parser("status", parents=[common], help="your jobs of this name")
    verbs.add_parser("cancel", parents=[common], help="end your jobs of this name")
    return parser


def main(arguments: Sequence[str], runner: Runner | None = None) -> None:
    """Runs the command line; `runner` replaces the one that executes."""
    own, rest = split_arguments(arguments)
    a = _parser().parse_args(own)
    runner = runner or (DryRun() if a.dry_run else Runner())
    if a.verb == "submit":
        runner.run(submit_command(a, rest))
    elif a.verb == "status":
        runner.run(["squeue", "--me", f"--name={a.name}"])
    else:
        runner.run(["scancel", "--me", f"--name={a.name}"])


if __name__ == "__main__":
    run_main(main)
