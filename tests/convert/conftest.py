"""What the tests of the converter share."""

from __future__ import annotations

import sys

import pytest

from convert import __main__ as command


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `python -m convert ...`; returns what it prints, line by line."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments)])
        command.main()
        return capsys.readouterr().out.splitlines()

    return call
