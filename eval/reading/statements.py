"""What a free-text answer states: sides (left_right), counts, regions (mcq) and lengths (distance).

A reader takes a question and a text, and returns all values that the text states, the best one last. The words stand in
phrases.toml.
"""

import re
import unicodedata

from eval.reading import phrases as wording
from eval.reading.phrases import NUMBER_WORDS, SHARED, TABLE, alternatives, phrases, region_number, verdict, whole

_COUNTS, _REGIONS, SIDES = phrases("counts"), phrases("regions"), phrases("sides")
_REWORDED = TABLE["reworded"]
# Words of their own that would pass for a misspelt or run-together "left" or "right".
_NOT_SIDES = {"let", "cleft", "bright", "alright", "upright", "copyright"}
OPPOSITE = {"left": "right", "right": "left"}
UNITS = {name: metres for names, metres in TABLE["units"].items() for name in names.split()}
# The second part of a length in two units: "5 feet 3 inches", "3 meters and 50 centimeters".
_COMPOUND = {UNITS["foot"]: UNITS["inch"], UNITS["m"]: UNITS["cm"]}
_PARTS = {"half": 1 / 2, "third": 1 / 3, "quarter": 1 / 4}
_DIGIT_WORDS = list(NUMBER_WORDS)[:10]
LENGTHS = phrases(
    "lengths",
    units=alternatives(UNITS),
    small_units=alternatives(name for name, metres in UNITS.items() if metres < 0.1),
    digit_words="|".join(_DIGIT_WORDS),
    nonzero_words="|".join(_DIGIT_WORDS[1:]),
)


def side_readings(question: str, text: str) -> list[str]:
    """The sides that the text states for the question's first object, the best reading last.

    Statements that name their subject outrank those that do not.
    """
    short = text.strip(" .\"'[]()").lower()
    if short in ("l", "r"):
        return [{"l": "left", "r": "right"}[short]]
    asked = None if SIDES.both.search(question) else _clause_side(question)[0]
    agrees = verdict(text)
    if asked:
        text = SIDES.right_agrees.sub(" ", text)
    # The question's objects are @0@ and @1@ from here on.
    text = wording.marked_objects(SIDES.right_otherwise.sub(" ", text))
    text = SIDES.in_order.sub(r"on the \1 is ", SIDES.aside.sub(" ", re.sub(r"\s+", " ", text)))
    text = SIDES.both.sub(" ", SIDES.opening_side.sub(r"\1 ", text))
    named, unnamed = [], []
    for sentence in SHARED.sentence_end.split(text):
        first, stated = None, len(named)
        for clause in SIDES.clause_end.split(sentence):
            side, subject = _clause_side(clause)
            if subject is None and len(named) == stated and SIDES.goes_on.match(clause):
                subject = first
            if side is not None and subject is None:
                unnamed.append(side)
            elif side is not None:
                named.append(OPPOSITE[side] if subject == 1 else side)
            mark = SIDES.mark.search(clause)
            first = int(mark.group(1)) if first is None and mark else first
    if named or unnamed:
        return named or unnamed
    if asked is None or agrees is None:
        return []
    return [asked if agrees else OPPOSITE[asked]]


def _clause_side(clause: str) -> tuple[str | None, int | None]:
    """The side a clause states last, and the number of the object it speaks of."""
    side, begin, position = None, 0, 0
    for word in re.finditer("[a-z]+", clause, re.IGNORECASE):
        found = _side_of(word.group().lower())
        if found is not None:
            turned = SIDES.turned.search(clause, position, word.start())
            # A second side in one clause only counts if it is no contrast to the first.
            if side is None or not turned:
                side = OPPOSITE[found] if turned else found
            begin, position = word.span()
    return side, None if side is None else _subject(clause, begin, position)


