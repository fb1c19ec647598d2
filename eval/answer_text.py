"""Pieces of free-text answers that all readers of answers share: regions, numbers, lengths."""

from __future__ import annotations

import re

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def _number_words() -> dict[str, int]:
    """Zero to ninety-nine, "twenty-one" also as "twenty one" and "twentyone"."""
    words = {word: value for value, word in enumerate(_WORDS)}
    for place, ten in enumerate(_TENS, 2):
        words[ten] = 10 * place
        for unit in range(1, 10):
            words |= {f"{ten}{between}{_WORDS[unit]}": 10 * place + unit for between in ("-", " ", "")}
    return words


NUMBER_WORDS = _number_words() | {"none": 0}


def _alternatives(words: object) -> str:
    """A pattern of any of the words, a longer one before its beginning."""
    return "|".join(sorted(words, key=len, reverse=True))


# Longer runs of digits are a model's stutter, and int() refuses them past a few thousand.
_DIGITS = r"[0-9]{1,9}(?![0-9])"
WORD_ALTERNATIVES = _alternatives(NUMBER_WORDS)
_REGION_WORDS = _alternatives(NUMBER_WORDS.keys() - {"none"})
REGION = re.compile(
    rf"\[?\s*\b(?:region|mask)s?[\s_#:-]*\[?\s*({_DIGITS}|(?:{_REGION_WORDS})\b)\s*\]?"
    rf"|\[\s*({_DIGITS})\s*\]",
    re.IGNORECASE,
)
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
    "km": 1000.0,
    "kilometer": 1000.0,
    "kilometers": 1000.0,
    "kilometre": 1000.0,
    "kilometres": 1000.0,
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
_UNIT = rf"(?:{_alternatives(_UNITS)})\b"
# "in" is an inch only where nothing follows it: "they are 3 in front" is none.
_LENGTH = re.compile(rf"{_DECIMAL}\s*-?\s*({_alternatives(_UNITS)}|in(?=\.?\s*(?:[,;)]|$)))\b", re.IGNORECASE)
# The second part of a length in two units: "5 feet 3 inches", "3 meters and 50 centimeters".
_COMPOUND = {_UNITS["foot"]: _UNITS["inch"], _UNITS["m"]: _UNITS["cm"]}
_LENGTH_AND = re.compile(r"\s*,?\s*(?:and\s+)?", re.IGNORECASE)
_HALF = re.compile(rf"\bhalf\s+an?\s+(?={_UNIT})", re.IGNORECASE)
_AND_HALF = re.compile(rf"(?<![\w.,])({_DIGITS}|(?:{WORD_ALTERNATIVES})\b)\s+and\s+a\s+half\b", re.IGNORECASE)
_POINT = re.compile(
    rf"\b({_alternatives(_WORDS)}|{_alternatives(_TENS)})\s+point\s+((?:(?:{'|'.join(_WORDS[:10])})\b\s*)+)",
    re.IGNORECASE,
)
_ONE_UNIT = re.compile(rf"\ban?\s+(?={_UNIT})", re.IGNORECASE)
BARE_DECIMAL = re.compile(rf"{_DECIMAL}(?![\w])", re.IGNORECASE)
NEGATION = r"\b(?:not|never|no\s+longer|neither|isn'?t|aren'?t|doesn'?t|don'?t|cannot|can'?t)\b"
SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
# "not 3 but 4 meters", "[Region 3], not [Region 2]", "4 rather than 3 meters": the value that is denied.
_DENIED = re.compile(
    rf"\b(?:not|rather\s+than|instead\s+of|(?:as\s+)?opposed\s+to)\s+"
    rf"(?:(?:the|an?|in|at|exactly|only|pallets?|buffer|zone|area|region(?=\s*\[))\s+){{0,3}}"
    rf"(?:{REGION.pattern}|(?:{_DIGITS}(?:[.,][0-9]+)?|(?:{_REGION_WORDS})\b)(?:\s*{_UNIT})?)(?:\s*,?\s*but\b)?",
    re.IGNORECASE,
)


def decimal(text: str) -> float:
    word = NUMBER_WORDS.get(text.lower())
    return float(text.replace(",", ".")) if word is None else float(word)


def region_number(match: re.Match) -> int:
    found = match.group(1) or match.group(2)
    return int(found) if found[0] in "0123456789" else NUMBER_WORDS[found.lower()]


def one_line(answer: str) -> str:
    """An answer's lines joined, with plain apostrophes."""
    return " ".join(part.strip() for part in answer.replace("\u2019", "'").splitlines() if part.strip())


def without_denied(text: str) -> str:
    """The text without the numbers, lengths and regions it says are not the answer."""
    return _DENIED.sub(" ", text)


def in_digits(text: str) -> str:
    """The text with fractions that stand in words in digits: "two and a half meters", "three point five"."""
    text = _HALF.sub("0.5 ", text)
    text = _AND_HALF.sub(lambda match: f"{decimal(match.group(1)) + 0.5:g}", text)
    return _ONE_UNIT.sub("1 ", _POINT.sub(_point_digits, text))


def _point_digits(match: re.Match) -> str:
    digits = "".join(str(NUMBER_WORDS[word]) for word in match.group(2).lower().split())
    return f"{NUMBER_WORDS[match.group(1).lower()]}.{digits} "


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

    Whole feet with inches behind them ("5 feet 3 inches") are one length, in feet; so are metres with
    centimetres that make no whole metre.
    """
    found: list[tuple[float, float]] = []
    end, whole = None, False
    for match in _LENGTH.finditer(text):
        unit = _UNITS.get(match.group(2).lower(), _UNITS["inch"])
        number = decimal(match.group(1))
        # Seven digits keep "35 cm" 0.35 in spite of binary fractions.
        metres = round(number * unit, 7)
        between = None if end is None else _LENGTH_AND.fullmatch(text, end, match.start())
        if between and whole and unit == _COMPOUND.get(found[-1][1]) and metres < found[-1][1]:
            found[-1] = (round(found[-1][0] + metres, 7), found[-1][1])
        else:
            found.append((metres, unit))
        end, whole = match.end(), number == int(number)
    return found
