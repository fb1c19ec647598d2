"""A training on TPU slices of a GKE cluster, as a JobSet."""

import json
from collections.abc import Sequence

from launch.pods.commands import Launcher, Runner, check_name, train_arguments, train_command
from launch.pods.jobset import JobSet
from launch.pods.suits import tpu_devices
from smolrgpt_jax.chips import find_slice
from smolrgpt_jax.errors import told


@told("interrupted")
def main(arguments: Sequence[str] | None = None, runner: Runner | None = None) -> None:
    a, runner = Launcher("gke", __doc__).parse(arguments, runner)
    for option, most in (("name", 63), ("cluster", 40)):
        if option in a:
            check_name(option, getattr(a, option), most)
    for command in a.commands:
        runner.run(command)
    if a.verb == "pool":
        slice = find_slice(a.topology)
        for i in range(a.slices):
            command = ["gcloud", "container", "node-pools", "create", f"{slice.name.replace(':', '-')}-{i}"]
            command += [f"--cluster={a.cluster}", f"--location={a.region}", f"--node-locations={a.zone}"]
            command += [f"--machine-type={slice.machine_type}", f"--num-nodes={slice.hosts}"]
            # Pools of one host take their topology from the machine.
            command += [f"--tpu-topology={slice.topology}"] if slice.hosts > 1 else []
            runner.run([*command, *(["--spot"] if a.spot else []), "--workload-metadata=GKE_METADATA"])
    elif a.verb in ("manifest", "apply"):
        options = {key: getattr(a, key) for key in ("slices", "spot", "bucket", "service_account", "max_restarts")}
        tpu = find_slice(a.topology)
        command = train_command(train_arguments(a, tpu_devices(tpu, a.slices)))
        job_set = JobSet(a.name, tpu, a.image, command, **options)
        check_name("name", a.name, job_set.longest_name)
        text = json.dumps(job_set.manifest(), indent=2)
        if a.verb == "manifest":
            print(text)
            return
        runner.run(["kubectl", "apply", "--filename=-"], text + "\n")


if __name__ == "__main__":
    main()
