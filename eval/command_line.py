"""The parsers of commands."""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

from smolrgpt_jax.errors import told
from smolrgpt_jax.files import as_path, check_out


def _typed(text: str) -> Path:
    try:
        return as_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _Parser(argparse.ArgumentParser):
    """Reads arguments of type Path with `as_path`; the parsers of subcommands are of this class too."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        self.register("type", Path, _typed)
        self.register("type", "int", int)  # of options that stand in JSON


def command_line(module: str, doc: str) -> argparse.ArgumentParser:
    """The parser of `python -m MODULE` or `smolrgpt COMMAND`, whose help shows the module's docstring as it stands."""
    prog = sys.argv[0] if sys.argv[0].startswith("smolrgpt ") else f"python -m {module}"
    return _Parser(prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def out_file(name: str, folder: bool = False) -> Path:
    """The type of an argument that names a file, or folder, to write; ends the command where none can be written."""
    path = _typed(name)
    with told():
        check_out(path, folder)
    return path


out_folder = functools.partial(out_file, folder=True)
