"""From free text to the warehouse benchmark's normalised answers, by rules.

The published data states an answer in one or more sentences ("The buffer region [Region 2] is the
leftmost buffer region. ... Hence, there are two pallets in the buffer area [Region 2].") and gives
its value beside it (2). ``normalized_answer`` reads the value off such a text, also off a model's
imitation of it; ``parse_normalized`` reads values that are normalised already, as the official
scorer does.
"""

from __future__ import annotations

import re

Answer = str | int | float | None

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
).split()
_NUMBER_WORDS = {word: value for value, word in enumerate(_WORDS)} | {"none": 0}

# Longer runs of digits are a model's stutter, and int() refuses them past a few thousand.
_DIGITS = r"[0-9]{1,9}(?![0-9])"
_REGION = re.compile(
    rf"\[?\s*\b(?:region|mask)s?[\s_#:-]*\[?\s*({_DIGITS}|{'|'.join(_WORDS)}\b)\s*\]?"
    rf"|\[\s*({_DIGITS})\s*\]",
    re.IGNORECASE,
)
_WORD_ALTERNATIVES = "|".join(sorted(_NUMBER_WORDS, key=len, reverse=True))
_COUNT = re.compile(
    rf"(?<![\w.,])(?:({_DIGITS})(?:\.0+\b)?(?!\.?[0-9])|({_WORD_ALTERNATIVES})\b)", re.IGNORECASE
)
_DECIMAL = rf"(?<![\w.])([0-9]{{1,9}}(?:[.,][0-9]{{1,9}})?|\.[0-9]{{1,9}}|{_WORD_ALTERNATIVES})(?!\.?[0-9])"
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
_MEASURE = re.compile(
    rf"{_DECIMAL}\s*-?\s*({'|'.join(sorted(_UNITS, key=len, reverse=True))})\b", re.IGNORECASE
)
_BARE_DECIMAL = re.compile(rf"{_DECIMAL}(?![\w])", re.IGNORECASE)
_INSIDE = re.compile(
    r"\b(?:inside|within|overlap\w*|contained|(?:located|positioned|situated|placed|standing|"
    r"stands|parked|sits?|stored|resting|is|are|lies)\s+(?:right\s+)?(?:in|on)\b)",
    re.IGNORECASE,
)
_NEGATION = r"\b(?:not|never|no\s+longer|neither|isn'?t|aren'?t|doesn'?t|don'?t|cannot|can'?t)\b"
_NEGATED = re.compile(_NEGATION, re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
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
    text = " ".join(_tidy(part) for part in answer.splitlines() if part.strip())
    if _is_garbage(text):
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
    number = re.search(rf"(?<![0-9.])[0-9]{{1,9}}(?:\.[0-9]+)?(?![0-9])|\b(?:{_WORD_ALTERNATIVES})\b", text)
    if isinstance(value, str) and number is not None:
        found = number.group()
        parsed = float(_NUMBER_WORDS[found]) if found in _NUMBER_WORDS else float(found)
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
    rf"{_NEGATION}|\b(?:rather\s+than|instead\s+of|opposed\s+to|opposite\s+of)\b", re.IGNORECASE
)
_SUBJECT = re.compile(rf"{_REGION.pattern}|\b(first|former|second|latter)\b", re.IGNORECASE)
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
    return side, _region_number(match)


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
    rf"\b(?:no|without|zero)\s+(?:any\s+)?{_THINGS}|{_NEGATION}\s+(?:\w+\s+){{0,2}}?any\b|"
    rf"\bis\s+(?:currently\s+)?empty\b|\bnothing\b",
    re.IGNORECASE,
)
_LISTED = re.compile(r"\b(?:pallets?|objects?|boxes)\s*((?:(?:,|and|\s)*@[0-9]+@)+)", re.IGNORECASE)


