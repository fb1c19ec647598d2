"""From free text to the warehouse benchmark's normalised answers, by rules.

The published data states an answer in one or more sentences ("The buffer region [Region 2] is the
leftmost buffer region. ... Hence, there are two pallets in the buffer area [Region 2].") and gives
its value beside it (2). ``normalized_answer`` reads the value off such a text, also off a model's
imitation of it; ``parse_normalized`` reads values that are normalised already, as the official
scorer does.
"""

from __future__ import annotations

import re

from eval.answer_text import (
    BARE_DECIMAL,
    COUNT,
    NEGATION,
    NUMBER_WORDS,
    REGION,
    SENTENCE_END,
    WORD_ALTERNATIVES,
    decimal,
    find_lengths,
    in_digits,
    is_garbage,
    one_line,
    region_number,
    without_denied,
)
from eval.region_answers import region_readings
from eval.side_answers import side_readings

Answer = str | int | float | None

_INSIDE = re.compile(
    r"\b(?:inside|within|overlap\w*|contained|(?:located|positioned|situated|placed|standing|"
    r"stands|parked|sits?|stored|resting|found|is|are|lies)\s+(?:right\s+)?(?:in|on)\b|"
    r"touch(?:es|ing)?|no\s+(?:distance|gap|space)\b)",
    re.IGNORECASE,
)
_NEGATED = re.compile(NEGATION, re.IGNORECASE)
_STATED = re.compile(r"\b(?:final\s+)?answer\b\s*(?:is\b)?\s*[:=]?\s*(?=\S)", re.IGNORECASE)


def question_category(question: str) -> str | None:
    """Returns the benchmark category a question belongs to by its wording, None if none fits.

    For questions without one: the test split's, and those that people type.
    """
    text = question.lower()
    if re.search(r"\bhow many\b|\bcount\b|\b(?:total )?number of\b", text):
        return "count"
    if re.search(r"\bwhich\b", text):
        return "mcq"
    if re.search(r"\bdistance\b|\bdistant\b|\bhow (?:far|close|near)\b|\bmeasure", text):
        return "distance"
    if re.search(r"\b(?:left|right)\b", text):
        return "left_right"
    return None


def normalized_answer(category: str | None, question: str, answer: str) -> Answer:
    """Reads the normalised value off a free-text answer; never raises on any text.

    Args:
      category: "left_right", "count", "mcq" or "distance"; empty or None takes the category from
        the question's wording.
      question: the question, with a "<mask>" per region; decides what "yes" means and which
        regions an mcq question can mean.
      answer: the text to read.

    Returns:
      "left" or "right": side of the question's first object; int: a count, or a region's number
      (mcq); float: a distance in metres, 0.0 for "inside the buffer"; None where the text states
      no value or is a loop of the same few words.

    Raises:
      ValueError: unknown category.
    """
    found = readings(category, question, answer)
    return found[-1] if found else None


def readings(category: str | None, question: str, answer: str) -> list[str | int | float]:
    """All values that a free-text answer can be read as, the best one last; see ``normalized_answer``.

    Different values are an ambiguous answer, none an unreadable one.
    """
    category = category or question_category(question)
    if category is None:
        return []
    if category not in _READERS:
        raise ValueError(f"unknown category {category!r}, expected one of {list(_READERS)}")
    text = one_line(answer)
    if is_garbage(text):
        return []
    read = _READERS[category]
    # "Answer: 4" after an explanation outranks the explanation.
    for match in reversed(list(_STATED.finditer(text))):
        values = read(question, text[match.end() :])
        if values:
            return values
    return read(question, text)


