"""The `--config FILE [--config.any.key=value]` of commands that take a run's configuration."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

FLAG = "config"


def define() -> Any:
    """Defines the flag; its value is a locked ConfigDict."""
    return config_flags.DEFINE_config_file(
        FLAG, help_string="configuration file of the run", lock_config=True
    )


def start(main: Callable[[list[str]], None]) -> None:
    """Parses the command line and runs `main` with what are no flags; bad flags end the program with one sentence."""
    # DEFINE_config_file marks --config required only through its value.
    flags.mark_flag_as_required(FLAG)
    app.run(main, flags_parser=_parse)


def _parse(arguments: Sequence[str]) -> list[str]:
    # ml_collections ends in a traceback for a file or key that does not exist, so both are looked at first.
    path = _path(arguments)
    if path is not None:
        file = path.split(":", 1)[0]
        if not Path(file).is_file():
            raise SystemExit(f"error: --{FLAG} {file}: no such file")
        try:
            config = flags.FLAGS[FLAG].parser.parse(path)
        except ValueError as error:
            # The parser's text is a traceback, whose last line is the error.
            raise SystemExit(f"error: --{FLAG} {path}: {str(error).strip().splitlines()[-1]}") from None
        for argument in arguments:
            if argument.startswith(f"--{FLAG}."):
                problem = unknown_key(config, argument[len(FLAG) + 3 :].split("=", 1)[0])
                if problem:
                    raise SystemExit(f"error: {problem}")
    return app.parse_flags_with_usage(list(arguments))


def _path(arguments: Sequence[str]) -> str | None:
    """The last value of the flag on a command line."""
    found = None
    for argument, following in zip(arguments, [*arguments[1:], None]):
        if argument == f"--{FLAG}":
            found = following
        elif argument.startswith(f"--{FLAG}="):
            found = argument.partition("=")[2]
    return found


def unknown_key(config: ConfigDict, name: str) -> str | None:
    """What is wrong with the name of a setting, such as data.row_tokens: None if it exists, else a sentence with the nearest."""
    known = list(_names(config))
    if name in known or any(other.startswith(f"{name}.") for other in known):
        return None
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    # A key of the right name in another section is nearer than one that is spelt alike.
    last = name.rpartition(".")[2]
    same = [other for other in known if other.rpartition(".")[2] == last]
    nearest = (same or near or [""])[0]
    return f"the configuration has no key {name!r}" + (f", the nearest is {nearest!r}" if nearest else "")


def _names(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in config:
        value = config[key]
        if isinstance(value, (ConfigDict, dict)) and value:
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
