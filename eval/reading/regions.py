"""Which region a free-text answer to an mcq question chooses."""

from __future__ import annotations

import re

from eval.reading.pieces import (
    COUNT,
    KIND,
    NEGATION,
    OF_THINGS,
    REGION,
    SENTENCE_END,
    regex,
    region_number,
    whole,
    without_denied,
    without_pronouns,
)

_CHOSEN = regex(
    r"\b(?:closest|nearest|shortest|best|optimal|ideal|most|easiest|suitable|logical|leftmost|rightmost|middle|extreme|"
    r"left|right|choose|chosen|choice|select(?:ed)?|should|pick(?:ed)?|recommend(?:ed)?|candidate)\b"
)
_NOT_CHOSEN = regex(
    rf"(?:{NEGATION}\s+(?:[\w-]+\s+){{0,3}}|\b(?:second|third|fourth|next|least|less)[\s-]+(?:most\s+)?)$"
)
_CLAUSE_END = regex(
    r"[,;:]\s|\b(?:so|but|while|whereas|although|though|because|since)\b|"
    r"\band\b(?=\s+(?:the|it|pallet|buffer|region|\[))"
)
_MEASURED_FROM = regex(r"\b(?:closest|nearest|closer|nearer|next|distance)\s+(?:to|from)\s+(?:the\s+)?(?:\w+\s+)?$")
# What the choice is compared with: "than the pallet [Region 5]", "than [Region 1], [Region 2] and [Region 4]".
_THAN = regex(
    rf"\b(?:than|over)\s+(?:\w+\s+){{0,3}}?{REGION.pattern}"
    rf"(?:(?:\s*,\s*{REGION.pattern})*\s*,?\s*(?:and|or)\s+(?:\w+\s+){{0,2}}?{REGION.pattern})?"
)
_LABEL = regex(rf"{KIND.pattern}\s*(?:(?:at|in|with)\s+)?$")
_GOES_ON = regex(r"[\s,]*(?:and|or)?\s*")
_ASKED = regex(rf"\bwh(?:ich|at)\s+(?:one\s+)?(?:(?:of|among)\s+)?(?:(?:the|these)\s+)?(?:available\s+)?{KIND.pattern}")
_UNNAMED_REFERENCE = regex(r"\b(?:to|for)\s+$")


def region_readings(question: str, text: str) -> list[int]:
    """The regions that the text's sentences choose, the best reading last.

    Clauses with a word of choosing ("closest", "best") outrank those without; a text that names none may give a bare
    number. A region that the question names as something else, such as the transporter, is none to choose.
    """
    text = without_denied(text)
    asked, excluded = _asked(question)
    sentences = SENTENCE_END.split(_THAN.sub(" ", text))
    # A model may call a pallet a transporter: where nothing else is left, words before regions do not count.
    for trusted in (asked, None):
        choices = [_choices(sentence, excluded, trusted) for sentence in sentences]
        chosen = [number for found, _ in choices for number in found]
        named = [number for _, number in choices if number is not None]
        if chosen or named:
            return chosen or named
    rest = without_pronouns(REGION.sub(" ", text))
    if not re.search(r"\w", rest):
        return [region_number(match) for match in REGION.finditer(text)]
    # "The two pallets" are none of the pallets asked about.
    numbers = [m for m in COUNT.finditer(rest) if not (asked and OF_THINGS.match(rest, m.end()))]
    return [whole(match.group()) for match in numbers if match.group().lower() != "none"]


def _choices(sentence: str, excluded: frozenset[int], asked: str | None) -> tuple[list[int], int | None]:
    """The regions that a sentence's clauses choose, and the first it names if it has no word of choosing."""
    found = _candidates(sentence, excluded, asked)
    if not found:
        return [], None
    words = list(_CHOSEN.finditer(sentence))
    keywords = [match for match in words if not _NOT_CHOSEN.search(sentence[: match.start()])]
    if not keywords:
        return [], None if words else found[0][1]
    chosen, begin = [], 0
    for end in [*(match.start() for match in _CLAUSE_END.finditer(sentence)), len(sentence)]:
        keyword = next((match for match in keywords if begin <= match.start() < end), None)
        here = [item for item in found if begin <= item[0] < end]
        if keyword is not None and here:
            chosen.append(_nearest(here, keyword.start()))
        begin = end
    # "Since [Region 2] is closer, it is the best choice."
    return chosen or [_nearest(found, keywords[0].start())], None


def _nearest(found: list[tuple[int, int]], place: int) -> int:
    """The region named last before a place, else the first one after it."""
    before = [number for position, number in found if position < place]
    return before[-1] if before else found[0][1]


def _candidates(sentence: str, excluded: frozenset[int], asked: str | None) -> list[tuple[int, int]]:
    """(position, number) of a sentence's regions, but those it measures from or calls another kind than asked."""
    found, measured, previous, kind = [], [], 0, None
    for match in REGION.finditer(sentence):
        label = _LABEL.search(sentence, previous, match.start())
        if label or not _GOES_ON.fullmatch(sentence, previous, match.start()):
            kind = label.lastgroup if label else None
        measured_from = _MEASURED_FROM.search(sentence, previous, match.start())
        previous = match.end()
        number = region_number(match)
        if number not in excluded and (asked is None or kind in (None, "object", asked)):
            (measured if measured_from else found).append((match.start(), number))
    return found or measured


def _asked(question: str) -> tuple[str | None, frozenset[int]]:
    """The kind of things that a question chooses from, None if unnamed, and its regions of other kinds."""
    kinds: list[str | None] = []
    for before in question.split("<mask>")[:-1]:
        named = [match.lastgroup for match in KIND.finditer(before)]
        if _UNNAMED_REFERENCE.search(before):
            kinds.append("reference")
        elif named or not kinds or re.search(r"\w", before):
            kinds.append(named[-1] if named else None)
        else:
            kinds.append(kinds[-1])
    match = _ASKED.search(question)
    asked = match.lastgroup if match and match.lastgroup != "object" else kinds[0] if kinds else None
    return asked, frozenset(i for i, kind in enumerate(kinds) if kind not in (None, "object", asked))
