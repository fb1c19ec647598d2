"""What the launchers share: commands that run or are only printed, and the command line of the training."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Program -> where it comes from.
PROGRAMS = {
    "gcloud": "install the Google Cloud CLI (cloud.google.com/sdk/docs/install)",
    "kubectl": "run `gcloud components install kubectl`, or install it from kubernetes.io/docs/tasks/tools",
    "xpk": "run `pip install 'xpk>=1.16'` (github.com/AI-Hypercomputer/xpk)",
    **dict.fromkeys(("sbatch", "squeue", "scancel"), "run this on a login node of a Slurm cluster"),
    "docker": "install it from docs.docker.com/get-docker",
    "tar": "install it with the system's package manager",
}


class LaunchError(ValueError):
    """A job that cannot be launched; one sentence."""


class CommandError(LaunchError):
    """A command that was run and failed."""


class Runner:
    """Runs commands one after another and prints each before it runs; raises LaunchError if a program is missing."""

    def run(self, command: Sequence[str]) -> None:
        """Runs a command with this terminal's input and output; raises CommandError if it fails."""
        self._check(command)
        print(f"$ {shlex.join(command)}", flush=True)
        status = subprocess.run(command, check=False).returncode
        if status:
            raise CommandError(f"`{shlex.join(command)}` failed with exit status {status}")

    def read(self, command: Sequence[str], assumed: str) -> tuple[int, str]:
        """Exit status and output (standard output, or standard error of a failure); a dry run assumes success and `assumed`."""
        self._check(command)
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return done.returncode, (done.stderr if done.returncode else done.stdout).strip()

    def say(self, what: str) -> None:
        """Tells the user what was found."""
        print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)

    def pause(self, seconds: float) -> None:
        """Waits before the next look."""
        time.sleep(seconds)

    def write(self, path: Path, text: str) -> None:
        """Writes a file that a later command reads."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        aside.write_text(text)
        aside.replace(path)

    def _check(self, command: Sequence[str]) -> None:
        if shutil.which(command[0]) is None:
            raise LaunchError(f"{command[0]} is not installed: {PROGRAMS[command[0]]}")


class DryRun(Runner):
    """Prints each command as it could be typed, and runs and writes nothing."""

    def run(self, command: Sequence[str]) -> None:
        print(shlex.join(command))

    def read(self, command: Sequence[str], assumed: str) -> tuple[int, str]:
        print(shlex.join(command))
        return 0, assumed

    def say(self, what: str) -> None:
        pass

    def pause(self, seconds: float) -> None:
        pass

    def write(self, path: Path, text: str) -> None:
        print(f"cat > {shlex.quote(str(path))} <<'END'\n{text}END")


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say what to train."""
    parser.add_argument(
        "--config", required=True, help="configuration file, as launch.train takes it, relative to the repository"
    )
    parser.add_argument(
        "--workdir", required=True, help="checkpoints and metrics; a folder that every host sees under this path"
    )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry_run", action="store_true", help="print the commands and run nothing")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The launcher's own arguments, and those after `--`, which go to launch.train unchanged."""
    arguments = list(arguments)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def train_arguments(config: str, workdir: str, rest: Sequence[str] = ()) -> list[str]:
    """The arguments of `python -m launch.train`; raises LaunchError if the work directory cannot be, or if the run would be
    refused wherever it is started."""
    file = config.partition(":")[0]
    path = Path(file)
    if path.is_absolute() or ".." in path.parts or not (ROOT / path).is_file():
        known = ", ".join(
            sorted(
                f"configs/{found.name}"
                for found in (ROOT / "configs").glob("*.py")
                if found.stem not in ("__init__", "default")
            )
        )
        raise LaunchError(f"no configuration {file} in the repository ({known})")
    if "://" in workdir:
        raise LaunchError(f"--workdir {workdir} is a URL; mount the bucket and give the folder")
    # Imported where needed: the other verbs need nothing but Python.
    from launch import run_config
    from smolrgpt_jax.training import settings

    try:
        settings.check(run_config.load(str(ROOT / config), rest).to_dict())
    except ValueError as error:
        raise LaunchError(str(error)) from None
    return [f"--config={config}", f"--workdir={workdir}", *rest]


def run_main(main, arguments: Sequence[str] | None = None) -> None:
    """Runs a launcher's main(arguments); an error becomes one sentence and exit status 1."""
    try:
        main(sys.argv[1:] if arguments is None else list(arguments))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None
