"""Pieces of free-text answers that all readers of answers share: regions, numbers, yes and no."""

from __future__ import annotations

import functools
import itertools
import re

regex = functools.partial(re.compile, flags=re.IGNORECASE)

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def _number_words() -> dict[str, int]:
    """Zero to ninety-nine, "twenty-one" also as "twenty one" and "twentyone"."""
    words = {word: value for value, word in enumerate(_WORDS)}
    for place, ten in enumerate(_TENS, 2):
        words[ten] = 10 * place
        for unit in range(1, 10):
            words |= {f"{ten}{between}{_WORDS[unit]}": 10 * place + unit for between in ("-", " ", "")}
    return words


NUMBER_WORDS = _number_words() | {"none": 0}


def alternatives(words: object) -> str:
    """A pattern of any of the words, a longer one before its beginning."""
    return "|".join(sorted(words, key=len, reverse=True))


# Longer runs of digits are a model's stutter, and int() refuses them past a few thousand.
_DIGITS = r"[0-9]{1,9}(?![0-9])"
WORD_ALTERNATIVES = alternatives(NUMBER_WORDS)
_REGION_WORDS = alternatives(NUMBER_WORDS.keys() - {"none"})
REGION = regex(
    rf"(?:\[?\s*\b(?:region|mask)s?[\s_#:-]*\[?\s*({_DIGITS}|(?:{_REGION_WORDS})\b)\s*\]?"
    rf"|\[\s*({_DIGITS})\s*\])"
)
COUNT = regex(rf"(?<![\w.,])(?:({_DIGITS})(?:\.0+\b)?(?!\.?[0-9])|({WORD_ALTERNATIVES})\b)")
NEGATION = (
    r"\b(?:not|never|no\s+longer|neither|cannot|"
    r"(?:is|are|was|were|do|does|did|has|have|ca|could|would|wo)n'?t)\b"
)
SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
_KINDS = {
    "pallet": "pallets?",
    "transporter": "transporters?",
    "shelf": "shel(?:f|ves)",
    "buffer": r"buffers?(?:\s+(?:regions?|zones?|areas?))?|zones?|areas?",
    "object": "objects?|items?|box(?:es)?",
}
KIND = regex(rf"\b(?:{'|'.join(f'(?P<{kind}>{words})' for kind, words in _KINDS.items())})\b")
# Behind a number: what it counts or measures.
OF_THINGS = regex(
    rf"\s+(?:(?!(?:in|inside|within|at|on|from|to|of|and|or|is|are)\b)\w+\s+)?{KIND.pattern}|"
    r"\s*-?\s*(?:[ckm]?m|\w*met(?:er|re)s?|feet|foot|ft)\b"
)
# "the leftmost one", "which one": a pronoun, no number.
_PRONOUN_ONE = regex(
    r"\b(?:the(?:\s+\w+)?|this|that|which|each|every|another|any|\w+(?:est|most)|left|right|middle)\s+one\b"
    rf"(?!\s+{KIND.pattern})"
)
# "pallet 4", "buffer zone two" are regions; "in this zone 2 pallets are", "from the shelf 4 meters" hold none.
_NO_LABEL = (
    r"(?![.,]?[0-9])(?!\s*-?\s*(?:[ckm]?m\b|\w*met|f(?:ee|oo)?t\b|in(?:ch|\.)|yard|and\s+an?\b|point\b|hundred\b|"
    r"(?:(?!contain|ha[sv]|hold|stor|is|are)\w+\s+)?(?:pallet|object|item|box)))"
)
_LABELLED = regex(
    rf"\b(pallet|transporter|shelf|buffer(?:\s+(?:zone|area))?|zone|area)[\s_]+(?:number\s+|no\.\s*|#\s*)?"
    rf"({_DIGITS}|(?!one\b)(?:{_REGION_WORDS})\b){_NO_LABEL}"
)
_LABELS = regex(
    rf"\b((?:pallet|transporter|buffer|zone|area|region|mask)s|shelves)\s+"
    rf"({_DIGITS}(?:(?:\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or|&)\s+|\s+){_DIGITS})+)\b{_NO_LABEL}"
)
# "not 3 but 4 meters", "[Region 3], not [Region 2]", "4 rather than 3 meters": the value that is denied.
_DENIED = regex(
    rf"\b(?:not|rather\s+than|instead\s+of|(?:as\s+)?opposed\s+to)\s+"
    rf"(?:(?:the|an?|be|in|at|exactly|only|pallets?|buffer|zone|area|region(?=\s*\[))\s+){{0,3}}"
    rf"(?:{REGION.pattern}|(?:{_DIGITS}(?:[.,][0-9]+)?|(?:{_REGION_WORDS})\b))(?:\s*,?\s*but\b)?"
)
_FIRST, _SECOND = regex(r"\b(?:first|former)\b"), regex(r"\b(?:second|latter)\b")
_TRUE = r"(?:\w+ly\s+)?(?:true|correct|the\s+case|right(?!\s+(?:of|side|hand)\b|-))\b"
_FALSE = r"(?:false|untrue|incorrect|wrong)\b"
_OPENING = r"^\W*(?:(?:actually|well|in\s+fact|absolutely|certainly|definitely|of\s+course)\W+)?"
_NO = regex(
    rf"{_OPENING}(?:nope\b|negative\b|{_FALSE}|"
    rf"(?:no|not)\b(?!\s+(?:sure|certain|clear|visible|possible|enough|idea|way|answer|information)\b)|"
    rf"(?:that|this|it)(?:(?:'s|\s+is)\s+(?:{_FALSE}|not\s+{_TRUE})|\s+isn'?t\s+{_TRUE})|"
    rf"it\s+(?:is|does)(?:\s+not|n'?t)\W*$)"
)
_YES = regex(
    rf"{_OPENING}(?:(?:yes|yeah|yep|correct|true|indeed|affirmative|sure|certainly|absolutely|definitely|"
    r"of\s+course|exactly|precisely)\b|right\s*[,.!]\s*(?=\S)|it(?:'s|\s+is)\s+(?:true|correct|the\s+case)\b|"
    rf"(?:that|this|you)(?:'s|'re|\s+is|\s+are)\s+{_TRUE}|it\s+(?:is|does)\W*$)"
)
_PLAIN = str.maketrans("\u2018\u2019\u2032\u201c\u201d\u2033", "'''\"\"\"")


