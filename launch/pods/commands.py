"""What the launchers share: commands that run or are only printed, their options, and the arguments of the training."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from eval.command_line import command_line
from launch.pods.suits import Device, check_rows
from smolrgpt_jax.chips import SLICES
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.files import as_path

ROOT = Path(__file__).parents[2]
SAVE_SECONDS = 300  # from the warning to the end of a training, in which it saves
_FILE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
PROGRAMS, OPTIONS, VERBS = _FILE["programs"], _FILE["options"], _FILE["verbs"]
OPTIONS["--topology"]["help"] = f"one of {', '.join(SLICES)}"


class CommandError(RunError):
    """A command that was run and failed."""


class Runner:
    """Runs commands one after another and prints each before it runs; raises RunError if a program is missing."""

    def run(self, command: Sequence[str], text: str | None = None) -> None:
        """Runs a command with this terminal's input, or `text`, and output; raises CommandError if it fails."""
        self._check(command)
        print(f"$ {shlex.join(command)}", flush=True)
        status = subprocess.run(command, check=False, input=text, text=True).returncode
        if status:
            raise CommandError(f"`{shlex.join(command)}` failed with exit status {status}")

    def read(self, command: Sequence[str], assumed: str) -> tuple[int, str]:
        """Exit status and output (standard output, or standard error of a failure); a dry run assumes success and `assumed`."""
        self._check(command)
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return done.returncode, (done.stderr if done.returncode else done.stdout).strip()

    def say(self, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def _check(self, command: Sequence[str]) -> None:
        if shutil.which(command[0]) is None:
            raise RunError(f"{command[0]} is not installed: {PROGRAMS[command[0]]}")


class DryRun(Runner):
    """Prints each command as it could be typed, and runs and writes nothing."""

    def run(self, command: Sequence[str], text: str | None = None) -> None:
        print(shlex.join(command) + (f" <<'END'\n{text}END" if text else ""))

    def read(self, command: Sequence[str], assumed: str) -> tuple[int, str]:
        print(shlex.join(command))
        return 0, assumed

    def say(self, what: str) -> None:
        pass

    def pause(self, seconds: float) -> None:
        pass


class Launcher:
    """The command line of a launcher: verbs with their options, those of commands.toml."""

    def __init__(self, name: str, doc: str):
        self.name, self.parser = name, command_line(f"launch.{name}", doc)
        verbs = self.parser.add_subparsers(dest="verb", required=True)
        self.verbs: dict[str, argparse.ArgumentParser] = {}
        for verb, about in VERBS[name].items():
            parser = self.verbs[verb] = verbs.add_parser(verb, help=about["help"])
            shared = {option: OPTIONS[option] for option in (*about.get("options", ()), "--dry_run")}
            for option, how in (shared | about.get("own", {})).items():
                parser.add_argument(option, **how)

    def parse(self, arguments: Sequence[str] | None, runner: Runner | None) -> tuple[argparse.Namespace, Runner]:
        """The options, and `runner` or the one they ask for.

        With `rest`: what follows `--` and goes to launch.train unchanged; and `commands`: those that commands.toml has of the verb.
        """
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        at = arguments.index("--") if "--" in arguments else len(arguments)
        a = self.parser.parse_args(arguments[:at])
        a.rest, commands = arguments[at + 1 :], VERBS[self.name][a.verb].get("run", ())
        a.commands = [[word.format(root=ROOT, **vars(a)) for word in command] for command in commands]
        return a, runner or (DryRun() if a.dry_run else Runner())


def check_name(what: str, name: str, most: int = 63) -> None:
    """Raises RunError for a name that Kubernetes does not take as a label, or that is longer than `most` characters."""
    if len(name) > most or not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise RunError(
            f"{what} {name!r} is none for Kubernetes: lower case letters, digits and '-', at most {most} characters, the first a "
            "letter, the last a letter or digit"
        )


def train_arguments(a: argparse.Namespace, devices: Sequence[Device], shared: bool = False) -> list[str]:
    """The arguments of `python -m launch.train`.

    Args:
      a: the options of the launcher, and `rest`.
      devices: all those that the training will have, none where they are not known here.
      shared: it starts in one folder that all hosts see, so that the work directory may be relative to it.

    Raises:
      ValueError: one sentence, if the run would be refused wherever it is started, or on these devices.
    """
    file = a.config.partition(":")[0]
    path = Path(file)
    if path.is_absolute() or ".." in path.parts or not (ROOT / path).is_file():
        known = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem not in ("__init__", "default"))
        raise RunError(f"no configuration {file} in the repository ({', '.join(f'configs/{n}.py' for n in known)})")
    as_path(a.workdir, "--workdir")
    # Imported where needed: the other verbs need nothing but Python.
    from launch import run_config
    from smolrgpt_jax.training import settings

    run = run_config.load(str(ROOT / a.config), a.rest).to_dict()
    settings.check(run)
    # A "~" is no better: each host has a home folder of its own.
    if not shared and not PurePosixPath(a.workdir).is_absolute():
        raise RunError(
            f"--workdir {a.workdir} would be another folder on each host: give the whole path of one that every host sees, such as "
            "/gcs/stage3"
        )
    if devices:
        check_rows(run, devices)
    return [f"--config={a.config}", f"--workdir={a.workdir}", *a.rest]


def train_command(arguments: Sequence[str], python: str = "python") -> list[str]:
    """`python -m launch.train` with its arguments."""
    return [python, "-u", "-m", "launch.train", *arguments]
