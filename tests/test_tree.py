"""The tree: short files, names that occur once, tests beside what they test, commands that exist."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from launch.cli import COMMANDS, main

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
    module, described = COMMANDS[name]
    assert importlib.util.find_spec(module) and described


def test_the_command_lists_its_commands(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["smolrgpt"])
    main()
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_an_unknown_command_gets_one_sentence(monkeypatch):
    monkeypatch.setattr("sys.argv", ["smolrgpt", "trian"])
    with pytest.raises(SystemExit, match="there is no command 'trian', only demo, train"):
        main()


def test_a_command_gets_its_options(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["smolrgpt", "score", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capsys.readouterr().out.startswith("usage: smolrgpt score")
