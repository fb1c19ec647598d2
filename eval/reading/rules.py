"""From free text to the warehouse benchmark's normalised answers, by rules.

The published data states an answer in one or more sentences ("The buffer region [Region 2] is the leftmost buffer
region. ... Hence, there are two pallets in the buffer area [Region 2].") and gives its value beside it (2).
`normalized_answer` reads the value off such a text, also off a model's imitation of it; `parse_normalized` reads values
that are normalised already.
"""

import re

from eval.reading.phrases import NUMBER_WORDS, SHARED, TABLE, alternatives, is_garbage, one_line, phrases, with_regions
from eval.reading.statements import UNITS, count_readings, distance_readings, region_readings, side_readings

Answer = str | int | float | None
_CATEGORIES = phrases("categories", units=alternatives(UNITS))
_READERS = {"left_right": side_readings, "count": count_readings, "mcq": region_readings, "distance": distance_readings}
_VALUE = re.compile(rf"(?<![\d.])[0-9]{{1,9}}(?:\.[0-9]+)?(?!\d)|\b(?:{alternatives(NUMBER_WORDS)})\b")


def question_category(question: str) -> str | None:
    """Returns the benchmark category a question belongs to by its wording, None if none fits.

    For questions without one: the test split's, and those that people type.
    """
    return next((name for name in TABLE["categories"] if getattr(_CATEGORIES, name).search(question)), None)


def normalized_answer(category: str | None, question: str, answer: str) -> Answer:
    """Reads the normalised value off a free-text answer; never raises on any text.

    Args:
      category: "left_right", "count", "mcq" or "distance"; empty or None takes it from the question's wording.
      question: with a `<mask>` per region; decides what "yes" means, what is counted and which regions can be chosen.
      answer: the text to read.

    Returns:
      "left" or "right": side of the question's first object; int: a count, or a region's number (mcq); float: a
      distance in metres, 0.0 for "inside the buffer"; None where the text states no value or is a loop of the same few
      words.

    Raises:
      ValueError: unknown category.
    """
    found = readings(category, question, answer)
    return found[-1] if found else None


def readings(category: str | None, question: str, answer: str) -> list[str | int | float]:
    """All values that a free-text answer can be read as, the best one last; see `normalized_answer`.

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
    text, read = with_regions(text), _READERS[category]
    # "Answer: 4" after an explanation outranks the explanation.
    for match in reversed(list(SHARED.stated.finditer(text))):
        values = read(question, text[match.end() :])
        if values:
            return values
    return read(question, text)


def parse_normalized(category: str, value: object) -> Answer:
    """Reads a value that is normalised already, in any of the ways people write it.

    "LEFT", "left-hand", "l"; 9, "9", "9.0", "nine", "Region 9", "[Region 9]" (the first number counts, "none" is zero);
    3.5 and "3.5". Returns "left" or "right", a number from 0 on (float unless whole and not a distance), or None for any
    other JSON value.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = str(value).strip().lower()
    if category == "left_right":
        match = re.match(r"(?:l|r|left|right)(?![a-z])", text)
        return {"l": "left", "r": "right"}[match.group()[0]] if match else None
    if isinstance(value, str):
        try:
            value = float(text if text.isascii() and category != "mcq" else "")
        except ValueError:
            number = _VALUE.search(text)
            if number is None:
                return None
            found = number.group()
            negative = number.start() > 0 and text[number.start() - 1] in "-\u2212" and category != "mcq"
            value = float(NUMBER_WORDS.get(found, found)) * (-1 if negative else 1)
    if not 0 <= value < 1e9:  # not a number, or none that means anything
        return None
    return int(value) if category != "distance" and value == int(value) else float(value)
