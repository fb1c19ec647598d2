"""Which side a free-text answer to a left_right question states."""

from __future__ import annotations

import re

from eval.answer_text import NEGATION, REGION, region_number

_SIDE = re.compile(r"[a-z]+", re.IGNORECASE)
# Words of their own that would pass for a misspelt or run-together "left" or "right".
_NOT_SIDES = {"let", "cleft", "bright", "alright", "upright", "copyright"}
_BETWEEN_SIDES = r"\s*(?:or|and|nor|/)\s*(?:(?:to|on|at)\s+)?(?:the\s+)?"
BOTH_SIDES = re.compile(rf"\bleft{_BETWEEN_SIDES}right\b|\bright{_BETWEEN_SIDES}left\b", re.IGNORECASE)
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
# "[Region 1] has [Region 0] on its left": what is on the left was named last.
_ITS = re.compile(r"\bits\s+(?:\w+\s+)?$", re.IGNORECASE)
# "The pallet on the left is [Region 0]"
_SUBJECT_BEHIND = re.compile(
    rf"(?:\s+(?!of\b|is\b)\w+)?\s+(?:is|stands|lies)\s+(?:the\s+)?(?:\w+\s+)?(?:{_SUBJECT.pattern})",
    re.IGNORECASE,
)
_YES = re.compile(
    r"^\W*(?:yes|yeah|yep|correct|true|indeed|right|that'?s\s+(?:right|correct)|affirmative)\b", re.IGNORECASE
)
_NO = re.compile(r"^\W*(?:no|nope|incorrect|false|wrong|not|negative)\b", re.IGNORECASE)
_OPPOSITE = {"left": "right", "right": "left"}


def side_readings(question: str, text: str) -> list[str]:
    """The sides that the text states for the question's first object, the best reading last.

    Statements that name their subject outrank those that do not.
    """
    short = text.strip(" .\"'[]()").lower()
    if short in ("l", "r"):
        return [{"l": "left", "r": "right"}[short]]
    text = _RIGHT_OTHERWISE.sub(" ", text)
    named, unnamed = [], []
    for clause in _CLAUSE_END.split(BOTH_SIDES.sub(" ", text)):
        side, subject = _clause_side(clause)
        if side is None:
            continue
        if subject is None:
            unnamed.append(side)
        else:
            named.append(_OPPOSITE[side] if subject == 1 else side)
    if named or unnamed:
        return named or unnamed
    asked, _ = _clause_side(BOTH_SIDES.sub(" ", question))
    if asked is None or BOTH_SIDES.search(question):
        return []
    if _YES.match(text):
        return [asked]
    return [_OPPOSITE[asked]] if _NO.match(text) else []


def _clause_side(clause: str) -> tuple[str | None, int | None]:
    """The side a clause states last, and the number of the region it speaks of."""
    side, begin, position = None, 0, 0
    for word in _SIDE.finditer(clause):
        found = _side_of(word.group().lower())
        if found is not None:
            turned = _TURNED.search(clause, position, word.start())
            # A second side in one clause only counts if it is no contrast to the first.
            if side is None or not turned:
                side = _OPPOSITE[found] if turned else found
            begin, position = word.span()
    if side is None:
        return None, None
    # Behind the side stands what the subject is compared with: "to the right of [Region 1]".
    before = list(_SUBJECT.finditer(clause, 0, position))
    if before:
        return side, _subject_number(before[-1 if _ITS.search(clause, 0, begin) else 0])
    behind = _SUBJECT_BEHIND.match(clause, position)
    return side, _subject_number(behind) if behind else None


def _subject_number(match: re.Match) -> int:
    if match.group(3):
        return 0 if match.group(3).lower() in ("first", "former") else 1
    return region_number(match)


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
