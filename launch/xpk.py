"""A training on TPU slices of a GKE cluster, through XPK (github.com/AI-Hypercomputer/xpk, 1.16 or later)."""

import shlex
from collections.abc import Sequence

from launch.pods.commands import OPTIONS, SAVE_SECONDS, Launcher, Runner, check_name, train_arguments, train_command
from launch.pods.suits import tpu_devices
from smolrgpt_jax.chips import find_slice
from smolrgpt_jax.errors import told


@told("interrupted")
def main(arguments: Sequence[str] | None = None, runner: Runner | None = None) -> None:
    launcher = Launcher("xpk", __doc__)
    kind = launcher.verbs["cluster"].add_mutually_exclusive_group(required=True)
    kind.add_argument("--spot", **OPTIONS["--spot"])
    kind.add_argument("--on_demand", action="store_true")
    kind.add_argument("--reservation", help="its name")
    a, runner = launcher.parse(arguments, runner)
    for option, what in (("name", "name"), ("cluster", "--cluster")):
        if option in a:
            check_name(what, getattr(a, option), most=40)  # as XPK itself has it
    where = [f"--cluster={a.cluster}", f"--zone={a.zone}", *([f"--project={a.project}"] if a.project else [])]
    if "topology" in a:
        where += [f"--tpu-type={find_slice(a.topology).accelerator_type}", f"--num-slices={a.slices}"]
    if a.verb == "cluster":
        command = ["cluster", "create", *where]
        command.append("--spot" if a.spot else "--on-demand" if a.on_demand else f"--reservation={a.reservation}")
    elif a.verb == "run":
        train = train_command(train_arguments(a, tpu_devices(find_slice(a.topology), a.slices)))
        command = ["workload", "create", f"--workload={a.name}", *where, f"--docker-image={a.image}"]
        # A peer's death ends launch.train with 1 or 134; XPK itself starts again after the codes above 126 only.
        command += [f"--max-restarts={a.max_restarts}", "--restart-on-exit-codes=1"]
        command += [f"--termination-grace-period-seconds={SAVE_SECONDS}", f"--command={shlex.join(train)}"]
    elif a.verb == "delete":
        command = ["workload", "delete", f"--workload={a.name}", *where]
    else:
        command = [*(["workload", "list"] if a.verb == "list" else ["cluster", "delete"]), *where]
    runner.run(["xpk", *command])


if __name__ == "__main__":
    main()
