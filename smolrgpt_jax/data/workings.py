"""An answer apart from its workings: what a worked answer says of each region before it concludes.

"0 no 1 rightmost. [Region 1] is the rightmost buffer. 2 in 3 out. It holds one pallet." concludes with its sentences in words; its
workings, numbers and single words by turns, say how it came to them (`warehouse.words.worked` writes them).
"""

import re
import sys

_WORDS = (
    "no|leftmost|rightmost|middle|in|out|loaded|empty|at|off|nearest|stands|ahead|left|right|with|apart|across|along"
)
_TERM = rf"(?: (?:[0-9]+(?:\.[0-9]+)?|\([0-9]+, [0-9]+\)|{_WORDS}))"
# A whole sentence of them, or its beginning at the end of a text that was cut off or is still being written.
_WORKINGS = re.compile(
    rf"(?:^|(?<=[.!?]\s))(?:[0-9]+|with|apart)(?:{_TERM}+\.(?!\S)\s*|{_TERM}*(?: [a-z]*| \([0-9, ]*)?$)"
)


def split_workings(text: str, ended: bool = True) -> tuple[str, str]:
    """A generated answer's conclusion and its workings, "" where there are none.

    An answer of nothing but workings is its own conclusion, unless it has not ended yet.
    """
    conclusion, workings = _WORKINGS.sub("", text).strip(), "".join(_WORKINGS.findall(text)).strip()
    return (conclusion, workings) if conclusion or not ended else (text, "")


def answer_lines(text: str) -> str:
    """An answer as a terminal shows it: the conclusion, and dimmed below it the workings."""
    conclusion, workings = split_workings(text)
    below = f"\nworkings: {workings}" if workings else ""
    return conclusion + (f"\033[2m{below}\033[0m" if below and sys.stdout.isatty() else below)
