"""Help: of every command, and before anything is imported that it does not need."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval.command_line import COMMANDS, command_line
from launch import cli

ROOT = Path(__file__).parents[2]
MODULES = [known["module"] for known in COMMANDS.values()] + ["eval.captions", "eval.demo", "launch.demo_backbone"]
# What takes a second or more to import, and what a command only computes or writes with.
HEAVY = ["jax", "flax", "optax", "orbax", "grain", "torch", "transformers", "tensorflow", "tensorboardX", "matplotlib"]
PROGRAM = """
import contextlib, importlib, io, json, sys
from absl import app, flags
found, heavy, own = {}, set(sys.argv.pop().split(",")), set(flags.FLAGS)
for module in sys.argv.pop().split(","):
    sys.argv = [module, "--help"]
    for name in set(flags.FLAGS) - own:  # two commands define the same
        delattr(flags.FLAGS, name)
    before, code, out = set(sys.modules), None, io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            importlib.import_module(module).main()
        except SystemExit as end:
            code = end.code
    found[module] = code, out.getvalue(), sorted(heavy & (set(sys.modules) - before))
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("flag", "values"),
    [("--timeout", ("0", "-1", "nan")), ("--grace", ("-1", "inf")), ("--pictures_seconds", ("-1", "soon"))],
)
def test_impossible_seconds_are_refused_and_none_may_be_waited(flag, values, capsys):
    parser = command_line("eval.serve", "Serves.")
    for value in values:
        with pytest.raises(SystemExit, match="2"):
            parser.parse_args(["--checkpoint=c", f"{flag}={value}"])
        assert f"argument {flag}: '{value}' is not a number" in capsys.readouterr().err
    assert parser.parse_args(["--checkpoint=c", "--grace=0", "--pictures_seconds=0"]).grace == 0.0


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("launch.make_warehouse", ["--out=new", "--worker=0"]),
        ("eval.studies.__main__", ["batch", "--out=new", "--seed=-1"]),  # a parser below a parser
    ],
)
def test_a_flag_cut_short_is_refused(module, line, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [module, *line])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module).main()
    assert end.value.code == 2 and list(tmp_path.iterdir()) == []
    assert f"unrecognized arguments: {line[-1]}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def helped():
    """Of each module: exit status, what was printed, heavy modules imported."""
    command = [sys.executable, "-c", PROGRAM, ",".join(MODULES), ",".join(HEAVY)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", MODULES)
def test_help_tells_how_to_call_and_waits_for_nothing(helped, module):
    code, shown, heavy = helped[module]
    assert code == 0 and ("usage" in shown or "--config" in shown)
    assert heavy == []


@pytest.mark.parametrize(
    ("typed", "told"), [("pedict", "'pedict', the nearest is predict"), ("#", "'#', only demo, train, predict")]
)
def test_a_mistyped_command_is_told_with_the_nearest(monkeypatch, typed, told):
    monkeypatch.setattr(sys, "argv", ["smolrgpt", typed])
    with pytest.raises(SystemExit, match=f"error: there is no command {told}"):
        cli.main()
