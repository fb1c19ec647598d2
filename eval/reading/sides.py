"""Which side a free-text answer to a left_right question states."""

from __future__ import annotations

import re

from eval.reading.pieces import NEGATION, SENTENCE_END, marked_objects, regex, verdict

_WORD = regex(r"[a-z]+")
# Words of their own that would pass for a misspelt or run-together "left" or "right".
_NOT_SIDES = {"let", "cleft", "bright", "alright", "upright", "copyright"}
_BETWEEN_SIDES = r"\s*(?:or|and|nor|/)\s*(?:(?:to|on|at)\s+)?(?:the\s+)?"
BOTH_SIDES = regex(rf"\bleft{_BETWEEN_SIDES}right\b|\bright{_BETWEEN_SIDES}left\b")
RIGHT_OTHERWISE = regex(
    r"(?<!the )\bright(?=\s+(?:now|away|here|there|next|behind|beside|before|in\s+front)\b)|\ball\s+right\b"
)
# "right" where the question is answered by yes or no.
_RIGHT_AGREES = regex(
    r"^\W*right\s*[,.!]\s*(?=\w)|^\W*(?:yes|no)\W+(?:it\s+is\s+)?(?:not\s+)?(?:\w+ly\s+)?right\W*$|"
    r"\b(?:that|this|you)(?:'s|'re|\s+is|\s+are)(?:n't|\s+not)?\s+(?:\w+ly\s+)?right\b(?!\s+(?:of|side|hand)\b|-)"
)
_MARK = re.compile(r"@(\d+)@")
_TO_MARK = r"(?:(?!(?:is|are|lies|stands|than|of|two|both)\b)\w+\s+){0,3}?@\d+@"
# What is said besides: "compared to @1@", "between @0@ and @1@", "the left edge of @1@".
_ASIDE = regex(
    rf"\b(?:compared|relative|in\s+comparison|in\s+relation|with\s+respect|next|close)\s+(?:to|with)\s+{_TO_MARK}|"
    rf"\b(?:between|among|comparing)\s+{_TO_MARK}\s+(?:and|or|to|with)\s+{_TO_MARK}|"
    rf"\b(?:left|right)\w*\s+(?:edge|corner|end|border|boundary|part|half)\s+of\s+{_TO_MARK}"
)
# "From left to right you see @0@, @1@": the first is on the left.
_IN_ORDER = regex(r"\bfrom\s+(?:the\s+)?(left|right)\s+to\s+(?:the\s+)?(?:left|right)\b[^\w@]*(?=[^.;]*@)")
# "To the left of @0@, there is @1@" is one clause.
_OPENING_SIDE = regex(
    r"((?:^|[.;!?,]\s+|\band\s+)(?:on|to|at)\s+(?:the|its)\s+(?:\w+\s+)?(?:left|right)\w*(?:\s+side)?"
    rf"(?:\s+of\s+{_TO_MARK})?),"
)
_CLAUSE_END = regex(r"[.!?;,]\s+|\bbut\b|\bwhile\b|\bwhereas\b|\band\b(?=\s+(?:the|it|on|to|@))|\n")
# "[Region 1], seen from here, is on the left": a clause about what the sentence began with.
_GOES_ON = regex(r"\s*(?:(?:and|so|slightly|just)\s+)*(?:is|are|appears|lies|stands|sits|on|to|at)\b")
_TURNED = regex(rf"{NEGATION}|\b(?:less|rather\s+than|instead\s+of|opposed\s+to|opposite\s+of)\b")
# "@1@ has @0@ on its left": what is on the left was named last.
_HAS = regex(r"\b(?:has|have|having)\b")
_ITS = regex(r"\bits\s+(?:\w+\s+)?$")
_OF_MARK = regex(rf"(?:[\s-]+(?:hand|side))*\s+(?:of|from|to|than)\s+{_TO_MARK}")
# "The one on the left is @0@", "on the left you see @0@", "on the left the pallet @0@"
_THEN_MARK = regex(
    r"(?:[^@]*?\b(?:is|are|stands?|lies|sits|see|find|there)\b)?"
    r"(?:[^\w@]+(?!(?:of|from|to|than|behind|near|beside|by|with|at|in)\b)\w+){0,4}?[^\w@]+@(\d+)@"
)
OPPOSITE = {"left": "right", "right": "left"}


