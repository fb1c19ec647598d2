"""The tree: short files, names that occur once, tests beside what they test, commands that exist."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import yaml

from eval.command_line import COMMANDS
from launch.cli import main

ROOT = Path(__file__).parents[1]
SOURCES = ("smolrgpt_jax", "eval", "launch", "convert", "configs", "benchmarks")
LONGEST = 400  # lines of a source file
# The command lines people type are named for what they do, as the rooms behind them are.
COMMAND_ROOMS = ("eval", "launch", "convert", "configs", "benchmarks")


def source_files() -> list[Path]:
    return sorted(file for room in SOURCES for file in (ROOT / room).rglob("*.py"))


def test_no_source_file_is_long():
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in source_files()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_no_two_files_behind_the_commands_have_one_name():
    rooms = [file for file in source_files() if file.parent not in {ROOT / room for room in COMMAND_ROOMS}]
    names = Counter(file.stem for file in rooms if not file.stem.startswith("__"))
    assert [name for name, times in names.items() if times > 1] == []


def test_tests_mirror_the_tree():
    mirrored = {ROOT / "tests", *(ROOT / "tests" / room for room in SOURCES[1:])}
    for test in (ROOT / "tests").rglob("test_*.py"):
        folder = test.parent.relative_to(ROOT / "tests")
        assert test.parent in mirrored or any((ROOT / base / folder).is_dir() for base in ("smolrgpt_jax", "")), test


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module(name):
    assert importlib.util.find_spec(COMMANDS[name]["module"]) and COMMANDS[name]["about"]


def test_the_command_lists_its_commands(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["smolrgpt"])
    main()
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def examples(name: str) -> list[list[str]]:
    """The command lines that a command's help shows, as words."""
    lines = COMMANDS[name]["examples"].replace("\\\n", " ").splitlines()
    return [shlex.split(command) for line in lines for command in line.split(" && ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_what_can_be_typed_in_the_root(name):
    shown = examples(name)
    assert 1 <= len(shown) <= 3 and ["smolrgpt", name] in [words[:2] for words in shown]
    for words in shown:
        assert words[0] == "python" or words[1] in COMMANDS
        for place in re.findall(r"(?:configs|docs|tests)/[\w./]+", " ".join(words)):
            assert (ROOT / place).exists(), place


class Parsed(Exception):
    """A command line was understood."""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("train", "tpu-report")])
def test_help_ends_with_examples_that_the_command_takes(name, monkeypatch, capsys):
    whole = argparse.ArgumentParser.parse_args

    def parse(parser, arguments=None):
        raise Parsed(whole(parser, arguments))

    module = importlib.import_module(COMMANDS[name]["module"])
    own = [words for words in examples(name) if words[:2] == ["smolrgpt", name]]
    monkeypatch.setattr("sys.argv", ["smolrgpt", name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: smolrgpt {name}")
    assert printed.rstrip().endswith(COMMANDS[name]["examples"].splitlines()[-1])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    for words in own:
        monkeypatch.setattr("sys.argv", [f"smolrgpt {name}", *words[2:]])
        with pytest.raises(Parsed):
            module.main()


def test_what_runs_before_a_commit_is_what_ci_runs():
    """Commands of .pre-commit-config.yaml, which leave out what ruff is told to exclude, and the recipe of `make lint`."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    before = [hook["entry"].removeprefix(".venv/bin/").split() for hook in hooks]
    recipe = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    by_make = [words.split() for words in re.findall(r"^\t\$\(VENV\)/bin/(.*)$", recipe, re.M)]
    named = [{word for word in words if word not in (".", "--force-exclude")} for words in (*before, *by_make)]
    assert len(before) == len(by_make) == 4
    assert sorted(map(sorted, named[:4])) == sorted(map(sorted, named[4:]))
    assert "make lint" in (ROOT / ".ci" / "run").read_text().splitlines()