def _read_count(question: str, text: str) -> int | None:
    del question
    marked = _REGION.sub(lambda match: f" @{_region_number(match)}@ ", text)
    sentences = [re.sub(r"@[0-9]+@", " ", part) for part in _SENTENCE_END.split(marked)]
    for sentence in reversed(sentences):
        if _NO_THINGS.search(sentence):
            return 0
        things = re.search(rf"{_COUNT.pattern}\s+{_THINGS}", sentence, re.IGNORECASE)
        if things is not None:
            return _count(things)
        # "the closest one", "this one": a pronoun, not a number.
        numbers = [
            match
            for match in _COUNT.finditer(sentence)
            if not (match.group().lower() == "one" and match.start() and len(sentences) > 1)
        ]
        if numbers:
            return _count(numbers[-1])
    # A text cut off before its conclusion may have listed the pallets already.
    listed = [set(re.findall(r"[0-9]+", match.group(1))) for match in _LISTED.finditer(marked)]
    return len(listed[-1]) if listed else None


def _count(match: re.Match) -> int:
    return int(match.group(1)) if match.group(1) else _NUMBER_WORDS[match.group(2).lower()]


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
    references = list(_REGION.finditer(text))
    if not references:
        numbers = [_count(match) for match in _COUNT.finditer(text) if match.group().lower() != "none"]
        return numbers[-1] if numbers else None
    if len({_region_number(match) for match in references}) == 1:
        return _region_number(references[0])
    excluded = _never_asked(question)
    fallback = None
    for sentence in reversed(_SENTENCE_END.split(text)):
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
    return _region_number(references[-1]) if fallback is None else fallback


def _candidates(sentence: str, excluded: frozenset[int]) -> list[tuple[int, int]]:
    """(position, number) of the regions a sentence names, those it is measured from left out."""
    found, previous, kind = [], 0, None
    for match in _REGION.finditer(sentence):
        labels = _LABELS.findall(sentence, previous, match.start())
        if labels or re.search(r"\w", sentence[previous : match.start()]):
            kind = _KINDS[labels[-1][0].lower()] if labels else None
        measured_from = _MEASURED_FROM.search(sentence, previous, match.start())
        previous = match.end()
        if kind not in ("transporter", "shelf") and not measured_from:
            found.append((match.start(), _region_number(match)))
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
    text = _REGION.sub(" ", text)
    measures = list(_MEASURE.finditer(text))
    if measures:
        # "15 meters (49 feet)": metres are what the question asks for.
        metres = [match for match in measures if _UNITS[match.group(2).lower()] == 1]
        match = (metres or measures)[-1]
        # Seven digits keep "35 cm" 0.35 in spite of binary fractions.
        return round(_decimal(match.group(1)) * _UNITS[match.group(2).lower()], 7)
    for sentence in reversed(_SENTENCE_END.split(text)):
        numbers = [
            match.group(1)
            for match in _BARE_DECIMAL.finditer(sentence)
            if match.group(1).lower() not in ("one", "none")
        ]
        if numbers:
            return _decimal(numbers[-1])
        if _INSIDE.search(sentence) and not _NEGATED.search(sentence):
            return 0.0
    return None


def _decimal(text: str) -> float:
    word = _NUMBER_WORDS.get(text.lower())
    return float(text.replace(",", ".")) if word is None else float(word)


def _region_number(match: re.Match) -> int:
    found = match.group(1) or match.group(2)
    return int(found) if found[0] in "0123456789" else _NUMBER_WORDS[found.lower()]


def _tidy(text: str) -> str:
    return text.replace("\u2019", "'").strip()


def _is_garbage(text: str) -> bool:
    """True for texts without a letter or digit, and for loops of one or two words."""
    tokens = re.findall(r"\w+", _REGION.sub(lambda match: f" region_{_region_number(match)} ", text.lower()))
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


_READERS = {
    "left_right": _read_left_right,
    "count": _read_count,
    "mcq": _read_mcq,
    "distance": _read_distance,
}
