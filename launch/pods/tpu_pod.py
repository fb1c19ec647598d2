"""A training on a slice of TPU VMs, through a queued resource.

    python -m launch.pods.tpu_pod resume NAME --zone Z --topology v5e:16x16 --config C --workdir W [--spot] [-- --config.key=value]

`resume` does everything that is missing (create, wait, install, run), watches, recreates what was preempted and returns when the
training is finished; stopped and started again it goes on. The other commands are its steps. --dry_run prints the commands.
"""

from __future__ import annotations

import argparse
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from launch.pods.commands import (
    ROOT,
    CommandError,
    DryRun,
    LaunchError,
    Runner,
    add_dry_run,
    add_training_arguments,
    run_main,
    split_arguments,
    train_arguments,
)
from smolrgpt_jax.chips import SLICES, Slice, find_slice

FOLDER = "smolrgpt_jax"  # in the home folder of every host
CONTENT = ("configs", "convert", "eval", "launch", "smolrgpt_jax", "requirements.txt", "pyproject.toml")
WORKER = f"{FOLDER}/launch/pods/tpu_worker.sh"
POLL_SECONDS = 60
MAX_FAILURES = 5  # commands in a row
ABSENT = "ABSENT"
# States of a queued resource (cloud.google.com/tpu/docs/queued-resources) in which time helps.
WAITING = ("ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "CREATING", "SUSPENDING", "DELETING")
STATUS = re.compile(r"^(running|none|ended \d+)$", re.MULTILINE)


class Pod:
    """The commands for one queued resource: `name`, in a zone, of one or more slices."""

    def __init__(self, runner: Runner, name: str, zone: str, project: str | None = None, slices: int = 1):
        self.runner = runner
        self.name = name
        self.place = [f"--zone={zone}", *([f"--project={project}"] if project else [])]
        self.slices = slices

    @property
    def nodes(self) -> list[str]:
        """The slices' names, as gcloud gives them."""
        return [self.name] if self.slices == 1 else [f"{self.name}-{i}" for i in range(self.slices)]

    def create(self, tpu: Slice, runtime: str | None = None, spot: bool = False) -> None:
        """Asks for the slices; they come when there is room."""
        nodes = (
            [f"--node-id={self.name}"]
            if self.slices == 1
            else [f"--node-count={self.slices}", f"--node-prefix={self.name}"]
        )
        self._queued(
            "create",
            *nodes,
            f"--accelerator-type={tpu.accelerator_type}",
            f"--runtime-version={runtime or tpu.cloud.runtime}",
            *(["--spot"] if spot else []),
        )

    def state(self, assumed: str = "ACTIVE") -> str:
        """The state of the queued resource, ABSENT if there is none; raises CommandError if gcloud cannot say."""
        command = ["gcloud", "compute", "tpus", "queued-resources", "describe", self.name, *self.place]
        status, text = self.runner.read([*command, "--format=value(state.state)"], assumed)
        if status and "NOT_FOUND" in text:
            return ABSENT
        if status:
            raise CommandError(f"gcloud cannot describe {self.name}: {' '.join(text.split()) or status}")
        return text

    def wait(self) -> None:
        """Waits until the slices are there; raises LaunchError if they never will be."""
        while (state := self.state()) != "ACTIVE":
            self._check(state)
            if state not in WAITING:
                raise LaunchError(f"{self.name} is {state}, waiting is in vain")
            self.runner.say(f"{self.name} is {state}")
            self.runner.pause(POLL_SECONDS)

    def install(self, bucket: str | None = None) -> None:
        """Copies the code to every host, makes its environment and mounts the bucket at /gcs."""
        archive = Path(tempfile.gettempdir()) / f"{self.name}.tar.gz"
        self.runner.run(["tar", "--exclude=__pycache__", "-czf", str(archive), "-C", str(ROOT), *CONTENT])
        unpack = f"mkdir -p {FOLDER} && tar -xzf {FOLDER}.tar.gz -C {FOLDER}"
        arguments = shlex.join(["bash", WORKER, "install", *([bucket] if bucket else [])])
        for node in self.nodes:
            self.runner.run(
                ["gcloud", "compute", "tpus", "tpu-vm", "scp", str(archive), f"{node}:{FOLDER}.tar.gz"]
                + [*self.place, "--worker=all"]
            )
            self._ssh(node, f"{unpack} && {arguments}")

    def run(self, arguments: Sequence[str]) -> None:
        """Starts launch.train on every host, in the background."""
        for node in self.nodes:
            self._ssh(node, shlex.join(["bash", WORKER, "start", *arguments]))

    def logs(self, lines: int, worker: str) -> None:
        """Prints the end of the log and follows it."""
        self._ssh(self.nodes[0], f"bash {WORKER} logs {lines}", worker)

    def stop(self) -> None:
        """Asks the training on every host to save and stop."""
        for node in self.nodes:
            self._ssh(node, f"bash {WORKER} stop")

    def statuses(self, assumed: str) -> list[str]:
        """What each reachable host says: "running", "ended STATUS" or "none"."""
        found = []
        for node in self.nodes:
            command = self._ssh_command(node, f"if [ -f {WORKER} ]; then bash {WORKER} status; else echo none; fi")
            found += STATUS.findall(self.runner.read(command, assumed)[1])
        return found

    def delete(self) -> None:
        """Gives the slices back, or the request for them."""
        self._queued("delete", "--force", "--quiet")

    def resume(
        self,
        tpu: Slice,
        arguments: Sequence[str],
        *,
        runtime: str | None = None,
        spot: bool = False,
        bucket: str | None = None,
        max_restarts: int = 10,
    ) -> None:
        """Does what is missing until the training has finished on every host.

        Preemptions are without limit; a training that ends with an error is started again `max_restarts` times. Raises
        LaunchError after that, and when the request for the slices failed.
        """
        # What a dry run takes for the answers: nothing there, then slices without a training, then a finished one.
        states = iter([ABSENT, "ACTIVE", "ACTIVE"])
        answers = iter(["none", "ended 0"])
        restarts = failures = 0
        while True:
            try:
                state = self.state(assumed=next(states, "ACTIVE"))
                if state == "ACTIVE":
                    answer = next(answers, "ended 0")
                    found = self.statuses("\n".join([answer] * tpu.hosts))
                    if missing := tpu.hosts * self.slices - len(found):
                        self.runner.say(f"{missing} hosts do not answer")
                    elif set(found) == {"ended 0"}:
                        return
                    elif "running" not in found:
                        if "none" in found:
                            self.install(bucket)
                        else:
                            restarts += 1
                        self._check_restarts(restarts, max_restarts)
                        self.run(arguments)
                else:
                    self._ask_again(state, tpu, runtime, spot)
                failures = 0
            except CommandError as error:
                # A slice can be taken away in the middle of any command, so the next look decides.
                failures += 1
                if failures == MAX_FAILURES:
                    raise
                self.runner.say(f"{error}; trying again")
            self.runner.pause(POLL_SECONDS)

    def _ask_again(self, state: str, tpu: Slice, runtime: str | None, spot: bool) -> None:
        """Asks for slices that are not there or were preempted; raises LaunchError if the request failed."""
        self._check(state)
        self.runner.say(f"{self.name} is {state}")
        if state == "SUSPENDED":
            self.delete()
        if state in ("SUSPENDED", ABSENT):
            self.create(tpu, runtime, spot)

    def _check_restarts(self, restarts: int, max_restarts: int) -> None:
        if restarts > max_restarts:
            raise LaunchError(f"the training on {self.name} ended with an error {restarts} times; see its log")

    def _check(self, state: str) -> None:
        if state == "FAILED":
            raise LaunchError(
                f"the request {self.name} failed; `gcloud compute tpus queued-resources describe {self.name} "
                f"{shlex.join(self.place)}` says why (quota and the accelerator types of the zone are the usual reasons)"
            )

    def _queued(self, verb: str, *flags: str) -> None:
        self.runner.run(["gcloud", "compute", "tpus", "queued-resources", verb, self.name, *self.place, *flags])

    def _ssh_command(self, node: str, command: str, worker: str = "all") -> list[str]:
        ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", node, *self.place]
        return [*ssh, f"--worker={worker}", f"--command={command}"]

    def _ssh(self, node: str, command: str, worker: str = "all") -> None:
        self.runner.run(self._ssh_command(node, command, worker))


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("name", help="of the queued resource; slices are called after it")
    common.add_argument("--zone", required=True)
    common.add_argument("--project", help="default: gcloud's")
    common.add_argument(
        "--slices", type=int, default=1, help="slices joined by the data centre's network (default %(default)s)"
    )
    add_dry_run(common)
    tpu = argparse.ArgumentParser(add_help=False)
    tpu.add_argument("--topology", required=True, help=f"one of {', '.join(SLICES)}")
    tpu.add_argument("--runtime_version", help="software of the TPU VMs (default: the one of the topology)")
    tpu.add_argument("--spot", action="store_true", help="cheaper, and can be preempted at any time")
    bucket = argparse.ArgumentParser(add_help=False)
    bucket.add_argument("--bucket", help="Cloud Storage bucket to mount at /gcs on every host")
    training = argparse.ArgumentParser(add_help=False)
    add_training_arguments(training)
    parser = argparse.ArgumentParser(
        prog="python -m launch.pods.tpu_pod", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("create", parents=[common, tpu], help="ask for the slices")
    verbs.add_parser("wait", parents=[common], help="wait until they are there")
    verbs.add_parser("install", parents=[common, bucket], help="copy and install the code on every host")
    verbs.add_parser("run", parents=[common, training], help="start launch.train on every host")
    logs = verbs.add_parser("logs", parents=[common], help="follow the log")
    logs.add_argument("--lines", type=int, default=100, help="default %(default)s")
    logs.add_argument("--worker", default="0", help="host number, or all (default %(default)s)")
    verbs.add_parser("stop", parents=[common], help="save and stop the training")
    resume = verbs.add_parser("resume", parents=[common, tpu, bucket, training], help="everything, until done")
    resume.add_argument(
        "--max_restarts", type=int, default=10, help="after errors, not preemptions (default %(default)s)"
    )
    verbs.add_parser("delete", parents=[common], help="give the slices back")
    return parser


def main(arguments: Sequence[str], runner: Runner | None = None) -> None:
    """Runs the command line; `runner` replaces the one that executes."""
    own, rest = split_arguments(arguments)
    a = _parser().parse_args(own)
    pod = Pod(runner or (DryRun() if a.dry_run else Runner()), a.name, a.zone, a.project, a.slices)
    if a.verb == "create":
        pod.create(find_slice(a.topology), a.runtime_version, a.spot)
    elif a.verb == "install":
        pod.install(a.bucket)
    elif a.verb == "run":
        pod.run(train_arguments(a.config, a.workdir, rest))
    elif a.verb == "logs":
        pod.logs(a.lines, a.worker)
    elif a.verb == "resume":
        pod.resume(
            find_slice(a.topology),
            train_arguments(a.config, a.workdir, rest),
            runtime=a.runtime_version,
            spot=a.spot,
            bucket=a.bucket,
            max_restarts=a.max_restarts,
        )
    else:
        {"wait": pod.wait, "stop": pod.stop, "delete": pod.delete}[a.verb]()


if __name__ == "__main__":
    run_main(main)
