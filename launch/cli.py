"""The `smolrgpt` command: `smolrgpt COMMAND ...` is `python -m MODULE ...`, under names that are easy to remember."""

import importlib
import sys
from pathlib import Path

from smolrgpt_jax.errors import told
from smolrgpt_jax.files import read_json

# Name -> module, and what it does.
COMMANDS: dict[str, list[str]] = read_json(Path(__file__).with_suffix(".json"), dict)


@told()
def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print("smolrgpt COMMAND [options]: small spatial vision-language models, trained and evaluated\n")
        print(*(f"  {command:<15} {what}" for command, (_, what) in COMMANDS.items()), sep="\n")
        print("\nsmolrgpt COMMAND --help tells its options and gives an example.")
        return
    if name not in COMMANDS:
        raise SystemExit(f"error: there is no command {name!r}, only {', '.join(COMMANDS)}")
    sys.argv[:2] = [f"smolrgpt {name}"]
    importlib.import_module(COMMANDS[name][0]).main()
