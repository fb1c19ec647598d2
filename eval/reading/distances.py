"""Which distance a free-text answer states."""

from __future__ import annotations

import re

from eval.reading.lengths import BARE_DECIMAL, decimal, find_lengths, in_digits
from eval.reading.pieces import NEGATION, OF_THINGS, REGION, SENTENCE_END, without_denied

# What a thing at no distance is in: "the leftmost buffer", not "front of the buffer" or "another buffer".
# An area or zone by itself may be any place: "in the area next to the shelf".
_NOT_IN = "the|an?|of|front|line|between|with|to|other|another|different|next|shelf|pallet|transporter"
_BUFFER = (
    r"(?:(?:\s+top|\s+the\s+(?:bounds|boundaries|limits))?\s+of)?(?:\s+(?:the|an?|this|that|its))?"
    rf"(?:\s+(?!(?:{_NOT_IN})\b)[a-z-]+){{0,2}}?\s+"
    r"(?:buffer\b(?!\s+(?:regions|areas|zones))|"
    r"(?:zone|area|region)\b(?!\s+(?:\w+\s+)?(?:of|next|near|between|behind|front|close)\b))"
)
_IS = (
    r"(?:is|are|lies|lying|located|positioned|situated|placed|contained|standing|stands|parked|sit(?:s|ting)|stored|"
    r"rests|resting|remains|stays|found)\s+(?:(?:right|now|already|\w+ly)\s+){0,2}"
)
_INSIDE = re.compile(
    rf"\b(?:(?:inside|within)(?:{_BUFFER}|(?:\s+of)?\s+(?:@|it\b))|inside\s*(?:[.!]|$)|"
    rf"{_IS}(?:in|on)(?:{_BUFFER}|\s+@)|"
    rf"occup(?:y|ies|ying){_BUFFER}|overlap\w*|touch(?:es|ing)?\b|no\s+(?:distance|gap|space)\b)",
    re.IGNORECASE,
)
_DENIES = re.compile(
    rf"{NEGATION}|\b(?:rather\s+than|instead\s+of|opposed\s+to|almost|nearly|outside)\b", re.IGNORECASE
)
_CLAUSE_END = re.compile(r"[,:;]\s+|\bbut\b", re.IGNORECASE)


def distance_readings(question: str, text: str) -> list[float]:
    """The lengths that the text states, the best reading last; else the last sentence's bare numbers, or 0 for "inside"."""
    del question
    text = re.sub(r"\s+", " ", REGION.sub(" @ ", without_denied(in_digits(text))))
    lengths = find_lengths(text)
    if lengths:
        # "15 meters (49 feet)": metres are what the question asks for.
        return [length for length, unit in lengths if unit == 1] or [length for length, _ in lengths]
    for sentence in reversed(SENTENCE_END.split(text)):
        numbers = [
            match.group(1)
            for match in BARE_DECIMAL.finditer(sentence)
            if match.group(1).lower() not in ("one", "none") and not OF_THINGS.match(sentence, match.end())
        ]
        if numbers:
            return [decimal(number) for number in numbers]
        if any(_is_inside(clause) for clause in _CLAUSE_END.split(sentence)):
            return [0.0]
    return []


def _is_inside(clause: str) -> bool:
    inside = _INSIDE.search(clause)
    return inside is not None and not _DENIES.search(clause, 0, inside.start())
