"""The documentation: links that lead somewhere, commands that exist, blocks that say how they are pasted."""

import importlib.util
import json
import re
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from launch.cli import COMMANDS
from tests.pages import MARKS, PASTED, ROOT, blocks, pages, prose

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
MARKDOWN = [name for name in TRACKED if name.endswith(".md")]
NOTEBOOKS = [name for name in TRACKED if name.endswith(".ipynb")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", MARKDOWN)
def test_relative_links_and_anchors_lead_somewhere(name):
    page = ROOT / name
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        path, _, anchor = urllib.parse.unquote(link).partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or anchor and target.suffix == ".md" and anchor not in anchors(target):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", [*MARKDOWN, *NOTEBOOKS])
def test_commands_that_are_named_exist(name):
    text = (ROOT / name).read_text()
    modules = set(re.findall(r"python3? -m ([a-z]\w*(?:\.\w+)*)", text)) - {"venv", "pip", "pytest", "mkdocs"}
    assert [module for module in sorted(modules) if importlib.util.find_spec(module) is None] == []
    commands = set(re.findall(r"(?:^|`)smolrgpt ([a-z][a-z0-9-]*)", text, re.M))
    assert sorted(commands - set(COMMANDS)) == []


@pytest.mark.parametrize("page", pages())
def test_blocks_say_how_they_are_pasted(page):
    for block in blocks(page):
        assert block.language, f"{page}:{block.line}: the block has no language"
        assert all(mark.startswith(MARKS) for mark in block.marks), f"{page}:{block.line}: {block.marks}"
        if block.language in PASTED:
            assert not re.search(r"^\s*\$ ", block.text, re.M), f"{page}:{block.line}: a prompt before a command"
    # A block that is indented would not be found.
    if not page.endswith(".ipynb"):
        assert not re.search(r"^(\s+```| {4}\s*(python|smolrgpt|make) )", prose((ROOT / page).read_text()), re.M)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_whole_and_bare(name):
    notebook = json.loads((ROOT / name).read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["metadata"] == {} and cell["source"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
