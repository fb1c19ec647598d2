"""What a training showed a model, recorded with its chat format for those who ask it about something else."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from smolrgpt_jax.data.records import MASK, Picture

RARE = 0.02  # share of a training's questions below which a kind of question counts as not learned
_WORD = re.compile(r"[^\W\d_]{3,}")
# "the pallets <mask>", "the buffer region <mask>", "the transporter at <mask>"
_OBJECT = re.compile(rf"\bthe ([a-z]+)(?: (?:region|mask|zone|area|position)s?)?(?: at)? {MASK}", re.IGNORECASE)


@dataclass(frozen=True)
class Shown:
    """What the questions of a training hold."""

    objects: dict[str, int]  # what they call their regions, and how often
    words: list[str]  # of questions and answers
    questions: int  # how many there are
    marked: int  # how many of them mark regions

    @classmethod
    def of(cls, pictures: Sequence[Picture]) -> "Shown":
        objects, said, questions, marked = Counter[str](), set[str](), 0, 0
        for question in (question for picture in pictures for question in picture.questions):
            turns = question.turns
            objects.update(name.lower() for text in turns[::2] for name in _OBJECT.findall(text))
            for text in turns:
                said.update(text.split())
            questions, marked = questions + 1, marked + bool(question.regions)
        return cls(dict(objects), sorted({word for part in said for word in _words(part)}), questions, marked)


@dataclass(frozen=True)
class TrainedOn:
    """What all trainings of a model showed it."""

    data: str = ""  # names of the sources, joined by ", "
    objects: str = ""  # what questions call their regions, the most frequent first, joined by ", "
    words: str = ""  # of questions and answers, joined by " "
    regions: float = 0.0  # share of the last training's questions that mark regions, with depth

    def __str__(self) -> str:
        objects = f" ({self.objects})" if self.objects else ""
        return f"trained on {self.data}{objects}; {self.regions:.0%} of its questions mark regions, with depth"

    def and_on(self, data: Iterable[str], shown: "Shown", regions: bool) -> "TrainedOn":
        """After a further training on named sources; regions: whether it showed the pictures' regions and depth."""
        plurals = {form for name in shown.objects for form in (f"{name}s", f"{name[:-1]}ves")}
        named = [name for name, _ in Counter(shown.objects).most_common(12) if name not in plurals]
        return TrainedOn(
            ", ".join(dict.fromkeys([*filter(None, self.data.split(", ")), *data])),
            ", ".join(dict.fromkeys([*filter(None, self.objects.split(", ")), *named])),
            " ".join(sorted({*shown.words, *self.words.split()})),
            round((shown.marked if regions else 0) / max(1, shown.questions), 3),
        )

    def notice(self, question: str, regions: int) -> str | None:
        """One sentence where a question, of so many regions, is unlike all that the training showed; None where it is not."""
        unseen = dict.fromkeys(word for word in _words(question) if word not in self.words.split())
        if unseen:
            return f"the recorded training of this model never says {', '.join(unseen)}: its answer is a guess"
        kind = "with" if regions else "without"
        if (self.regions if regions else 1 - self.regions) < RARE:
            return f"this model was not trained on questions {kind} regions and depth: its answer is a guess"
        return None


def _words(text: str) -> list[str]:
    return _WORD.findall(text.replace(MASK, " ").lower())