def side_readings(question: str, text: str) -> list[str]:
    """The sides that the text states for the question's first object, the best reading last.

    Statements that name their subject outrank those that do not.
    """
    short = text.strip(" .\"'[]()").lower()
    if short in ("l", "r"):
        return [{"l": "left", "r": "right"}[short]]
    asked = None if BOTH_SIDES.search(question) else _clause_side(question)[0]
    agrees = verdict(text)
    if asked:
        text = _RIGHT_AGREES.sub(" ", text)
    # The question's objects are @0@ and @1@ from here on.
    text = marked_objects(RIGHT_OTHERWISE.sub(" ", text))
    text = _IN_ORDER.sub(r"on the \1 is ", _ASIDE.sub(" ", re.sub(r"\s+", " ", text)))
    text = BOTH_SIDES.sub(" ", _OPENING_SIDE.sub(r"\1 ", text))
    named, unnamed = [], []
    for sentence in SENTENCE_END.split(text):
        first, stated = None, len(named)
        for clause in _CLAUSE_END.split(sentence):
            side, subject = _clause_side(clause)
            if subject is None and len(named) == stated and _GOES_ON.match(clause):
                subject = first
            if side is not None and subject is None:
                unnamed.append(side)
            elif side is not None:
                named.append(OPPOSITE[side] if subject == 1 else side)
            mark = _MARK.search(clause)
            first = int(mark.group(1)) if first is None and mark else first
    if named or unnamed:
        return named or unnamed
    if asked is None or agrees is None:
        return []
    return [asked if agrees else OPPOSITE[asked]]


def _clause_side(clause: str) -> tuple[str | None, int | None]:
    """The side a clause states last, and the number of the object it speaks of."""
    side, begin, position = None, 0, 0
    for word in _WORD.finditer(clause):
        found = _side_of(word.group().lower())
        if found is not None:
            turned = _TURNED.search(clause, position, word.start())
            # A second side in one clause only counts if it is no contrast to the first.
            if side is None or not turned:
                side = OPPOSITE[found] if turned else found
            begin, position = word.span()
    return side, None if side is None else _subject(clause, begin, position)


def _subject(clause: str, begin: int, end: int) -> int | None:
    """The number of the object that the side at [begin, end) of a clause is about."""
    before = list(_MARK.finditer(clause, 0, begin))
    its = _ITS.search(clause, 0, begin)
    if before:
        has = _HAS.search(clause, before[0].end(), before[-1].start())
        return int(before[-1 if its or has else 0].group(1))
    # Behind a side stands what the subject is compared with: "to the right of @1@", "to the right of @1@ is @0@".
    of = _OF_MARK.match(clause, end)
    behind = [int(number) for number in _MARK.findall(clause, end)]
    if of:
        others = [number for number in behind if number != behind[0]]
        return others[0] if others else {0: 1, 1: 0}.get(behind[0])
    if its and behind:
        return behind[-1]
    then = _THEN_MARK.match(clause, end)
    return int(then.group(1)) if then else None


def _side_of(word: str) -> str | None:
    if word in _NOT_SIDES:
        return None
    for side in OPPOSITE:
        if word.startswith(side) or word.endswith(side) or _one_slip(word, side):
            return side
    return None


def _one_slip(word: str, target: str) -> bool:
    """Whether dropping, doubling or swapping neighbours of one letter makes `target`."""
    if abs(len(word) - len(target)) > 1 or len(word) < 3 or word[0] != target[0]:
        return False
    drops = {target[:i] + target[i + 1 :] for i in range(len(target))}
    swaps = {target[:i] + target[i + 1] + target[i] + target[i + 2 :] for i in range(len(target) - 1)}
    doubles = {target[:i] + target[i] + target[i:] for i in range(len(target))}
    return word in drops | swaps | doubles
