"""The `--config FILE [--config.any.key=value]` of commands that take a run's configuration."""

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from eval.command_line import description, examples
from smolrgpt_jax.errors import told
from smolrgpt_jax.training.settings import describe, nearest

FLAG = "config"
HELP = ("--help", "-help", "-h", "-?", "--helpshort")


def define() -> Any:
    """Defines the flag; its value is a locked ConfigDict."""
    return config_flags.DEFINE_config_file(FLAG, help_string="configuration file of the run", lock_config=True)


def start(main: Callable[[list[str]], None]) -> None:
    """Parses the command line and runs `main` with what are no flags; bad flags end the program with one sentence."""
    # DEFINE_config_file marks --config required only through its value.
    flags.mark_flag_as_required(FLAG)
    app.run(main, flags_parser=functools.partial(_parse, sys.modules[main.__module__]))


def load(path: str, arguments: Sequence[str] = ()) -> ConfigDict:
    """The configuration of a file, changed by the `--config.any.key=value` among arguments of a command line.

    Raises ValueError, one sentence, for a file, key or value that cannot be.
    """
    values = flags.FlagValues()
    line = ["", f"--{FLAG}={path}", *arguments]
    config_flags.DEFINE_config_file(FLAG, lock_config=True, flag_values=values, sys_argv=line)
    _check(values, path, arguments)
    _parsed(values, line, known_only=True)
    return values[FLAG].value


def _parsed(values: flags.FlagValues, line: Sequence[str], **how: bool) -> list[str]:
    try:
        return values(line, **how)
    except (flags.Error, TypeError) as error:
        text = re.sub(
            r"flag (--\w+)=None: Flag --\w+ must have a value other than None\.", r"\1 is missing;", str(error)
        )
        raise ValueError(" ".join(text.split()).rstrip(";")) from None


def _parse(module: Any, arguments: Sequence[str]) -> list[str]:
    if set(HELP) & set(arguments):
        # absl would leave --config out, which another module defines, and end with an error.
        own = flags.FLAGS.module_help(arguments[0]).split(":\n", 1)[-1]
        with told():
            name = module.__spec__.name
            about = description(name, module.__doc__.strip())
            print(f"{about}\n\nflags:\n  --{FLAG}: {flags.FLAGS[FLAG].help}\n{own}")
            print(f"settings:\n{describe()}\n\n{examples(name)}")
        raise SystemExit(0)
    # The shell leaves a "~" behind "=" as it is.
    arguments = [re.sub(f"(?<=^--{FLAG}=)~.*", lambda path: os.path.expanduser(path[0]), a) for a in arguments]
    config = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    config.add_argument(f"--{FLAG}", nargs="?")
    with told():
        if path := config.parse_known_args(arguments[1:])[0].config:
            _check(flags.FLAGS, path, arguments)
        elif changed := [a for a in arguments if re.match(rf"--?(?:no)?{FLAG}\.", a)]:
            raise ValueError(f"--{FLAG} is missing; {changed[0]} changes a configuration")
        return _parsed(flags.FLAGS, arguments)


def _check(values: flags.FlagValues, path: str, arguments: Sequence[str]) -> None:
    # ml_collections ends in a traceback for a file or key that does not exist, so both are looked at first.
    file = path.split(":", 1)[0]
    if not Path(file).is_file():
        raise ValueError(f"--{FLAG} {file}: no such file")
    try:
        config = values[FLAG].parser.parse(path)
    except ValueError as error:
        # The parser's text is a traceback, whose last line is the error.
        reason = str(error).strip().splitlines()[-1].removeprefix("ValueError: ")
        raise ValueError(f"--{FLAG} {path}: {reason}") from None
    except Exception as error:  # whatever comes of running a file that was not written as one
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"--{FLAG} {path} is no configuration, a Python file with get_config ({reason})") from None
    for argument in arguments:
        setting = re.match(rf"--?(?:no)?{FLAG}\.([^=]*)", argument)
        problem = setting and unknown_key(config, setting[1])
        if problem:
            raise ValueError(problem)


def unknown_key(config: ConfigDict, name: str) -> str | None:
    """What is wrong with the name of a setting, such as data.row_tokens: None if it exists, else a sentence with the nearest."""
    known = list(_names(config))
    if any(f"{other}.".startswith(f"{name}.") for other in known):
        return None
    near = nearest(name, known)
    return f"the configuration has no key {name!r}" + (f", the nearest is {near!r}" if near else "")


def _names(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict) and value:
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
