"""Lengths in free-text answers: numbers with units, in digits or words, in metres."""

from __future__ import annotations

import re

from eval.reading.pieces import (
    NEGATION,
    NUMBER_WORDS,
    OF_THINGS,
    REGION,
    SENTENCE_END,
    WORD_ALTERNATIVES,
    alternatives,
    regex,
    without_denied,
)

_METRES = {
    1.0: "m meter meters metre metres mtr mtrs",
    1000.0: "km kilometer kilometers kilometre kilometres",
    0.01: "cm centimeter centimeters centimetre centimetres",
    0.001: "mm millimeter millimeters millimetre millimetres",
    0.3048: "ft foot feet",
    0.0254: "inch inches",
    0.9144: "yard yards",
}
_UNITS = {word: metres for metres, words in _METRES.items() for word in words.split()}
_INCH, _FOOT = _UNITS["inch"], _UNITS["foot"]
_UNIT = rf"(?:{alternatives(_UNITS)})\b"
_SMALL_UNIT = rf"(?:{alternatives(word for word, metres in _UNITS.items() if metres < 0.1)})\b"
_NUMBER = rf"(?<![\w./])(?:[0-9]{{1,9}}(?:[.,][0-9]{{1,9}})?|\.[0-9]{{1,9}}|{WORD_ALTERNATIVES})(?!\.?[0-9]|/)"
BARE_DECIMAL = regex(rf"({_NUMBER})(?![\w])")
# "in" is an inch only where nothing follows it or what it measures: "they are 3 in front" is none.
_LENGTH = regex(
    rf"({_NUMBER})\s*-?\s*({alternatives(_UNITS)}|"
    rf"in(?=\.?\s*(?:[,;)]|$)|\.?\s+(?:in|tall|high|wide|long|deep|thick|apart|away|from|above|below)\b))\b"
)
# The second part of a length in two units: "5 feet 3 inches", "3 meters and 50 centimeters".
_COMPOUND = {_FOOT: _INCH, _UNITS["m"]: _UNITS["cm"]}
_LENGTH_AND = regex(r"\s*,?\s*(?:and\s+)?")
_RANGE = regex(
    rf"(?P<between>\b(?:between|from)\s+)?(?P<low>{_NUMBER})(?:\s*-?\s*(?P<own>{_UNIT}))?\s*"
    rf"(?(between)(?:and|to)|(?:to|or|[-\u2013](?=\s*[0-9])))\s*(?P<high>{_NUMBER})\s*-?\s*(?P<unit>{_UNIT})"
)
_TOLERANCE = regex(rf"(?:\u00b1|\+\s*/?\s*-|\bplus\s+or\s+minus\b|\bgive\s+or\s+take\b)\s*{_NUMBER}")
# A comma is a decimal one ("7,27 meters", "2,500 m"), as nothing here is thousands of metres away. It is not before
# three digits with a point, another such group or a small unit behind them: "1,204.5", "1,200 mm".
_THOUSANDS = regex(
    rf"(?<![\w.,])[1-9][0-9]{{0,2}}(?:(?:,[0-9]{{3}}){{2,}}(?![0-9])|,[0-9]{{3}}(?=\.[0-9]|\s*-?\s*{_SMALL_UNIT}))"
)
_QUOTED = re.compile(r"(?<![\w.])([\"'])([^\"']*)\1(?!\w)")
_INCH_MARK = re.compile(r"(?<=[0-9])\s*(?:\"|'')")
_FOOT_MARK = regex(r"(?<=[0-9])\s*'(?!\w*[a-z])")
_HUNDRED = regex(
    rf"\b(an?|[1-9]|{'|'.join(list(NUMBER_WORDS)[1:10])})\s+hundred\b(?:\s+(?:and\s+)?({WORD_ALTERNATIVES})\b)?"
)
_POINT = regex(rf"\b({WORD_ALTERNATIVES})\s+point\s+((?:(?:{'|'.join(list(NUMBER_WORDS)[:10])})\b\s*)+)")
_PARTS = {"half": 1 / 2, "third": 1 / 3, "quarter": 1 / 4}
_PART = r"(?:(an?|one|two|three)\s+)?(half|third|quarter)s?\b"
_AND_PART = regex(rf"({_NUMBER})\s+and\s+{_PART}")
_UNIT_AND_PART = regex(rf"({_NUMBER})\s*({_UNIT})\s+and\s+{_PART}(?!\s*{_UNIT})")
_PART_OF_ONE = regex(rf"\b{_PART}[\s-]+(?:(?:of\s+)?(?:an?|one)\s+)?(?={_UNIT})")
_ONE_UNIT = regex(rf"\ban?\s+(?={_UNIT})")
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
_INSIDE = regex(
    rf"\b(?:(?:inside|within)(?:{_BUFFER}|(?:\s+of)?\s+(?:@|it\b))|inside\s*(?:[.!]|$)|"
    rf"{_IS}(?:in|on)(?:{_BUFFER}|\s+@)|"
    rf"occup(?:y|ies|ying){_BUFFER}|overlap\w*|touch(?:es|ing)?\b|no\s+(?:distance|gap|space)\b)"
)
_DENIES = regex(rf"{NEGATION}|\b(?:rather\s+than|instead\s+of|opposed\s+to|almost|nearly|outside)\b")
_CLAUSE_END = regex(r"[,:;]\s+|\bbut\b")