def _subject(clause: str, begin: int, end: int) -> int | None:
    """The number of the object that the side at [begin, end) of a clause is about."""
    before = list(SIDES.mark.finditer(clause, 0, begin))
    its = SIDES.its.search(clause, 0, begin)
    if before:
        has = SIDES.has.search(clause, before[0].end(), before[-1].start())
        return int(before[-1 if its or has else 0].group(1))
    # Behind a side stands what the subject is compared with: "to the right of @1@", "to the right of @1@ is @0@".
    of = SIDES.of_mark.match(clause, end)
    behind = [int(number) for number in SIDES.mark.findall(clause, end)]
    if of:
        others = [number for number in behind if number != behind[0]]
        return others[0] if others else {0: 1, 1: 0}.get(behind[0])
    if its and behind:
        return behind[-1]
    then = SIDES.then_mark.match(clause, end)
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


def count_readings(question: str, text: str) -> list[int]:
    """What the text's sentences count, the best reading last; also what they list, if that is another number.

    Things of the kind that the question asks for; a text that counts none of them may call them objects or boxes.
    """
    asked = _COUNTS.asked.search(question)
    kind = asked.lastgroup if asked else "pallet"
    text = wording.marked(wording.without_denied(wording.without_pronouns(text)))
    return _counts(text, {kind}) or _counts(text, {kind, "object"})


def _counts(text: str, kinds: set[str]) -> list[int]:
    def canonical(match: re.Match) -> str:
        thing = "things" if match.group().lower().endswith("s") else "thing"
        return thing if match.lastgroup in kinds else "stuff"

    listed, plural, found, last = [], False, [], None
    for sentence in SHARED.sentence_end.split(SHARED.kind.sub(canonical, text)):
        away = _COUNTS.elsewhere.search(sentence)
        # A text cut off before its conclusion may have listed them already.
        for match in () if away else _COUNTS.listed.finditer(sentence):
            listed = [len(set(re.findall("[0-9]+", match.group(2))))]
            plural = match.group(1).lower() == "things"
        sentence = re.sub(r"\s+", " ", re.sub("@[0-9]+@", " ", sentence))
        for name, instead in _REWORDED.items():
            sentence = getattr(_COUNTS, name).sub(instead, sentence)
        clauses = [clause for clause in _COUNTS.clause_end.split(sentence) if not _COUNTS.elsewhere.search(clause)]
        counts = [_count(match) for clause in clauses for match in _COUNTS.counted.finditer(clause)]
        if counts:
            found += counts
            last = counts[-1]
        elif not away:
            bare = [m for m in SHARED.count.finditer(sentence) if not _COUNTS.of_others.match(sentence, m.end())]
            # "One is loaded", after the count.
            if bare and not (found and bare[-1].group().lower() == "one" and not bare[-1].start()):
                last = whole(bare[-1].group())
    if last is None:
        return listed
    return [*(listed if plural else []), *found, last]


def _count(match: re.Match) -> int:
    return 0 if match["none"] else 1 if match["single"] else whole(match["number"])


def region_readings(question: str, text: str) -> list[int]:
    """The regions that the text's sentences choose, the best reading last.

    Clauses with a word of choosing ("closest", "best") outrank those without; a text that names none may give a bare
    number. A region that the question names as something else, such as the transporter, is none to choose.
    """
    text = wording.without_denied(text)
    asked, excluded = _asked(question)
    sentences = SHARED.sentence_end.split(_REGIONS.than.sub(" ", text))
    # A model may call a pallet a transporter: where nothing else is left, words before regions do not count.
    for trusted in (asked, None):
        choices = [_choices(sentence, excluded, trusted) for sentence in sentences]
        chosen = [number for found, _ in choices for number in found]
        named = [number for _, number in choices if number is not None]
        if chosen or named:
            return chosen or named
    rest = wording.without_pronouns(SHARED.region.sub(" ", text))
    if not re.search(r"\w", rest):
        return [region_number(match) for match in SHARED.region.finditer(text)]
    # "The two pallets" are none of the pallets asked about.
    numbers = [m for m in SHARED.count.finditer(rest) if not (asked and SHARED.of_things.match(rest, m.end()))]
    return [whole(match.group()) for match in numbers if match.group().lower() != "none"]


