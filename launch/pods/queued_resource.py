"""Slices of TPU VMs behind one queued resource: asked for, installed, watched and given back by gcloud's commands."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.pods.commands import ROOT, CommandError, Runner
from smolrgpt_jax.chips import Slice
from smolrgpt_jax.errors import RunError

FOLDER = "smolrgpt_jax"  # in the home folder of every host
CONTENT = ("configs", "convert", "eval", "launch", "smolrgpt_jax", "requirements.txt", "pyproject.toml")
WORKER = f"{FOLDER}/launch/pods/tpu_worker.sh"
POLL_SECONDS = 60
MAX_FAILURES = 5  # commands in a row
ABSENT = "ABSENT"
# States of a queued resource (cloud.google.com/tpu/docs/queued-resources) in which time helps.
WAITING = ("ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "CREATING", "SUSPENDING", "DELETING")
STATUS = re.compile(r"^(running|none|ended \d+)$", re.MULTILINE)


@dataclass
class QueuedResource:
    """One queued resource: `slices` slices of TPU VMs under one name."""

    runner: Runner
    name: str
    zone: str
    project: str | None = None
    slices: int = 1
    tpu: Slice | None = None  # each of them, where it has to be known
    runtime: str | None = None  # the software of the VMs, None for the chip's own
    spot: bool = False
    bucket: str | None = None  # what `install` mounts at /gcs

    @property
    def nodes(self) -> list[str]:
        """The slices' names, as gcloud gives them."""
        return [self.name] if self.slices == 1 else [f"{self.name}-{i}" for i in range(self.slices)]

    def create(self) -> None:
        """Asks for the slices; they come when there is room."""
        several = [f"--node-count={self.slices}", f"--node-prefix={self.name}"]
        flags = [f"--node-id={self.name}"] if self.slices == 1 else several
        flags.append(f"--accelerator-type={self.tpu.accelerator_type}")
        flags.append(f"--runtime-version={self.runtime or self.tpu.runtime}")
        self.runner.run(self._queued("create", *flags, *(["--spot"] if self.spot else [])))

    def delete(self) -> None:
        """Gives the slices back, or the request for them."""
        self.runner.run(self._queued("delete", "--force", "--quiet"))

    def state(self, assumed: str = "ACTIVE") -> str:
        """The state of the queued resource, ABSENT if there is none.

        Raises CommandError if gcloud cannot say, RunError if the request for the slices failed.
        """
        status, text = self.runner.read(self._queued("describe", "--format=value(state.state)"), assumed)
        if status and "NOT_FOUND" in text:
            return ABSENT
        if status:
            raise CommandError(f"gcloud cannot describe {self.name}: {' '.join(text.split()) or status}")
        if text == "FAILED":
            raise RunError(
                f"the request {self.name} failed; `{shlex.join(self._queued('describe'))}` says why (quota and the "
                "accelerator types of the zone are the usual reasons)"
            )
        return text

    def wait(self) -> None:
        """Waits until the slices are there; raises RunError if they never will be."""
        while (state := self.state()) != "ACTIVE":
            if state not in WAITING:
                raise RunError(f"{self.name} is {state}, waiting is in vain")
            self.runner.say(f"{self.name} is {state}")
            self.runner.pause(POLL_SECONDS)

    def install(self) -> None:
        """Copies the code to every host, makes its environment and mounts the bucket at /gcs."""
        archive = Path.home() / f".{self.name}.tar.gz"
        self.runner.run(["tar", "--exclude=__pycache__", "-czf", str(archive), "-C", str(ROOT), *CONTENT])
        unpack = f"mkdir -p {FOLDER} && tar -xzf {FOLDER}.tar.gz -C {FOLDER}"
        arguments = shlex.join(["bash", WORKER, "install", *([self.bucket] if self.bucket else [])])
        for node in self.nodes:
            copy = ["gcloud", "compute", "tpus", "tpu-vm", "scp", str(archive), f"{node}:{FOLDER}.tar.gz"]
            self.runner.run([*copy, *self._place, "--worker=all"])
            self.runner.run(self._ssh(node, f"{unpack} && {arguments}"))

    def run(self, arguments: Sequence[str]) -> None:
        """Starts launch.train on every host, in the background."""
        for node in self.nodes:
            self.runner.run(self._ssh(node, shlex.join(["bash", WORKER, "start", *arguments])))

    def logs(self, lines: int, worker: str) -> None:
        """Prints the end of the log and follows it."""
        self.runner.run(self._ssh(self.nodes[0], f"bash {WORKER} logs {lines}", worker))

    def stop(self) -> None:
        """Asks the training on every host to save and stop."""
        for node in self.nodes:
            self.runner.run(self._ssh(node, f"bash {WORKER} stop"))

    def statuses(self, assumed: str) -> list[str]:
        """What each reachable host says: "running", "ended STATUS" or "none"."""
        command = f"if [ -f {WORKER} ]; then bash {WORKER} status; else echo none; fi"
        answers = [self.runner.read(self._ssh(node, command), assumed)[1] for node in self.nodes]
        return [status for answer in answers for status in STATUS.findall(answer)]

    def resume(self, arguments: Sequence[str], max_restarts: int = 10) -> None:
        """Does what is missing until the training has finished on every host.

        Preemptions are without limit; a training that ends with an error is started again `max_restarts` times. Raises
        RunError after that, and when the request for the slices failed.
        """
        # What a dry run takes for the answers: nothing there, then slices without a training, then a finished one.
        states = iter([ABSENT, "ACTIVE", "ACTIVE"])
        answers = iter(["none", "ended 0"])
        restarts = failures = 0
        while True:
            try:
                state = self.state(assumed=next(states, "ACTIVE"))
                if state == "ACTIVE":
                    found = self.statuses("\n".join([next(answers, "ended 0")] * self.tpu.hosts))
                    if missing := self.tpu.hosts * self.slices - len(found):
                        self.runner.say(f"{missing} hosts do not answer")
                    elif set(found) == {"ended 0"}:
                        return
                    elif "running" not in found:
                        if "none" in found:
                            self.install()
                        else:
                            restarts += 1
                        if restarts > max_restarts:
                            times = f"ended with an error {restarts} times; see its log"
                            raise RunError(f"the training on {self.name} {times}")
                        self.run(arguments)
                else:
                    self.runner.say(f"{self.name} is {state}")
                    if state == "SUSPENDED":
                        self.delete()
                    if state in ("SUSPENDED", ABSENT):
                        self.create()
                failures = 0
            except CommandError as error:
                # A slice can be taken away in the middle of any command, so the next look decides.
                failures += 1
                if failures == MAX_FAILURES:
                    raise
                self.runner.say(f"{error}; trying again")
            self.runner.pause(POLL_SECONDS)

    @property
    def _place(self) -> list[str]:
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]

    def _queued(self, verb: str, *flags: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "queued-resources", verb, self.name, *self._place, *flags]

    def _ssh(self, node: str, command: str, worker: str = "all") -> list[str]:
        ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", node, *self._place]
        return [*ssh, f"--worker={worker}", f"--command={command}"]
