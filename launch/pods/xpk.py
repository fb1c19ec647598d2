"""A training on TPU slices of a GKE cluster, through XPK (github.com/AI-Hypercomputer/xpk, 1.16 or later).

    python -m launch.pods.xpk run NAME --cluster K --zone Z --topology v5e:16x16 --image I --config C --workdir W [-- --config.key=value]

XPK makes the cluster, queues the training and starts it again after preemptions and errors. --dry_run prints the commands.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from launch.pods.commands import (
    DryRun,
    Runner,
    add_dry_run,
    add_training_arguments,
    run_main,
    split_arguments,
    train_arguments,
)
from launch.pods.gke import SAVE_SECONDS
from smolrgpt_jax.chips import SLICES, find_slice


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--cluster", required=True)
    common.add_argument("--zone", required=True)
    common.add_argument("--project", help="default: gcloud's")
    add_dry_run(common)
    tpu = argparse.ArgumentParser(add_help=False)
    tpu.add_argument("--topology", required=True, help=f"one of {', '.join(SLICES)}")
    tpu.add_argument("--slices", type=int, default=1, help="default %(default)s")
    parser = argparse.ArgumentParser(
        prog="python -m launch.pods.xpk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    cluster = verbs.add_parser("cluster", parents=[common, tpu], help="make a cluster with these slices")
    kind = cluster.add_mutually_exclusive_group(required=True)
    kind.add_argument("--spot", action="store_true", help="cheaper, and can be preempted at any time")
    kind.add_argument("--on_demand", action="store_true")
    kind.add_argument("--reservation", help="its name")
    run = verbs.add_parser("run", parents=[common, tpu], help="start a training")
    run.add_argument("name", help="of the workload")
    run.add_argument("--image", required=True, help="container image that `launch.pods.gke image` made")
    run.add_argument("--max_restarts", type=int, default=100, help="after preemptions and errors (default %(default)s)")
    add_training_arguments(run)
    verbs.add_parser("list", parents=[common], help="the cluster's workloads")
    delete = verbs.add_parser("delete", parents=[common], help="end a training")
    delete.add_argument("name", help="of the workload")
    verbs.add_parser("delete_cluster", parents=[common], help="give the cluster back")
    return parser


def command(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The xpk command of a command line, and whether it is only to be printed; raises LaunchError."""
    own, rest = split_arguments(arguments)
    a = _parser().parse_args(own)
    place = [f"--cluster={a.cluster}", f"--zone={a.zone}", *([f"--project={a.project}"] if a.project else [])]
    if "topology" in a:
        place += [f"--tpu-type={find_slice(a.topology).accelerator_type}", f"--num-slices={a.slices}"]
    if a.verb == "cluster":
        kind = "--spot" if a.spot else "--on-demand" if a.on_demand else f"--reservation={a.reservation}"
        made = ["cluster", "create", *place, kind]
    elif a.verb == "run":
        train = ["python", "-u", "-m", "launch.train", *train_arguments(a.config, a.workdir, rest)]
        made = ["workload", "create", f"--workload={a.name}", *place, f"--docker-image={a.image}"]
        # A peer's death ends launch.train with 1 or 134; XPK itself starts again after the codes above 126 only.
        made += [f"--max-restarts={a.max_restarts}", "--restart-on-exit-codes=1"]
        made += [f"--termination-grace-period-seconds={SAVE_SECONDS}", f"--command={shlex.join(train)}"]
    elif a.verb == "list":
        made = ["workload", "list", *place]
    elif a.verb == "delete":
        made = ["workload", "delete", f"--workload={a.name}", *place]
    else:
        made = ["cluster", "delete", *place]
    return ["xpk", *made], a.dry_run


def main(arguments: Sequence[str], runner: Runner | None = None) -> None:
    """Runs the command line; `runner` replaces the one that executes."""
    made, dry_run = command(arguments)
    (runner or (DryRun() if dry_run else Runner())).run(made)


if __name__ == "__main__":
    run_main(main)