def _choices(sentence: str, excluded: frozenset[int], asked: str | None) -> tuple[list[int], int | None]:
    """The regions that a sentence's clauses choose, and the first it names if it has no word of choosing."""
    found = _candidates(sentence, excluded, asked)
    if not found:
        return [], None
    words = list(_REGIONS.chosen.finditer(sentence))
    keywords = [match for match in words if not _REGIONS.not_chosen.search(sentence[: match.start()])]
    if not keywords:
        return [], None if words else found[0][1]
    chosen, begin = [], 0
    for end in [*(match.start() for match in _REGIONS.clause_end.finditer(sentence)), len(sentence)]:
        keyword = next((match for match in keywords if begin <= match.start() < end), None)
        here = [item for item in found if begin <= item[0] < end]
        if keyword is not None and here:
            chosen.append(_nearest(here, keyword.start()))
        begin = end
    # "Since [Region 2] is closer, it is the best choice."
    return chosen or [_nearest(found, keywords[0].start())], None


def _nearest(found: list[tuple[int, int]], place: int) -> int:
    """The region named last before a place, else the first one after it."""
    before = [number for position, number in found if position < place]
    return before[-1] if before else found[0][1]


def _candidates(sentence: str, excluded: frozenset[int], asked: str | None) -> list[tuple[int, int]]:
    """(position, number) of a sentence's regions, but those it measures from or calls another kind than asked."""
    found, measured, previous, kind = [], [], 0, None
    for match in SHARED.region.finditer(sentence):
        label = _REGIONS.label.search(sentence, previous, match.start())
        if label or not _REGIONS.goes_on.fullmatch(sentence, previous, match.start()):
            kind = label.lastgroup if label else None
        measured_from = _REGIONS.measured_from.search(sentence, previous, match.start())
        previous = match.end()
        number = region_number(match)
        if number not in excluded and (asked is None or kind in (None, "object", asked)):
            (measured if measured_from else found).append((match.start(), number))
    return found or measured


def _asked(question: str) -> tuple[str | None, frozenset[int]]:
    """The kind of things that a question chooses from, None if unnamed, and its regions of other kinds."""
    kinds: list[str | None] = []
    for before in question.split("<mask>")[:-1]:
        named = [match.lastgroup for match in SHARED.kind.finditer(before)]
        if _REGIONS.unnamed_reference.search(before):
            kinds.append("reference")
        elif named or not kinds or re.search(r"\w", before):
            kinds.append(named[-1] if named else None)
        else:
            kinds.append(kinds[-1])
    match = _REGIONS.asked.search(question)
    asked = match.lastgroup if match and match.lastgroup != "object" else kinds[0] if kinds else None
    return asked, frozenset(i for i, kind in enumerate(kinds) if kind not in (None, "object", asked))


def decimal(text: str) -> float:
    word = NUMBER_WORDS.get(text.lower())
    return float(text.replace(",", ".")) if word is None else float(word)


def in_digits(text: str) -> str:
    """The text with its lengths in digits and names of units: "two and a half meters", "1,200 mm", 5'6"."""
    text = LENGTHS.quoted.sub(r"\2", text)
    text = re.sub("[\u00bc-\u00be\u2150-\u215e]", lambda m: f" {unicodedata.normalize('NFKC', m[0])}", text)
    text = re.sub(r"(?<![\w.])[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]{1,2}\b", lambda m: f"{float(m[0]):f}", text)
    text = LENGTHS.fraction.sub(_mixed, text)
    text = LENGTHS.foot_mark.sub(" feet ", LENGTHS.inch_mark.sub(" inches ", text))
    text = LENGTHS.thousands.sub(lambda match: re.sub("[^0-9]", "", match.group()), text)
    text = re.sub(r"(?<=[0-9])\s+(?=\.[0-9])", "", LENGTHS.tolerance.sub(" ", text))
    text = LENGTHS.point.sub(_point_digits, LENGTHS.hundred.sub(_hundreds, text))
    text = LENGTHS.and_part.sub(lambda m: f"{decimal(m[1]) + _part(m[2], m[3]):g}", text)
    text = LENGTHS.part_of_one.sub(lambda m: f"{_part(m[1], m[2]):g} ", text)
    text = LENGTHS.one_unit.sub("1 ", text)
    return LENGTHS.unit_and_part.sub(lambda m: f"{decimal(m[1]) + _part(m[3], m[4]):g} {m[2]}", text)