def parse_normalized(category: str, value: object) -> Answer:
    """Reads a value that is normalised already, as the official scorer does.

    "LEFT", "left-hand", "l"; 9, "9", "9.0", "nine", "Region 9", "[Region 9]" (the first number
    counts, "none" is zero); 3.5 and "3.5". Anything else is None.

    Args:
      category: "left_right", "count", "mcq" or "distance".
      value: a JSON value.

    Returns:
      "left" or "right", a number (float unless whole and not a distance), or None.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = str(value).strip().lower()
    if category == "left_right":
        match = re.match(r"(?:l|r|left|right)(?![a-z])", text)
        return {"l": "left", "r": "right"}[match.group()[0]] if match else None
    number = re.search(rf"(?<![0-9.])[0-9]{{1,9}}(?:\.[0-9]+)?(?![0-9])|\b(?:{WORD_ALTERNATIVES})\b", text)
    if isinstance(value, str) and number is not None:
        found = number.group()
        parsed = float(NUMBER_WORDS[found]) if found in NUMBER_WORDS else float(found)
        negative = number.start() > 0 and text[number.start() - 1] == "-" and category != "mcq"
        parsed = -parsed if negative else parsed
    elif isinstance(value, str):
        return None
    else:
        try:
            parsed = float(value)
        except OverflowError:
            return None
    if not abs(parsed) < 1e9:  # not a number, or none that means anything
        return None
    return int(parsed) if category != "distance" and parsed == int(parsed) else parsed


_OBJECT = r"(?:pallets?|box(?:es)?|objects?|items?|transporters?|shel(?:f|ves))\b"
_THINGS = rf"(?:\w+\s+){{0,2}}?{_OBJECT}"
_COUNTED = re.compile(rf"{COUNT.pattern}\s+{_THINGS}", re.IGNORECASE)
_NO_THINGS = re.compile(
    rf"\b(?:no|without|zero|(?:devoid|free)\s+of)\s+(?:any\s+)?{_THINGS}|"
    rf"{NEGATION}\s+(?:\w+\s+){{0,2}}?(?:any\b|an?\s+{_THINGS})|"
    rf"\bis\s+(?:currently\s+)?empty\b|\bnothing\b",
    re.IGNORECASE,
)
_ONE_THING = re.compile(
    rf"\bsingle\s+{_OBJECT}|"
    rf"\b(?:is|holds?|has|contains?|stores?|holding|containing|storing)\s+(?:just\s+|only\s+)?an?\s+{_OBJECT}(?!.*\band\s+an)",
    re.IGNORECASE,
)
# "of the ten pallets": what was counted among, not the count.
_AMONG = re.compile(
    rf"\b(?:out\s+of\s+|(?:of|among|from|given)\s+(?=all\b|the\b|these\b|those\b))"
    rf"(?:(?:all|the|these|those)\s+)*{COUNT.pattern}\s+{_THINGS}",
    re.IGNORECASE,
)
_LISTED = re.compile(r"\b(pallets?|objects?|boxes)\s*((?:(?:,|and|\s)*@[0-9]+@)+)", re.IGNORECASE)


def _count_readings(question: str, text: str) -> list[int]:
    """What the text's sentences count, the best reading last; also what they list, if that is another number."""
    del question
    marked = REGION.sub(lambda match: f" @{region_number(match)}@ ", without_denied(text))
    sentences = [_AMONG.sub(" ", re.sub(r"@[0-9]+@", " ", part)) for part in SENTENCE_END.split(marked)]
    # A text cut off before its conclusion may have listed the pallets already.
    lists = list(_LISTED.finditer(marked))
    listed = [len(set(re.findall(r"[0-9]+", lists[-1].group(2))))] if lists else []
    found: list[int] = []
    last = None
    for sentence in sentences:
        things = _counted_things(sentence)
        if things is not None:
            found.append(things)
            last = things
            continue
        # "the closest one", "this one": a pronoun, not a number.
        numbers = [
            match
            for match in COUNT.finditer(sentence)
            if not (match.group().lower() == "one" and match.start() and len(sentences) > 1)
        ]
        if numbers:
            last = _count(numbers[-1])
    if last is None:
        return listed
    plural = lists and lists[-1].group(1).lower().endswith("s")
    return [*(listed if plural else []), *found, last]


def _counted_things(sentence: str) -> int | None:
    if _NO_THINGS.search(sentence):
        return 0
    things = _COUNTED.search(sentence)
    if things is not None:
        return _count(things)
    return 1 if _ONE_THING.search(sentence) else None


def _count(match: re.Match) -> int:
    return int(match.group(1)) if match.group(1) else NUMBER_WORDS[match.group(2).lower()]


def _distance_readings(question: str, text: str) -> list[float]:
    """The lengths that the text states, the best reading last; else the last sentence's bare numbers, or 0 for "inside"."""
    del question
    text = in_digits(REGION.sub(" ", without_denied(text)))
    lengths = find_lengths(text)
    if lengths:
        # "15 meters (49 feet)": metres are what the question asks for.
        return [length for length, unit in lengths if unit == 1] or [length for length, _ in lengths]
    for sentence in reversed(SENTENCE_END.split(text)):
        numbers = [
            match.group(1)
            for match in BARE_DECIMAL.finditer(sentence)
            if match.group(1).lower() not in ("one", "none")
        ]
        if numbers:
            return [decimal(number) for number in numbers]
        if _INSIDE.search(sentence) and not _NEGATED.search(sentence):
            return [0.0]
    return []


_READERS = {
    "left_right": side_readings,
    "count": _count_readings,
    "mcq": region_readings,
    "distance": _distance_readings,
}
