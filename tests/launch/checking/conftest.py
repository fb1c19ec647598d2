"""The folder of tests/own_folder.py, and the command's verdict on folders."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import check_data
from launch.checking import everything
from tests.own_folder import Own


@pytest.fixture
def own(tmp_path) -> Own:
    return Own(tmp_path / "own")


class Verdict:
    """What the command said of a folder."""

    def __init__(self, status: object, printed: str, page: Path):
        self.status, self.printed, self.page = status, printed, page
        text = page.read_text() if page.exists() else ""
        cards = re.findall(r'<section class="card problem (\w*)" data-kind="(\w+)">(.*?)</section>', text, re.S)
        said = {
            kind: [html.unescape(sentence) for sentence in re.findall("<li>(.*?)</li>", card, re.S)]
            for _, kind, card in cards
        }
        self.wrong = {kind: said[kind] for mark, kind, _ in cards if mark}
        self.told = {kind: said[kind] for mark, kind, _ in cards if not mark}


@pytest.fixture
def look(tmp_path, capsys, monkeypatch) -> Callable[..., Verdict]:
    """Runs the command about a folder, or with other arguments; two questions are drawn, which takes most of the time."""
    monkeypatch.setattr(everything, "SHEET", 2)

    def run(folder: Path | None, *arguments: str) -> Verdict:
        page, status = tmp_path / "pages" / "check.html", 0
        page.unlink(missing_ok=True)
        try:
            check_data.main([*([str(folder)] if folder else []), "--out", str(page), *arguments])
        except SystemExit as end:
            status = end.code
        return Verdict(status, capsys.readouterr().out, page)

    return run
