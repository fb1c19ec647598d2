"""The pages of the documentation as a reader meets them: what they link to, and what can be pasted from them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
# A comment right above a block says how the tests paste it:
#   not pasted: REASON     not at all
#   pasted with: FLAGS     every command gets FLAGS as well, which make it short
#   pasted after: COMMAND  COMMAND comes before, which makes it short
#   pasted until: TEXT     stopped with Ctrl-C once it has printed TEXT
#   pasted to fail         it ends with status 1
# A text block right below it has to be printed as it stands; with a sentence between them it is an example, not compared.
MARKS = ("not pasted: ", "pasted with: ", "pasted after: ", "pasted until: ", "pasted to fail")
PASTED = ("bash", "python")
_BLOCK = re.compile(r"(?P<marks>(?:^<!-- [^\n]* -->\n)*)^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block, the marks right above it, and the text block right below it, what it prints."""

    page: str
    line: int
    language: str
    text: str
    marks: tuple[str, ...] = ()
    printed: str | None = None

    def mark(self, name: str) -> str | None:
        """What a mark of MARKS says here, None where it is not there."""
        return next((mark.removeprefix(name) for mark in self.marks if mark.startswith(name)), None)

    def script(self) -> str:
        """The commands, one a line, with what the marks add."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if flags := self.mark("pasted with: "):
            lines = [re.sub(r"^([^#]*?\S)(\s*#.*)?$", lambda found: f"{found[1]} {flags}", line) for line in lines]
        return "\n".join([*filter(None, [self.mark("pasted after: ")]), *lines])


def pages() -> list[str]:
    """The pages in the order in which they are read, from the project's root."""

    def listed(entries: list) -> Iterator[str]:
        for entry in entries:
            for title in entry.values():
                yield from [title] if isinstance(title, str) else listed(title)

    nav = [f"docs/{page}" for page in listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])]
    # The site makes a page of a notebook (docs/notebooks.py).
    nav = [page if (ROOT / page).exists() else str(Path(page).with_suffix(".ipynb")) for page in nav]
    return ["README.md", *nav, "launch/pods/README.md"]


def blocks(page: str) -> list[Block]:
    """The blocks of a page; the code of a notebook is one."""
    text = (ROOT / page).read_text()
    if page.endswith(".ipynb"):
        code = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return [Block(page, 1, "python", "\n".join("".join(source) + "\n" for source in code))]
    found: list[Block] = []
    end = 0
    for match in _BLOCK.finditer(text):
        marks = tuple(re.findall(r"^<!-- (.*) -->$", match["marks"], re.M))
        line = text.count("\n", 0, match.start("language")) + 1
        block = Block(page, line, match["language"], match["text"], marks)
        if block.language == "text" and found and not text[end : match.start()].strip():
            found[-1] = Block(**{**vars(found[-1]), "printed": block.text})
        found.append(block)
        end = match.end()
    return found


def prose(text: str) -> str:
    """A page without its blocks and code spans, in which links and headings are looked for."""
    return re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", text))
