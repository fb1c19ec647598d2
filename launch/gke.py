"""A training on TPU slices of a GKE cluster, as a JobSet.

The JobSet starts all pods again when one fails or its node is preempted, and the training goes on from its newest checkpoint.
--dry_run prints the commands; `manifest` prints what `apply` applies. launch.xpk does the same through XPK.
"""

import json
from collections.abc import Sequence

from launch.pods.commands import ROOT, Launcher, Runner, train_command
from launch.pods.jobset import JobSet
from smolrgpt_jax.chips import find_slice
from smolrgpt_jax.errors import told


@told("interrupted")
def main(arguments: Sequence[str] | None = None, runner: Runner | None = None) -> None:
    a, runner = Launcher("gke", __doc__).parse(arguments, runner)
    if a.verb == "image":
        dockerfile = ROOT / "launch" / "pods" / "Dockerfile"
        runner.run(["docker", "build", f"--file={dockerfile}", f"--tag={a.image}", str(ROOT)])
        runner.run(["docker", "push", a.image])
    elif a.verb == "pool":
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
        job_set = JobSet(a.name, find_slice(a.topology), a.image, train_command(a), **options)
        text = json.dumps(job_set.manifest(), indent=2)
        if a.verb == "manifest":
            print(text)
            return
        runner.run(["kubectl", "apply", "--filename=-"], text + "\n")
    elif a.verb == "logs":
        first = f"jobset.sigs.k8s.io/jobset-name={a.name},jobset.sigs.k8s.io/job-index=0"
        selector = f"--selector={first},batch.kubernetes.io/job-completion-index=0"
        runner.run(["kubectl", "logs", selector, "--container=train", f"--tail={a.lines}", "--follow"])
    elif a.verb == "status":
        runner.run(["kubectl", "get", f"jobset/{a.name}"])
        runner.run(["kubectl", "get", "pods", f"--selector=jobset.sigs.k8s.io/jobset-name={a.name}"])
    else:
        runner.run(["kubectl", "delete", f"jobset/{a.name}"])


if __name__ == "__main__":
    main()