def decimal(text: str) -> float:
    word = NUMBER_WORDS.get(text.lower())
    return float(text.replace(",", ".")) if word is None else float(word)


def in_digits(text: str) -> str:
    """The text with its lengths in digits and names of units: "two and a half meters", "1,200 mm", 5'6"."""
    text = _QUOTED.sub(r"\2", text)
    text = _FOOT_MARK.sub(" feet ", _INCH_MARK.sub(" inches ", text))
    text = _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)
    text = re.sub(r"(?<=[0-9])\s+(?=\.[0-9])", "", _TOLERANCE.sub(" ", text))
    text = _POINT.sub(_point_digits, _HUNDRED.sub(_hundreds, text))
    text = _AND_PART.sub(lambda m: f"{decimal(m[1]) + _part(m[2], m[3]):g}", text)
    text = _PART_OF_ONE.sub(lambda m: f"{_part(m[1], m[2]):g} ", text)
    text = _ONE_UNIT.sub("1 ", text)
    return _UNIT_AND_PART.sub(lambda m: f"{decimal(m[1]) + _part(m[3], m[4]):g} {m[2]}", text)


def _part(how_many: str | None, name: str) -> float:
    return NUMBER_WORDS.get((how_many or "a").lower(), 1) * _PARTS[name.lower()]


def _hundreds(match: re.Match) -> str:
    hundreds = 1.0 if match.group(1).lower() in ("a", "an") else decimal(match.group(1))
    return f"{100 * hundreds + decimal(match.group(2) or '0'):g} "


def _point_digits(match: re.Match) -> str:
    digits = "".join(str(NUMBER_WORDS[word]) for word in match.group(2).lower().split())
    return f"{NUMBER_WORDS[match.group(1).lower()]}.{digits} "


def find_lengths(text: str) -> list[tuple[float, float]]:
    """Returns (metres, metres of the unit) of every number with a unit of length, in the text's order.

    Whole feet with inches behind them ("5 feet 3 inches") are one length, in feet; so are metres with centimetres that
    make no whole metre. Both ends of a range ("3 to 4 meters") are lengths.
    """
    text = _RANGE.sub(lambda m: f"{m['low']} {m['own'] or m['unit']}, {m['high']} {m['unit']}", text)
    found: list[tuple[float, float]] = []
    end, whole = None, False
    for match in _LENGTH.finditer(text):
        unit = _UNITS.get(match.group(2).lower(), _INCH)
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


def without_ranges(text: str) -> str:
    """The text without lengths of which only the ends are given: "3 to 4 meters", not "1.5 meters or 4.9 feet"."""

    def kept(match: re.Match) -> str:
        own = match["own"] or match["unit"]
        return " " if _UNITS[own.lower()] == _UNITS[match["unit"].lower()] else match.group()

    return _RANGE.sub(kept, text)


def distance_readings(question: str, text: str) -> list[float]:
    """The lengths that the text states, the best last; else the last sentence's bare numbers, or 0 for "inside"."""
    del question
    text = re.sub(r"\s+", " ", REGION.sub(" @ ", without_denied(in_digits(text))))
    lengths = find_lengths(text)
    if lengths:
        # "15 meters (49 feet)": metres are what the question asks for.
        return [length for length, unit in lengths if unit == 1] or [length for length, _ in lengths]
    for sentence in reversed(SENTENCE_END.split(text)):
        bare = [match for match in BARE_DECIMAL.finditer(sentence) if match[1].lower() not in ("one", "none")]
        numbers = [decimal(match[1]) for match in bare if not OF_THINGS.match(sentence, match.end())]
        if numbers:
            return numbers
        if any(_is_inside(clause) for clause in _CLAUSE_END.split(sentence)):
            return [0.0]
    return []


def _is_inside(clause: str) -> bool:
    inside = _INSIDE.search(clause)
    return inside is not None and not _DENIES.search(clause, 0, inside.start())
