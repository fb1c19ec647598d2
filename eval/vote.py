"""The vote of several answers to the same question ("self-consistency", Wang et al., https://arxiv.org/abs/2203.11171).

The first ballot is the answer a model gives without chance, the others are drawn at a temperature. What an answer reaches by
several steps may be wrong in a different way each time and right in one way only, so that the value most of them come to is right
more often than any of them. A distance is the median of theirs.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.answers import Answer, normalized_answer, question_category
from smolrgpt_jax.data.images import DEPTH_MODES
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, BadRecords, DataError, Picture, Question

if TYPE_CHECKING:
    from smolrgpt_jax.loading import Model


@dataclasses.dataclass(frozen=True)
class Ballots:
    """How a question's answers are drawn.

    Attributes:
      number: of its answers, the greedy one among them; odd numbers have fewer ties.
      temperature: of the drawn ones; 0.7 as in the paper, and as there no token is cut.
      seed: of the draws, which depend on it, the question's id and nothing else.
      categories: of the questions that are asked several times; the others have one answer.
    """

    number: int = 5
    temperature: float = 0.7
    seed: int = 0
    categories: tuple[str, ...] = WAREHOUSE_CATEGORIES

    def __post_init__(self) -> None:
        if self.number < 2:
            raise ValueError(f"a vote needs at least 2 answers to a question, not {self.number}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"the temperature of a vote's answers is {self.temperature}, it must be above 0")

    def __str__(self) -> str:
        asked = (
            ""
            if set(self.categories) == set(WAREHOUSE_CATEGORIES)
            else f" ({', '.join(self.categories)} only)"
        )
        return (
            f"{self.number} answers{asked}, all but the first drawn at temperature {self.temperature:g}, "
            f"seed {self.seed}"
        )

    def of(self, question: Question) -> list[str]:
        """Ids for the answers that are drawn to a question, none for one that has a single answer."""
        category = question.category or question_category(question.prompt)
        if category not in self.categories:
            return []
        return [f"{question.id}#{number}" for number in range(1, self.number)]


def drawn_answers(
    model: Model,
    pictures: Sequence[Picture],
    ballots: Ballots,
    batch_size: int,
    max_new_tokens: int,
    on_bad_record: BadRecords | None = None,
    depth_mode: str = DEPTH_MODES[0],
    journal: Path | None = None,
) -> list[list[str]]:
    """Draws the further answers to every question, in the questions' order; "" for those it could not be asked.

    ``on_bad_record``: its policy is followed; what it has collected stays as it is, as these pictures have been
    read before. ``journal``: as for ``generate_answers``; a file of its own.
    """
    from smolrgpt_jax.generation import generate_answers
    from smolrgpt_jax.generation.decode import Sampling

    copies = []
    for picture in pictures:
        again = [
            dataclasses.replace(question, id=name)
            for question in picture.questions
            for name in ballots.of(question)
        ]
        if again:
            copies.append(dataclasses.replace(picture, questions=tuple(again)))
    answers = generate_answers(
        model,
        copies,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        depth_mode=depth_mode,
        sampling=Sampling(ballots.temperature, top_k=0, top_p=1.0),
        seed=ballots.seed,
        on_bad_record=None if on_bad_record is None else BadRecords(on_bad_record.policy),
        journal=journal,
    )
    return [
        [answers.get(name, "") for name in ballots.of(question)]
        for picture in pictures
        for question in picture.questions
    ]


def ballots_of(item: Mapping) -> list[Answer]:
    """The values of an item's answer and of its "drawn" ones, as rules read them; raises DataError if "drawn" is not a list of texts."""
    drawn = item.get("drawn", [])
    if not (isinstance(drawn, list) and all(isinstance(text, str) for text in drawn)):
        raise DataError(f"record {item['id']!r}: drawn is {drawn!r}, expected a list of texts")
    return [normalized_answer(item["category"], item["question"], text) for text in (item["answer"], *drawn)]


def elected(values: Sequence[Answer]) -> Answer:
    """The value that most have, of equally many the one that is named first; the median of distances (float).

    Answers without a value (None) abstain; if all do there is none.
    """
    given = [value for value in values if value is not None]
    if not given:
        return None
    if any(isinstance(value, float) for value in given):
        return float(statistics.median(given))
    return Counter(given).most_common(1)[0][0]


def read_by_vote(items: Sequence[Mapping]) -> list[Answer]:
    """What each item's answer and its drawn ones elect.

    Raises:
      DataError: no item has drawn answers, or those of one are no texts.
    """
    if not any(item.get("drawn") for item in items):
        raise DataError("there are no drawn answers to vote: the model was asked each question once")
    return [elected(ballots_of(item)) for item in items]
