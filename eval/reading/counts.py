"""How many things a free-text answer counts."""

from __future__ import annotations

import re

from eval.reading.pieces import (
    COUNT,
    KIND,
    NEGATION,
    SENTENCE_END,
    WORD_ALTERNATIVES,
    marked,
    regex,
    whole,
    without_denied,
    without_pronouns,
)

_ASKED = regex(rf"\b(?:how\s+many|count\s+of|number\s+of)\s+(?:\w+\s+)??{KIND.pattern}")
# All rules are about "things", the noun that the question counts, and "stuff", all others.
_NOT_ADJECTIVES = rf"and|or|but|the|an?|of|with|in|is|are|has|contains|holds|stores|stuff|{WORD_ALTERNATIVES}"
_THINGS = rf"(?:(?!(?:{_NOT_ADJECTIVES})\b)[a-z-]+\s+){{0,2}}?things?\b"
_REWORDED = [
    (regex(pattern), instead)
    for pattern, instead in (
        (r"\b(?:an?|the)\s+(?:pair|couple)\s+of\b", "two"),
        (r"\bhalf\s+a\s+dozen\b", "six"),
        # A bound is no count.
        (rf"\b(?:no\s+|not\s+)?(?:more|fewer|less)\s+than\s+{COUNT.pattern}", "some"),
        # Nor is what was counted among: "of the ten things, two" and "of which two" are "two of them".
        (
            rf"\b(?:out\s+of\s+|(?:of|among|from|given)\s+(?=all\b|the\b|these\b|those\b))"
            rf"(?:(?:all|the|these|those)\s+)*(?:{COUNT.pattern}\s+)?{_THINGS}",
            "of them",
        ),
        (r"\bof\s+(?:which|these|those)\b", "of them"),
        # "two or three things" are both.
        (rf"({COUNT.pattern})\s+(?:to|or)\s+(?={COUNT.pattern}\s+{_THINGS})", r"\1 things, "),
        (rf"\bof\s+them\s*,?\s*(?:only\s+|just\s+)?({COUNT.pattern})(?!\s+of\b)", r"\1 of them"),
    )
]
_NONE = (
    rf"\b(?:no|without|(?:devoid|free|empty)\s+of)\s+(?:any\s+)?{_THINGS}|"
    rf"{NEGATION}\s+(?:\w+\s+){{0,2}}?(?:any\b(?!\s+(?:\w+\s+)?stuff)|an?\s+{_THINGS})|"
    r"\b(?:is|are|remains?|stands?|stays?|seems|appears)\s+(?:(?!not\b)\w+\s+)?(?:empty|vacant|unoccupied)\b|"
    r"\bnothing\b(?!\s+(?:else|but|more))"
)
_SINGLE = (
    r"\bsingle\s+thing\b|\b(?:is|there's|holds?|has|contains?|stores?|holding|containing|storing)\s+"
    r"(?:just\s+|only\s+)?an?\s+thing\b(?!.*\band\s+an)"
)
_COUNTED = regex(rf"(?P<none>{_NONE})|(?P<single>{_SINGLE})|(?P<number>{COUNT.pattern})\s+(?:of\s+them\b|{_THINGS})")
_CLAUSE_END = regex(r"[,;:]\s|\bbut\b|\bwhile\b|\band\b(?!\s+an)")
_ELSEWHERE = regex(
    rf"\boutside\b|\belsewhere\b|(?:\bnot|n't)\s+(?:in|inside|within)\b|"
    rf"\b(?:other|remaining)\s+(?:(?:{WORD_ALTERNATIVES}|[0-9]+)\s+)?(?:things?|stuff|ones)\b"
)
_OF_OTHERS = regex(
    r"\s+(?:of\s+(?:\w+\s+){0,2}?)?(?:(?!(?:in|inside|within|at|on|is|are)\b)\w+\s+)?stuff\b|"
    r"\s*[ckm]?m\b|\s*\w*met(?:er|re)s?\b"
)
_LISTED = regex(r"(?<!among the )\b(things?)\s*((?:(?:,|and|\s)*@[0-9]+@)+)")


def count_readings(question: str, text: str) -> list[int]:
    """What the text's sentences count, the best reading last; also what they list, if that is another number.

    Things of the kind that the question asks for; a text that counts none of them may call them objects or boxes.
    """
    asked = _ASKED.search(question)
    kind = asked.lastgroup if asked else "pallet"
    text = marked(without_denied(without_pronouns(text)))
    return _counts(text, {kind}) or _counts(text, {kind, "object"})


def _counts(text: str, kinds: set[str]) -> list[int]:
    def canonical(match: re.Match) -> str:
        thing = "things" if match.group().lower().endswith("s") else "thing"
        return thing if match.lastgroup in kinds else "stuff"

    listed, plural, found, last = [], False, [], None
    for sentence in SENTENCE_END.split(KIND.sub(canonical, text)):
        away = _ELSEWHERE.search(sentence)
        # A text cut off before its conclusion may have listed them already.
        for match in () if away else _LISTED.finditer(sentence):
            listed = [len(set(re.findall("[0-9]+", match.group(2))))]
            plural = match.group(1).lower() == "things"
        sentence = re.sub(r"\s+", " ", re.sub("@[0-9]+@", " ", sentence))
        for pattern, instead in _REWORDED:
            sentence = pattern.sub(instead, sentence)
        clauses = [clause for clause in _CLAUSE_END.split(sentence) if not _ELSEWHERE.search(clause)]
        counts = [_count(match) for clause in clauses for match in _COUNTED.finditer(clause)]
        if counts:
            found += counts
            last = counts[-1]
        elif not away:
            bare = [m for m in COUNT.finditer(sentence) if not _OF_OTHERS.match(sentence, m.end())]
            # "One is loaded", after the count.
            if bare and not (found and bare[-1].group().lower() == "one" and not bare[-1].start()):
                last = whole(bare[-1].group())
    if last is None:
        return listed
    return [*(listed if plural else []), *found, last]


def _count(match: re.Match) -> int:
    return 0 if match["none"] else 1 if match["single"] else whole(match["number"])
