"""The parsers of commands, and where those that serve listen."""

import argparse
import functools
import io
import ipaddress
import json
import math
import shlex
import socket
import sys
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from smolrgpt_jax.errors import DataError, RunError, told
from smolrgpt_jax.files import as_path, check_out

# Name -> module, about, examples.
COMMANDS = tomllib.loads(Path(__file__).with_name("commands.toml").read_text(encoding="utf-8"))


def _typed(text: str) -> Path:
    try:
        return as_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _Parser(argparse.ArgumentParser):
    """Reads arguments of type Path with `as_path`; the parsers of subcommands are of this class too."""

    def __init__(self, *args: Any, **settings: Any):
        # A flag cut short, "--seed" for "--seeds", would start hours of something else.
        super().__init__(*args, allow_abbrev=False, **settings)
        # Those that are named are of options in files.
        types = {
            "path": _typed,
            "int": int,
            "float": float,
            "str": str,
            "positive": positive,
            "above_zero": above_zero,
            "from_zero": from_zero,
            "share": share,
            "json_object": json_object,
        }
        outs = {"out_file": out_file, "out_folder": out_folder, "out_picture": out_picture}
        for name, read in ((Path, _typed), *types.items(), *outs.items()):
            self.register("type", name, read)


def command_line(module: str, doc: str, **choices: Iterable[str]) -> argparse.ArgumentParser:
    """The parser of `python -m MODULE` or `smolrgpt COMMAND`, with the options that `add_options` adds.

    Its help begins with `description` of the module and its docstring, and ends with the module's examples.
    """
    prog = sys.argv[0] if sys.argv[0].startswith("smolrgpt ") else f"python -m {module}"
    about = {"description": description(module, doc), "epilog": examples(module)}
    parser = _Parser(prog=prog, formatter_class=argparse.RawDescriptionHelpFormatter, **about)
    add_options(parser, module, **choices)
    return parser


def _listed(module: str) -> dict[str, Any]:
    """What the file options.toml in a module's package says of the module."""
    package, _, name = module.partition(".")
    file = Path(__file__).parents[1] / package / "options.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")).get(name, {}) if file.exists() else {}


def description(module: str, doc: str = "") -> str:
    """A module's docstring, and the details that options.toml has of it."""
    return "\n\n".join(filter(None, [doc, _listed(module).get("details")]))


def add_options(parser: argparse.ArgumentParser, module: str, **choices: Iterable[str]) -> None:
    """Adds what the file options.toml in a module's package lists for the module, if it does; choices: of some of the options."""
    package, options = module.partition(".")[0], _listed(module)
    options.pop("details", None)
    for other in options.pop("also", ()):
        add_options(parser, f"{package}.{other}", **choices)
    groups = {parser.add_argument_group(title): grouped for title, grouped in options.pop("groups", {}).items()}
    for place, listed in ((parser, options), *groups.items()):
        for option, how in listed.items():
            if "default" in how:
                how.setdefault("type", type(how["default"]))
            if known := choices.get(option.lstrip("-")):
                how["choices"] = known
            place.add_argument(option, **how)


def typed_command(module: str) -> str:
    """What was typed, by the name of the module: "python -m MODULE ..."."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def positive(text: str) -> int:
    """Reads a command line's positive whole number; raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def above_zero(text: str) -> float:
    """Reads a command line's length, time or the like; raises ArgumentTypeError for what is not finite and above 0."""
    if not 0 < (number := _number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def from_zero(text: str) -> float:
    """Reads a command line's time or the like, which may be 0; raises ArgumentTypeError unless it is finite and not below 0."""
    if not 0 <= (number := _number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return number


def share(text: str) -> float:
    """Reads a command line's share of a whole; raises ArgumentTypeError for what is not within 0 and 1."""
    if not 0 <= (number := _number(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share, 0 to 1")
    return number


def json_object(text: str) -> dict[str, Any]:
    """Reads a command line's JSON object; raises ArgumentTypeError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object such as {{"temperature": 1}}')
    return value


def examples(module: str) -> str | None:
    """What the help of a module ends with, None for one that is no command of `smolrgpt`."""
    found = [known["examples"] for known in COMMANDS.values() if known["module"].removesuffix(".__main__") == module]
    return "examples, from the project's root:\n" + textwrap.indent(found[0], "    ") if found else None


def out_file(name: str, folder: bool = False) -> Path:
    """The type of an argument that names a file, or folder, to write; ends the command where none can be written."""
    path = _typed(name)
    with told():
        check_out(path, folder)
    return path


out_folder = functools.partial(out_file, folder=True)


def out_picture(name: str) -> Path:
    """The type of an argument that names a picture to write, whose suffix says the format; ends the command where none can be."""
    from PIL import Image

    path = out_file(name)
    with told():
        try:
            Image.new("RGB", (1, 1)).save(io.BytesIO(), Image.registered_extensions()[path.suffix.lower()])
        except (KeyError, OSError):
            suffix = path.suffix or "no suffix"
            raise DataError(f"{path}: {suffix} is not the suffix of a picture format that can be written") from None
    return path


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A socket that listens at the address, port 0 taking any free one, and its URL; raises RunError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise RunError(f"{host}:{port} cannot be listened at ({error})") from error
    host, port = listening.getsockname()[:2]
    return listening, f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