def whole(text: str) -> int:
    """The value of what COUNT matches."""
    word = NUMBER_WORDS.get(text.lower())
    return int(text.split(".")[0]) if word is None else word


def region_number(match: re.Match) -> int:
    """The number in what REGION matches."""
    return whole(match.group(1) or match.group(2))


def marked(text: str) -> str:
    """The text with " @4@ " for "[Region 4]"."""
    return REGION.sub(lambda match: f" @{region_number(match)}@ ", text)


def marked_objects(text: str) -> str:
    """As `marked`, with "@0@" for "first" and "former" as well, "@1@" for "second" and "latter"."""
    return _SECOND.sub(" @1@ ", _FIRST.sub(" @0@ ", marked(text)))


def one_line(answer: str) -> str:
    """An answer's lines joined, with plain quotes."""
    return " ".join(part.strip() for part in answer.translate(_PLAIN).splitlines() if part.strip())


def with_regions(text: str) -> str:
    """The text with "[Region 4]" for "pallet 4" and "pallets 4"."""
    text = _LABELS.sub(lambda match: match[1] + " " + re.sub("([0-9]+)", r"[Region \1]", match[2]), text)
    return _LABELLED.sub(r"\1 [Region \2]", text)


def without_denied(text: str) -> str:
    """The text without the numbers and regions it says are not the answer."""
    return _DENIED.sub(" ", text)


def without_pronouns(text: str) -> str:
    """The text without every "one" that is no number: "the closest one"."""
    return _PRONOUN_ONE.sub(" ", text)


def verdict(text: str) -> bool | None:
    """Whether a text begins with a yes or a no, None for neither."""
    return False if _NO.match(text) else True if _YES.match(text) else None


def is_garbage(text: str) -> bool:
    """True for texts without a letter or digit, and for loops of one or two words."""
    tokens = re.findall(r"\w+", REGION.sub(lambda match: f" region_{region_number(match)} ", text.lower()))
    longest = 0
    for period in (1, 2):
        equal = [a == b for a, b in zip(tokens, tokens[period:])]
        longest = max([longest, *(len(list(run)) for same, run in itertools.groupby(equal) if same)])
    return not tokens or (longest >= 4 and 2 * longest > len(tokens))
