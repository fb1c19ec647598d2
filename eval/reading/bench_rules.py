"""From free text to the answers of SpatialRGPT-Bench, by rules.

The benchmark asks four kinds of questions, told by their category: a predicate ("Is Region [0] above Region [1]?",
answered with yes or no or with what is the case), a choice between two regions, a length ("Region [0] is 26.25
centimeters in width."), and a clock direction. Its original evaluation has GPT-4 compare and convert; here rules do, so
that a score needs no server and is the same every time.
"""

from __future__ import annotations

import re

from eval.reading.lengths import BARE_DECIMAL, decimal, find_lengths, in_digits, without_ranges
from eval.reading.pieces import (
    COUNT,
    NEGATION,
    NUMBER_WORDS,
    REGION,
    SENTENCE_END,
    is_garbage,
    marked_objects,
    one_line,
    regex,
    verdict,
    without_denied,
)

BenchAnswer = bool | int | float | None

# The columns of the paper's qualitative table; the two names of each are opposite.
_COLUMNS = ("below/above", "left/right", "big/small", "tall/short", "wide/thin", "behind/front")
QUALITATIVE = {column: tuple(column.split("/")) for column in _COLUMNS}
# The columns of its quantitative table.
QUANTITATIVE = {
    "direct_distance": "distance_data",
    "horizontal_distance": "horizontal_distance_data",
    "vertical_distance": "vertical_distance_data",
    "width": "width_data",
    "height": "height_data",
    "direction": "direction",
}
_CHOICES = ("above", "below", "left", "right", "tall", "short")
CATEGORIES = (
    *(f"{name}_predicate" for names in QUALITATIVE.values() for name in names),
    *(f"{name}_choice" for name in _CHOICES),
    *QUANTITATIVE.values(),
)

_OPPOSITE = {a: b for names in QUALITATIVE.values() for a, b in (names, names[::-1])}
_MORE = r"(?:great\w*|more|larg\w*|bigger)"
_LESS = r"(?:less\w*|small\w*|lower)"
_VERB = r"\s+(?:is\s+|isn't\s+|does\s+|doesn't\s+)?(?:not\s+)?"
_EXCEEDS = r"(?:exceeds?|surpass(?:es)?|greater|larger|more|bigger|higher)"
_SIZE = {"tall": "height", "short": "height", "wide": "width", "thin": "width"}
_OWN_WORDS = {
    "below": r"below|under\w*|beneath|lower|less\s+high",
    "above": r"above|over|atop|on\s+top|higher",
    "left": r"left\w*",
    "right": r"right\w*",
    "big": rf"big\w*|larg\w*|huge|great\w*|{_MORE}\s+(?:space|size)|exceeds?|surpass(?:es)?",
    "small": r"small\w*|tin(?:y|ier)|less\s+(?:big|large)|less\w*\s+(?:space|size)",
    "tall": r"tall\w*|higher",
    "short": r"short\w*|less\s+tall",
    "wide": r"wide\w*|broad\w*",
    "thin": r"thin\w*|narrow\w*|slim\w*|less\s+wide",
    "behind": r"behind|f[au]rther|at\s+the\s+back|backward|more\s+distant",
    "front": r"in\s+front|front|closer|nearer|before|forward|less\s+distant",
}


def _pattern(name: str) -> str:
    size = _SIZE.get(name)
    if size is None:
        return _OWN_WORDS[name]
    amount, than = (_MORE, _EXCEEDS) if name in ("tall", "wide") else (_LESS, _LESS)
    # "a greater height", "larger in width", "the width of Region [0] exceeds that of Region [1]"
    compared = rf"(?<={size})(?:\s+of)?(?:\s+@\d+@)?(?:\s*'s)?{_VERB}{than}"
    return rf"{_OWN_WORDS[name]}|{amount}\s+(?:in\s+)?{size}|{compared}"