def _mixed(match: re.Match) -> str:
    whole, over, stroke, under = match.groups()
    if int(over) >= int(under) or whole is None and stroke == "/":
        return match.group()
    return f"{int(whole or 0) + int(over) / int(under):.9f}"


def _part(how_many: str | None, name: str) -> float:
    return NUMBER_WORDS.get((how_many or "a").lower(), 1) * _PARTS[name.lower()]


def _hundreds(match: re.Match) -> str:
    hundreds = 1.0 if match.group(1).lower() in ("a", "an") else decimal(match.group(1))
    return f"{100 * hundreds + decimal(match.group(2) or '0'):g} "


def _point_digits(match: re.Match) -> str:
    digits = "".join(str(NUMBER_WORDS[word]) for word in match.group(2).lower().split())
    return f"{NUMBER_WORDS[match.group(1).lower()]}.{digits} "


def find_lengths(text: str) -> list[tuple[float, float]]:
    """Returns (metres, metres of the unit) of every number with a unit of length, in the text's order.

    Whole feet with inches behind them ("5 feet 3 inches") are one length, in feet; so are metres with centimetres that
    make no whole metre. Both ends of a range ("3 to 4 meters") are lengths.
    """
    text = LENGTHS.range.sub(lambda m: f"{m['low']} {m['own'] or m['unit']}, {m['high']} {m['unit']}", text)
    found: list[tuple[float, float]] = []
    end, whole = None, False
    for match in LENGTHS.length.finditer(text):
        unit = UNITS.get(match.group(2).lower(), UNITS["inch"])
        number = decimal(match.group(1))
        # Seven digits keep "35 cm" 0.35 in spite of binary fractions.
        metres = round(number * unit, 7)
        between = None if end is None else LENGTHS.length_and.fullmatch(text, end, match.start())
        if between and whole and unit == _COMPOUND.get(found[-1][1]) and metres < found[-1][1]:
            found[-1] = (round(found[-1][0] + metres, 7), found[-1][1])
        else:
            found.append((metres, unit))
        end, whole = match.end(), number == int(number)
    return found


def without_ranges(text: str) -> str:
    """The text without lengths of which only the ends are given: "3 to 4 meters", not "1.5 meters or 4.9 feet"."""

    def kept(match: re.Match) -> str:
        own = match["own"] or match["unit"]
        return " " if UNITS[own.lower()] == UNITS[match["unit"].lower()] else match.group()

    return LENGTHS.range.sub(kept, text)


def distance_readings(question: str, text: str) -> list[float]:
    """The lengths that the text states, the best last; else the last sentence's bare numbers, or 0 for "inside"."""
    del question
    text = re.sub(r"\s+", " ", SHARED.region.sub(" @ ", wording.without_denied(in_digits(text))))
    lengths = find_lengths(text)
    if lengths:
        # "15 meters (49 feet)": metres are what the question asks for.
        return [length for length, unit in lengths if unit == 1] or [length for length, _ in lengths]
    for sentence in reversed(SHARED.sentence_end.split(text)):
        bare = [match for match in LENGTHS.bare_decimal.finditer(sentence) if match[1].lower() not in ("one", "none")]
        numbers = [decimal(match[1]) for match in bare if not SHARED.of_things.match(sentence, match.end())]
        if numbers:
            return numbers
        if any(_is_inside(clause) for clause in LENGTHS.clause_end.split(sentence)):
            return [0.0]
    return []


def _is_inside(clause: str) -> bool:
    inside = LENGTHS.inside.search(clause)
    return inside is not None and not LENGTHS.denies.search(clause, 0, inside.start())
