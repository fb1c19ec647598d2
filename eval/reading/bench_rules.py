"""From free text to the answers of SpatialRGPT-Bench, by rules.

The benchmark asks four kinds of questions, told by their category: a predicate ("Is Region [0] above Region [1]?",
answered with yes or no or with what is the case), a choice between two regions, a length ("Region [0] is 26.25
centimeters in width."), and a clock direction. Its original evaluation has GPT-4 compare and convert; here rules do, so
that a score needs no server and is the same every time.
"""

import re

from eval.reading.phrases import SHARED, TABLE, is_garbage, marked_objects, one_line, phrases, verdict, without_denied
from eval.reading.statements import LENGTHS, decimal, find_lengths, in_digits, without_ranges

BenchAnswer = bool | int | float | None

# The columns of the paper's qualitative table; the two names of each are opposite.
_COLUMNS = ("below/above", "left/right", "big/small", "tall/short", "wide/thin", "behind/front")
QUALITATIVE = {column: tuple(column.split("/")) for column in _COLUMNS}
# The columns of its quantitative table.
QUANTITATIVE: dict[str, str] = TABLE["quantitative"]
_CHOICES = ("above", "below", "left", "right", "tall", "short")
CATEGORIES = (
    *(f"{name}_predicate" for names in QUALITATIVE.values() for name in names),
    *(f"{name}_choice" for name in _CHOICES),
    *QUANTITATIVE.values(),
)

_WORDED = phrases("relations").texts
_RELATIONS = {
    name: re.compile(rf"\b(?:(?P<own>{_WORDED[name]})|(?P<other>{_WORDED[other]}))\b", re.IGNORECASE)
    for names in QUALITATIVE.values()
    for name, other in (names, names[::-1])
}
_BENCH = phrases("bench")


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
    # "Answer: yes" after an explanation outranks the explanation.
    stated = [text[match.end() :] for match in SHARED.stated.finditer(text)]
    values = (_read(category, part) for part in (*reversed(stated), text))
    return next((value for value in values if value is not None), None)


def _read(category: str, text: str) -> BenchAnswer:
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
    if _BENCH.undecided.search(text):
        return None
    if not regions:
        numbers = [match.group() for match in SHARED.count.finditer(text)]
        regions = {int(number) for number in numbers if number in ("0", "1")}
        return regions.pop() if len(numbers) == len(regions) == 1 else None
    subject, holds = _read_relation(name, text)
    if subject in (0, 1) and holds is not None:
        return subject if holds else 1 - subject
    return regions.pop() if len(regions) == 1 and regions <= {0, 1} and holds is None else None


def _read_relation(name: str, text: str) -> tuple[int | None, bool | None]:
    """The region that the first statement about a relation speaks of, None if unnamed, and whether it holds of it."""
    for clause in _BENCH.clause_end.split(_BENCH.pair.sub(" ", text)):
        if _BENCH.undecided.search(clause):
            return None, None
        match = _RELATIONS[name].search(clause)
        if match is None:
            continue
        holds = (match["own"] is not None) != bool(SHARED.negation.search(clause, 0, match.end()))
        before = re.findall(r"@(\d+)@", clause[: match.end()])
        if before:
            return int(before[-1]), holds
        # "to the left of Region [1]" names what the subject is compared with.
        reference = _BENCH.reference.match(clause, match.end())
        after = re.findall(r"@(\d+)@", clause[reference.end() if reference else match.end() :])
        if after:
            return int(after[0]), holds
        return (1 - int(reference.group(1)) if reference else None), holds
    return None, None


def _read_length(text: str) -> float | None:
    text = without_ranges(SHARED.region.sub(" ", without_denied(in_digits(text))))
    lengths = find_lengths(text)
    if lengths:
        return lengths[-1][0]
    numbers = [match.group(1) for match in LENGTHS.bare_decimal.finditer(text)]
    return decimal(numbers[0]) if len(numbers) == 1 and numbers[0].lower() not in ("one", "none") else None


def _read_hour(text: str) -> int | None:
    text = _BENCH.hours.sub(" ", SHARED.region.sub(" ", without_denied(text)))
    stated, numbers = _BENCH.hour.findall(text), [match.group() for match in SHARED.count.finditer(text)]
    if not stated and len(numbers) != 1:
        return None
    hour = int(decimal((stated or numbers)[-1]))
    return hour if 1 <= hour <= 12 else None
