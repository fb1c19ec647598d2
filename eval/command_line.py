"""The parsers of commands."""

import argparse
import sys


def command_line(module: str, doc: str) -> argparse.ArgumentParser:
    """The parser of `python -m MODULE` or `smolrgpt COMMAND`, whose help shows the module's docstring as it stands."""
    prog = sys.argv[0] if sys.argv[0].startswith("smolrgpt ") else f"python -m {module}"
    return argparse.ArgumentParser(prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
