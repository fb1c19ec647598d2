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
    is_garbage,
    region_number,
    tidy,
)

Answer = str | int | float | None

_INSIDE = re.compile(
    r"\b(?:inside|within|overlap\w*|contained|(?:located|positioned|situated|placed|standing|"
    r"stands|parked|sits?|stored|resting|is|are|lies)\s+(?:right\s+)?(?:in|on)\b)",
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
    category = category or question_category(question)
    if category is None:
        return None
    if category not in _READERS:
        raise ValueError(f"unknown category {category!r}, expected one of {list(_READERS)}")
    text = " ".join(tidy(part) for part in answer.splitlines() if part.strip())
    if is_garbage(text):
        return None
    read = _READERS[category]
    # "Answer: 4" after an explanation outranks the explanation.
    for match in reversed(list(_STATED.finditer(text))):
        value = read(question, text[match.end() :])
        if value is not None:
            return value
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


_SIDE = re.compile(r"[a-z]+", re.IGNORECASE)
# Words of their own that would pass for a misspelt or run-together "left" or "right".
_NOT_SIDES = {"let", "cleft", "bright", "alright", "upright", "copyright"}
_BOTH_SIDES = re.compile(
    r"\bleft\s*(?:or|and|/)\s*(?:the\s+)?right\b|\bright\s*(?:or|and|/)\s*(?:the\s+)?left\b", re.IGNORECASE
)
_RIGHT_OTHERWISE = re.compile(
    r"\bright\s+(?:now|away|here|there|next)\b|\ball\s+right\b|"
    r"^\W*(?:that'?s\s+|you\s+are\s+|you'?re\s+)?right\s*[,.!]\s*(?=\w)",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(
    r"[.!?;,]\s+|\bbut\b|\bwhile\b|\bwhereas\b|\band\b(?=\s+(?:the|it|region|\[))|\n", re.IGNORECASE
)
_TURNED = re.compile(
    rf"{NEGATION}|\b(?:rather\s+than|instead\s+of|opposed\s+to|opposite\s+of)\b", re.IGNORECASE
)
_SUBJECT = re.compile(rf"{REGION.pattern}|\b(first|former|second|latter)\b", re.IGNORECASE)
_YES = re.compile(
    r"^\W*(?:yes|yeah|yep|correct|true|indeed|right|that'?s\s+(?:right|correct)|affirmative)\b", re.IGNORECASE
)
_NO = re.compile(r"^\W*(?:no|nope|incorrect|false|wrong|not|negative)\b", re.IGNORECASE)
_OPPOSITE = {"left": "right", "right": "left"}


def _read_left_right(question: str, text: str) -> str | None:
    short = text.strip(" .\"'[]()").lower()
    if short in ("l", "r"):
        return {"l": "left", "r": "right"}[short]
    text = _RIGHT_OTHERWISE.sub(" ", text)
    named, unnamed = None, None
    for clause in _CLAUSE_END.split(_BOTH_SIDES.sub(" ", text)):
        side, subject = _clause_side(clause)
        if side is None:
            continue
        if subject is None:
            unnamed = side
        else:
            named = _OPPOSITE[side] if subject == 1 else side
    if named or unnamed:
        return named or unnamed
    asked, _ = _clause_side(_BOTH_SIDES.sub(" ", question))
    if asked is None or _BOTH_SIDES.search(question):
        return None
    if _YES.match(text):
        return asked
    return _OPPOSITE[asked] if _NO.match(text) else None


def _clause_side(clause: str) -> tuple[str | None, int | None]:
    """The side a clause states last, and the number of the region it speaks of."""
    side, position = None, 0
    for word in _SIDE.finditer(clause):
        found = _side_of(word.group().lower())
        if found is not None:
            turned = _TURNED.search(clause, position, word.start())
            # A second side in one clause only counts if it is no contrast to the first.
            if side is None or not turned:
                side = _OPPOSITE[found] if turned else found
            position = word.end()
    # Behind the side stands what the subject is compared with: "to the right of [Region 1]".
    match = _SUBJECT.search(clause, 0, position)
    if match is None:
        return side, None
    if match.group(3):
        return side, 0 if match.group(3).lower() in ("first", "former") else 1
    return side, region_number(match)


def _side_of(word: str) -> str | None:
    if word in _NOT_SIDES:
        return None
    for side in _OPPOSITE:
        if word.startswith(side) or word.endswith(side) or _one_slip(word, side):
            return side
    return None


def _one_slip(word: str, target: str) -> bool:
    """Whether dropping, doubling or swapping neighbours of one letter makes ``target``."""
    if abs(len(word) - len(target)) > 1 or len(word) < 3 or word[0] != target[0]:
        return False
    drops = {target[:i] + target[i + 1 :] for i in range(len(target))}
    swaps = {target[:i] + target[i + 1] + target[i] + target[i + 2 :] for i in range(len(target) - 1)}
    doubles = {target[:i] + target[i] + target[i:] for i in range(len(target))}
    return word in drops | swaps | doubles


_THINGS = r"(?:\w+\s+){0,2}?(?:pallets?|box(?:es)?|objects?|items?|transporters?|shel(?:f|ves))\b"
_NO_THINGS = re.compile(
    rf"\b(?:no|without|zero)\s+(?:any\s+)?{_THINGS}|{NEGATION}\s+(?:\w+\s+){{0,2}}?any\b|"
    rf"\bis\s+(?:currently\s+)?empty\b|\bnothing\b",
    re.IGNORECASE,
)
_LISTED = re.compile(r"\b(?:pallets?|objects?|boxes)\s*((?:(?:,|and|\s)*@[0-9]+@)+)", re.IGNORECASE)


def _read_count(question: str, text: str) -> int | None:
    del question
    marked = REGION.sub(lambda match: f" @{region_number(match)}@ ", text)
    sentences = [re.sub(r"@[0-9]+@", " ", part) for part in SENTENCE_END.split(marked)]
    for sentence in reversed(sentences):
        if _NO_THINGS.search(sentence):
            return 0
        things = re.search(rf"{COUNT.pattern}\s+{_THINGS}", sentence, re.IGNORECASE)
        if things is not None:
            return _count(things)
        # "the closest one", "this one": a pronoun, not a number.
        numbers = [
            match
            for match in COUNT.finditer(sentence)
            if not (match.group().lower() == "one" and match.start() and len(sentences) > 1)
        ]
        if numbers:
            return _count(numbers[-1])
    # A text cut off before its conclusion may have listed the pallets already.
    listed = [set(re.findall(r"[0-9]+", match.group(1))) for match in _LISTED.finditer(marked)]
    return len(listed[-1]) if listed else None


def _count(match: re.Match) -> int:
    return int(match.group(1)) if match.group(1) else NUMBER_WORDS[match.group(2).lower()]


_CHOSEN = re.compile(
    r"\b(?:closest|nearest|shortest|best|optimal|ideal|most|easiest|suitable|logical|leftmost|"
    r"rightmost|middle|extreme|left|right|choose|chosen|choice|select(?:ed)?|should|pick(?:ed)?|"
    r"recommend(?:ed)?|candidate)\b",
    re.IGNORECASE,
)
_MEASURED_FROM = re.compile(
    r"\b(?:closest|nearest|closer|nearer|next|distance)\s+(?:to|from)\s+(?:the\s+)?(?:\w+\s+)?$",
    re.IGNORECASE,
)
_LABELS = re.compile(r"\b(pallets?|transporters?|shel(?:f|ves)|buffers?|zones?)\b", re.IGNORECASE)
_KINDS = {"p": "pallet", "t": "transporter", "s": "shelf", "b": "buffer", "z": "buffer"}
_ASKED = re.compile(
    r"\bwh(?:ich|at)\b(?:\s+\w+){0,3}?\s+(pallets?|transporters?|shel(?:f|ves)|buffers?)\b", re.IGNORECASE
)


def _read_mcq(question: str, text: str) -> int | None:
    references = list(REGION.finditer(text))
    if not references:
        numbers = [_count(match) for match in COUNT.finditer(text) if match.group().lower() != "none"]
        return numbers[-1] if numbers else None
    if len({region_number(match) for match in references}) == 1:
        return region_number(references[0])
    excluded = _never_asked(question)
    fallback = None
    for sentence in reversed(SENTENCE_END.split(text)):
        keyword = next(
            (
                match
                for match in _CHOSEN.finditer(sentence)
                if not _NEGATED.search(sentence, max(0, match.start() - 12), match.start())
            ),
            None,
        )
        found = _candidates(sentence, excluded)
        if not found:
            continue
        if keyword is None:
            fallback = found[0][1] if fallback is None else fallback
            continue
        before = [number for position, number in found if position < keyword.start()]
        return before[-1] if before else found[0][1]
    return region_number(references[-1]) if fallback is None else fallback


def _candidates(sentence: str, excluded: frozenset[int]) -> list[tuple[int, int]]:
    """(position, number) of the regions a sentence names, those it is measured from left out."""
    found, previous, kind = [], 0, None
    for match in REGION.finditer(sentence):
        labels = _LABELS.findall(sentence, previous, match.start())
        if labels or re.search(r"\w", sentence[previous : match.start()]):
            kind = _KINDS[labels[-1][0].lower()] if labels else None
        measured_from = _MEASURED_FROM.search(sentence, previous, match.start())
        previous = match.end()
        if kind not in ("transporter", "shelf") and not measured_from:
            found.append((match.start(), region_number(match)))
    return [item for item in found if item[1] not in excluded] or found


def _never_asked(question: str) -> frozenset[int]:
    """Numbers of the regions that the question's other objects are, by the word before them."""
    asked = _ASKED.search(question)
    asked_kind = _KINDS[asked.group(1)[0].lower()] if asked else None
    excluded, kind = set(), None
    parts = question.split("<mask>")
    for number, before in enumerate(parts[:-1]):
        labels = _LABELS.findall(before)
        if labels or re.search(r"\w", before):
            kind = _KINDS[labels[-1][0].lower()] if labels else None
        if kind in ("transporter", "shelf") and kind != asked_kind:
            excluded.add(number)
    return frozenset(excluded)


def _read_distance(question: str, text: str) -> float | None:
    del question
    text = REGION.sub(" ", text)
    lengths = find_lengths(text)
    if lengths:
        # "15 meters (49 feet)": metres are what the question asks for.
        metres = [length for length in lengths if length[1] == 1]
        return (metres or lengths)[-1][0]
    for sentence in reversed(SENTENCE_END.split(text)):
        numbers = [
            match.group(1)
            for match in BARE_DECIMAL.finditer(sentence)
            if match.group(1).lower() not in ("one", "none")
        ]
        if numbers:
            return decimal(numbers[-1])
        if _INSIDE.search(sentence) and not _NEGATED.search(sentence):
            return 0.0
    return None


_READERS = {
    "left_right": _read_left_right,
    "count": _read_count,
    "mcq": _read_mcq,
    "distance": _read_distance,
}
