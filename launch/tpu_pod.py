"""A training on a slice of TPU VMs, through a queued resource."""

from collections.abc import Sequence

from launch.pods.commands import Launcher, Runner, train_arguments
from launch.pods.queued_resource import QueuedResource
from launch.pods.suits import tpu_devices
from smolrgpt_jax.chips import find_slice
from smolrgpt_jax.errors import told


@told("interrupted")
def main(arguments: Sequence[str] | None = None, runner: Runner | None = None) -> None:
    a, runner = Launcher("tpu_pod", __doc__).parse(arguments, runner)
    pod = QueuedResource(runner, a.name, a.zone, a.project, a.slices)
    if getattr(a, "topology", None):
        pod.tpu = find_slice(a.topology)
    if "spot" in a:
        pod.runtime, pod.spot = a.runtime_version, a.spot
    if "bucket" in a:
        pod.bucket = a.bucket
    devices = tpu_devices(pod.tpu, a.slices) if pod.tpu else ()
    if a.verb == "run":
        pod.run(train_arguments(a, devices))
    elif a.verb == "logs":
        pod.logs(a.lines, a.worker)
    elif a.verb == "resume":
        pod.resume(train_arguments(a, devices), a.max_restarts)
    else:
        getattr(pod, a.verb)()


if __name__ == "__main__":
    main()