_RELATIONS = {
    name: regex(rf"\b(?:(?P<own>{_pattern(name)})|(?P<other>{_pattern(other)}))\b") for name, other in _OPPOSITE.items()
}
_NEGATED = regex(NEGATION)
_UNDECIDED = regex(r"\b(?:neither|aligned|equal\w*|same|identical)\b")
_CLAUSE_END = regex(rf"{SENTENCE_END.pattern}|[,;]\s+(?:but|while|whereas|and)\b|\bwhile\b|\bwhereas\b")
_PAIR = regex(r"\b(?:between|of|among|comparing)\s+@\d+@\s+(?:and|or)\s+@\d+@\s*,?")
_REFERENCE = regex(r"\s*(?:of|than|to|from)?\s*@(\d+)@")
_HOUR_NUMBER = rf"\b(?:[0-9]{{1,2}}|{'|'.join(NUMBER_WORDS)})"
_CLOCK = r"\s*(?:o\s*'?\s*clock\b|:00\b)"
_HOUR = regex(rf"({_HOUR_NUMBER}){_CLOCK}")
# "between 2 and 3 o'clock" says neither.
_HOURS = regex(rf"{_HOUR_NUMBER}(?:{_CLOCK})?\s*(?:and|to|or|-)\s*{_HOUR_NUMBER}{_CLOCK}")


def bench_answer(category: str, answer: str) -> BenchAnswer:
    """Reads the value off an answer; never raises on any text.

    Args:
      category: one of CATEGORIES.
      answer: free text that calls the question's regions "Region [0]" and "Region [1]", in the question's order.

    Returns:
      bool: whether the relation asked about holds (predicates); int: the region chosen, 0 or 1 (choices), or the hour,
      1 to 12 (direction); float: metres, also of a number without unit; None where the text states no value.

    Raises:
      ValueError: unknown category.
    """
    if category not in CATEGORIES:
        raise ValueError(f"unknown category {category!r}, expected one of {list(CATEGORIES)}")
    text = one_line(answer)
    if is_garbage(text):
        return None
    if category == "direction":
        return _read_hour(text)
    if category in QUANTITATIVE.values():
        return _read_length(text)
    name, form = category.rsplit("_", 1)
    return (_read_choice if form == "choice" else _read_predicate)(name, marked_objects(text))


def _read_predicate(name: str, text: str) -> bool | None:
    # Yes and no outrank what follows: a published wording says "No, [B] is in front of [A]" where A is not behind B.
    said = verdict(text)
    if said is not None:
        return said
    subject, holds = _read_relation(name, text)
    if holds is None or subject not in (None, 0, 1):
        return None
    return holds if subject != 1 else not holds


def _read_choice(name: str, text: str) -> int | None:
    regions = {int(number) for number in re.findall(r"@(\d+)@", text)}
    if _UNDECIDED.search(text):
        return None
    if not regions:
        numbers = [match.group() for match in COUNT.finditer(text)]
        regions = {int(number) for number in numbers if number in ("0", "1")}
        return regions.pop() if len(numbers) == len(regions) == 1 else None
    subject, holds = _read_relation(name, text)
    if subject in (0, 1) and holds is not None:
        return subject if holds else 1 - subject
    return regions.pop() if len(regions) == 1 and regions <= {0, 1} and holds is None else None


def _read_relation(name: str, text: str) -> tuple[int | None, bool | None]:
    """The region that the first statement about a relation speaks of, None if unnamed, and whether it holds of it."""
    for clause in _CLAUSE_END.split(_PAIR.sub(" ", text)):
        if _UNDECIDED.search(clause):
            return None, None
        match = _RELATIONS[name].search(clause)
        if match is None:
            continue
        holds = (match["own"] is not None) != bool(_NEGATED.search(clause, 0, match.end()))
        before = re.findall(r"@(\d+)@", clause[: match.end()])
        if before:
            return int(before[-1]), holds
        # "to the left of Region [1]" names what the subject is compared with.
        reference = _REFERENCE.match(clause, match.end())
        after = re.findall(r"@(\d+)@", clause[reference.end() if reference else match.end() :])
        if after:
            return int(after[0]), holds
        return (1 - int(reference.group(1)) if reference else None), holds
    return None, None


def _read_length(text: str) -> float | None:
    text = without_ranges(REGION.sub(" ", without_denied(in_digits(text))))
    lengths = find_lengths(text)
    if lengths:
        return lengths[-1][0]
    numbers = [match.group(1) for match in BARE_DECIMAL.finditer(text)]
    return decimal(numbers[0]) if len(numbers) == 1 and numbers[0].lower() not in ("one", "none") else None


def _read_hour(text: str) -> int | None:
    text = _HOURS.sub(" ", REGION.sub(" ", without_denied(text)))
    stated, numbers = _HOUR.findall(text), [match.group() for match in COUNT.finditer(text)]
    if not stated and len(numbers) != 1:
        return None
    hour = int(decimal((stated or numbers)[-1]))
    return hour if 1 <= hour <= 12 else None
