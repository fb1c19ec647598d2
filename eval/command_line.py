"""The parsers of commands."""

from __future__ import annotations

import argparse


def command_line(module: str, doc: str) -> argparse.ArgumentParser:
    """The parser of `python -m MODULE`, whose help shows the module's docstring as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
