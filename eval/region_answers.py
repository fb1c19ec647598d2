"""Which region a free-text answer to an mcq question chooses."""

from __future__ import annotations

import re

from eval.answer_text import (
    COUNT,
    NEGATION,
    NUMBER_WORDS,
    REGION,
    SENTENCE_END,
    region_number,
    without_denied,
)

_NEGATED = re.compile(NEGATION, re.IGNORECASE)
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


def region_readings(question: str, text: str) -> list[int]:
    """The regions that the text's sentences choose, the best reading last.

    Sentences with a word of choosing ("closest", "best") outrank those without; a text that names no
    region may give a bare number.
    """
    text = without_denied(text)
    references = list(REGION.finditer(text))
    if not references:
        numbers = [match for match in COUNT.finditer(text) if match.group().lower() != "none"]
        return [NUMBER_WORDS[m.group(2).lower()] if m.group(2) else int(m.group(1)) for m in numbers]
    if len({region_number(match) for match in references}) == 1:
        return [region_number(references[0])]
    excluded = _never_asked(question)
    # A model may call a pallet a transporter: where nothing else is left, words before regions do not count.
    for trust_labels in (True, False):
        chosen, others = [], []
        for sentence in SENTENCE_END.split(text):
            found = _candidates(sentence, excluded, trust_labels)
            if not found:
                continue
            keyword = next(
                (
                    match
                    for match in _CHOSEN.finditer(sentence)
                    if not _NEGATED.search(sentence, max(0, match.start() - 12), match.start())
                ),
                None,
            )
            if keyword is None:
                others.append(found[0][1])
                continue
            before = [number for position, number in found if position < keyword.start()]
            chosen.append(before[-1] if before else found[0][1])
        if chosen or others:
            return chosen or others
    return [region_number(references[-1])]


def _candidates(sentence: str, excluded: frozenset[int], trust_labels: bool) -> list[tuple[int, int]]:
    """(position, number) of the regions a sentence names, those it is measured from left out."""
    found, previous, kind = [], 0, None
    for match in REGION.finditer(sentence):
        labels = _LABELS.findall(sentence, previous, match.start())
        if labels or re.search(r"\w", sentence[previous : match.start()]):
            kind = _KINDS[labels[-1][0].lower()] if labels else None
        measured_from = _MEASURED_FROM.search(sentence, previous, match.start())
        previous = match.end()
        if not measured_from and not (trust_labels and kind in ("transporter", "shelf")):
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
