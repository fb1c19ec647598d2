"""The words of phrases.toml, and the pieces of free-text answers that all readers share: regions, numbers, yes and no."""

import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

TABLE = tomllib.loads(Path(__file__).with_name("phrases.toml").read_text("utf-8"))
_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_PLAIN = str.maketrans("\u2018\u2019\u2032\u201c\u201d\u2033\u2010\u2011\u2212", "'''\"\"\"---")


def _number_words() -> dict[str, int]:
    """Zero to ninety-nine, "twenty-one" also as "twenty one" and "twentyone"; none."""
    words = {word: value for value, word in enumerate(_WORDS)}
    for place, ten in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2):
        words[ten] = 10 * place
        for unit in range(1, 10):
            words |= {f"{ten}{between}{_WORDS[unit]}": 10 * place + unit for between in ("-", " ", "")}
    return words | {"none": 0}


NUMBER_WORDS = _number_words()


def alternatives(words: Iterable[str]) -> str:
    """A pattern of any of the words, a longer one before its beginning."""
    return "|".join(sorted(words, key=len, reverse=True))


class Patterns:
    """Patterns by name. Each is compiled when it is first asked for, as all of them take some 0.15 s of a command's start."""

    def __init__(self, texts: Mapping[str, str]):
        self.texts = texts

    def __getattr__(self, name: str) -> re.Pattern[str]:
        if name not in self.__dict__.get("texts", ()):
            raise AttributeError(f"no pattern {name!r}")
        self.__dict__[name] = found = re.compile(self.texts[name], re.IGNORECASE)
        return found


def phrases(section: str, **given: str) -> Patterns:
    """The patterns of a section of phrases.toml and of [shared]; given: further {name} that they hold."""
    given |= {"words": alternatives(NUMBER_WORDS), "region_words": alternatives(NUMBER_WORDS.keys() - {"none"})}
    found = TABLE["shared"] | TABLE[section]

    def filled(pattern: str) -> str:
        whole = "".join(line.strip() for line in pattern.splitlines())
        return re.sub(r"\{([a-z_]+)\}", lambda name: given.get(name[1]) or filled(found[name[1]]), whole)

    return Patterns({name: filled(found[name]) for name in found})


SHARED = phrases("shared")


def whole(text: str) -> int:
    """The value of what the pattern count matches."""
    word = NUMBER_WORDS.get(text.lower())
    return int(text.split(".")[0]) if word is None else word


def region_number(match: re.Match) -> int:
    """The number in what the pattern region matches."""
    return whole(match.group(1) or match.group(2))


def marked(text: str) -> str:
    """The text with " @4@ " for "[Region 4]"."""
    return SHARED.region.sub(lambda match: f" @{region_number(match)}@ ", text)


def marked_objects(text: str) -> str:
    """As `marked`, with "@0@" for "first" and "former" as well, "@1@" for "second" and "latter"."""
    return SHARED.second.sub(" @1@ ", SHARED.first.sub(" @0@ ", marked(text)))


def one_line(answer: str) -> str:
    """An answer's lines joined, with plain quotes, hyphens and minus signs."""
    return " ".join(part.strip() for part in answer.translate(_PLAIN).splitlines() if part.strip())


def with_regions(text: str) -> str:
    """The text with "[Region 4]" for "pallet 4" and "pallets 4"."""
    text = SHARED.labels.sub(lambda match: match[1] + " " + re.sub("([0-9]+)", r"[Region \1]", match[2]), text)
    return SHARED.labelled.sub(r"\1 [Region \2]", text)


def without_denied(text: str) -> str:
    """The text without the numbers and regions it says are not the answer."""
    return SHARED.denied.sub(" ", text)


def without_pronouns(text: str) -> str:
    """The text without every "one" that is no number: "the closest one"."""
    return SHARED.pronoun_one.sub(" ", text)


def verdict(text: str) -> bool | None:
    """Whether a text begins with a yes or a no, None for neither."""
    return False if SHARED.no.match(text) else True if SHARED.yes.match(text) else None


def is_garbage(text: str) -> bool:
    """True for texts without a letter or digit, and for loops of one or two words."""
    tokens = re.findall(r"\w+", SHARED.region.sub(lambda match: f" region_{region_number(match)} ", text.lower()))
    longest = 0
    for period in (1, 2):
        equal = [a == b for a, b in zip(tokens, tokens[period:])]
        longest = max([longest, *(len(list(run)) for same, run in itertools.groupby(equal) if same)])
    return not tokens or (longest >= 4 and 2 * longest > len(tokens))
