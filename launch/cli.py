"""The `smolrgpt` command: `smolrgpt COMMAND ...` is `python -m MODULE ...`, under names that are easy to remember."""

import difflib
import importlib
import sys

from eval.command_line import COMMANDS
from smolrgpt_jax.errors import told


@told()
def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print("smolrgpt COMMAND [options]: small spatial vision-language models, trained and evaluated\n")
        print(*(f"  {name:<15} {known['about']}" for name, known in COMMANDS.items()), sep="\n")
        print("\nsmolrgpt COMMAND --help tells its options and gives examples.")
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        known = f"the nearest is {near[0]}" if near else f"only {', '.join(COMMANDS)}"
        raise SystemExit(f"error: there is no command {name!r}, {known}")
    sys.argv[:2] = [f"smolrgpt {name}"]
    importlib.import_module(COMMANDS[name]["module"]).main()
