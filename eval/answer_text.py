"""Pieces of free-text answers that all readers of answers share: regions, numbers, lengths."""

from __future__ import annotations

import re

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
).split()
NUMBER_WORDS = {word: value for value, word in enumerate(_WORDS)} | {"none": 0}

# Longer runs of digits are a model's stutter, and int() refuses them past a few thousand.
_DIGITS = r"[0-9]{1,9}(?![0-9])"
REGION = re.compile(
    rf"\[?\s*\b(?:region|mask)s?[\s_#:-]*\[?\s*({_DIGITS}|{'|'.join(_WORDS)}\b)\s*\]?"
    rf"|\[\s*({_DIGITS})\s*\]",
    re.IGNORECASE,
)
WORD_ALTERNATIVES = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))
COUNT = re.compile(
    rf"(?<![\w.,])(?:({_DIGITS})(?:\.0+\b)?(?!\.?[0-9])|({WORD_ALTERNATIVES})\b)", re.IGNORECASE
)
_DECIMAL = rf"(?<![\w.])([0-9]{{1,9}}(?:[.,][0-9]{{1,9}})?|\.[0-9]{{1,9}}|{WORD_ALTERNATIVES})(?!\.?[0-9])"
_UNITS = {
    "m": 1.0,
    "meter": 1.0,
    "meters": 1.0,
    "metre": 1.0,
    "metres": 1.0,
    "mtr": 1.0,
    "mtrs": 1.0,
    "cm": 0.01,
    "centimeter": 0.01,
    "centimeters": 0.01,
    "centimetre": 0.01,
    "centimetres": 0.01,
    "mm": 0.001,
    "millimeter": 0.001,
    "millimeters": 0.001,
    "millimetre": 0.001,
    "millimetres": 0.001,
    "ft": 0.3048,
    "foot": 0.3048,
    "feet": 0.3048,
    "inch": 0.0254,
    "inches": 0.0254,
    "yard": 0.9144,
    "yards": 0.9144,
}
# "in" is an inch only where nothing follows it: "they are 3 in front" is none.
_LENGTH = re.compile(
    rf"{_DECIMAL}\s*-?\s*({'|'.join(sorted(_UNITS, key=len, reverse=True))}|in(?=\.?\s*(?:[,;)]|$)))\b",
    re.IGNORECASE,
)
_FEET_AND = re.compile(r"\s*,?\s*(?:and\s+)?", re.IGNORECASE)
BARE_DECIMAL = re.compile(rf"{_DECIMAL}(?![\w])", re.IGNORECASE)
NEGATION = r"\b(?:not|never|no\s+longer|neither|isn'?t|aren'?t|doesn'?t|don'?t|cannot|can'?t)\b"
SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")


def decimal(text: str) -> float:
    word = NUMBER_WORDS.get(text.lower())
    return float(text.replace(",", ".")) if word is None else float(word)


def region_number(match: re.Match) -> int:
    found = match.group(1) or match.group(2)
    return int(found) if found[0] in "0123456789" else NUMBER_WORDS[found.lower()]


def tidy(text: str) -> str:
    return text.replace("\u2019", "'").strip()


def is_garbage(text: str) -> bool:
    """True for texts without a letter or digit, and for loops of one or two words."""
    tokens = re.findall(r"\w+", REGION.sub(lambda match: f" region_{region_number(match)} ", text.lower()))
    if not tokens:
        return True
    for period in (1, 2):
        equal = [a == b for a, b in zip(tokens, tokens[period:])]
        longest = run = 0
        for same in equal:
            run = run + 1 if same else 0
            longest = max(longest, run)
        if longest >= 4 and 2 * longest > len(tokens):
            return True
    return False


def find_lengths(text: str) -> list[tuple[float, float]]:
    """Returns (metres, metres of the unit) of every number with a unit of length, in the text's order.

    Feet with inches behind them ("5 feet 3 inches") are one length, in feet.
    """
    found: list[tuple[float, float]] = []
    end = None
    for match in _LENGTH.finditer(text):
        unit = _UNITS.get(match.group(2).lower(), _UNITS["inch"])
        # Seven digits keep "35 cm" 0.35 in spite of binary fractions.
        metres = round(decimal(match.group(1)) * unit, 7)
        between = None if end is None else _FEET_AND.fullmatch(text, end, match.start())
        if between and found[-1][1] == _UNITS["foot"] and unit == _UNITS["inch"]:
            found[-1] = (round(found[-1][0] + metres, 7), _UNITS["foot"])
        else:
            found.append((metres, unit))
        end = match.end()
    return found
