"""The vote of several answers to the same question.

The first ballot is the answer that a model gives without chance. For the others the masks that stand side by side in a question, as in
"pallets <mask> <mask> <mask>", are listed in other orders, which leaves the question what it is. Every other answer can be one about the
picture in a mirror, to the question with left for right (``eval.answering.mirror``): another view of the same things. Where there are no more such
ways, answers are drawn at a temperature ("self-consistency", Wang et al., https://arxiv.org/abs/2203.11171). An answer that is reached by
several steps may be wrong in a different way each time and right in one way only, so that the value most of them come to is right more
often than any of them. A distance is the median of theirs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval import DRAWN, REORDERED, journal_path
from eval.answering.mirror import mirrored_question, mirrored_text, mirrored_value
from eval.reading.rules import Answer, normalized_answer, question_category
from smolrgpt_jax.data.records import MASK, WAREHOUSE_CATEGORIES, BadRecords, Picture, Question
from smolrgpt_jax.errors import DataError

if TYPE_CHECKING:
    from smolrgpt_jax.generation import AnswerOptions
    from smolrgpt_jax.model import Model

_SIDE_BY_SIDE = re.compile(rf"{MASK}(?:\s*{MASK})*")


@dataclasses.dataclass(frozen=True)
class Ballots:
    """How a question's further answers come about.

    Attributes:
      number: of its answers, the first one among them; odd numbers have fewer ties.
      temperature: of answers that are drawn, 0.7 as in the paper, and as there no token is cut.
      seed: of orders and draws, which depend on it, the question's id and nothing else.
      categories: of the questions that are asked several times; the others have one answer.
      mirrored: whether every other answer is one about the mirrored picture.
    """

    number: int = 5
    temperature: float = 0.7
    seed: int = 0
    categories: tuple[str, ...] = WAREHOUSE_CATEGORIES
    mirrored: bool = False

    def __post_init__(self) -> None:
        if self.number < 2:
            raise ValueError(f"a vote needs at least 2 answers to a question, not {self.number}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"the temperature of a vote's answers is {self.temperature}, it must be above 0")

    def __str__(self) -> str:
        asked = "" if set(self.categories) == set(WAREHOUSE_CATEGORIES) else f" ({', '.join(self.categories)})"
        mirrored = ", every other one about the mirrored picture" if self.mirrored else ""
        return (
            f"{self.number} answers{asked}{mirrored}, of masks in other orders or drawn at temperature "
            f"{self.temperature:g}, seed {self.seed}"
        )


@dataclasses.dataclass(frozen=True)
class Again:
    """A question once more.

    Attributes:
      question: under an id of its own, as it is to be asked.
      order: the numbers that its regions have in the question it comes from.
      mirrored: whether it is about the mirrored picture.
      drawn: whether it is to be answered by chance.
    """

    question: Question
    order: tuple[int, ...]
    mirrored: bool
    drawn: bool


def asked_again(question: Question, ballots: Ballots) -> list[Again]:
    """How a question is put for its further answers: in every way but its own once, and from then on in turn, to be drawn."""
    if (question.category or question_category(question.prompt)) not in ballots.categories:
        return []
    orders = [tuple(range(len(question.regions))), *mask_orders(question, ballots)]
    views = (False, True) if ballots.mirrored else (False,)
    ways = list(itertools.product(orders, views))
    greedy = [(order, mirrored, False) for order, mirrored in ways[1:]]
    drawn = ((order, mirrored, True) for order, mirrored in itertools.cycle(ways))
    return [
        Again(_put(question, f"{question.id}#{number}", order, mirrored), order, mirrored, by_chance)
        for number, (order, mirrored, by_chance) in zip(range(1, ballots.number), itertools.chain(greedy, drawn))
    ]


def _put(question: Question, name: str, order: Sequence[int], mirrored: bool) -> Question:
    put = dataclasses.replace(question, id=name, regions=tuple(question.regions[i] for i in order))
    return mirrored_question(put) if mirrored else put


def mask_orders(question: Question, ballots: Ballots) -> list[tuple[int, ...]]:
    """Up to ballots.number - 1 other orders of a question's regions, all different; none without masks side by side."""
    from smolrgpt_jax.generation.engine import question_key

    if question.earlier:
        return []
    groups = mask_groups(question.prompt)
    possible = math.prod(math.factorial(len(group)) for group in groups) - 1
    draw = np.random.default_rng(question_key(ballots.seed, question.id))
    orders: dict[tuple[int, ...], None] = {}
    while len(orders) < min(ballots.number - 1, possible):
        order = tuple(int(i) for group in groups for i in draw.permutation(group))
        if order != tuple(range(len(order))):
            orders[order] = None
    return list(orders)


def mask_groups(question: str) -> list[list[int]]:
    """The numbers of a question's regions, those together whose marks stand side by side."""
    groups, first = [], 0
    for found in _SIDE_BY_SIDE.finditer(question):
        count = found.group().count(MASK)
        groups.append(list(range(first, first + count)))
        first += count
    return groups


def further_answers(
    model: Model, pictures: Sequence[Picture], ballots: Ballots, options: AnswerOptions, out: Path | None = None
) -> list[list[dict]]:
    """The further answers to every question, in the questions' order.

    Args:
      options: as for the first answers, but for sampling, seed and closing. The policy of ``on_bad_record`` is followed; what it has
        collected stays as it is, as these pictures have been read before.
      out: folder of the run's results, beside which finished answers are kept (``eval.remove_journal``).

    Returns:
      Dicts of answer, its text ("" where it could not be asked), order, the question's own numbers of the
      regions that the text calls 0, 1, ..., and mirrored, True for a text about the mirrored picture.
    """
    from eval.answering.journal import open_journal
    from smolrgpt_jax.generation import Sampling, generate_answers

    again = [[asked_again(question, ballots) for question in picture.questions] for picture in pictures]
    answers: dict[str, str] = {}
    for part, sampling in ((REORDERED, Sampling()), (DRAWN, Sampling(ballots.temperature, 0, 1.0))):
        copies = []
        for (picture, questions), mirrored in itertools.product(zip(pictures, again), (False, True)):
            asked = tuple(
                a.question for found in questions for a in found if (a.drawn, a.mirrored) == (part == DRAWN, mirrored)
            )
            if asked:
                copies.append(dataclasses.replace(picture, questions=asked, mirrored=mirrored))
        how = dataclasses.replace(
            options,
            sampling=sampling,
            seed=ballots.seed,
            closing=None,
            on_bad_record=BadRecords(options.on_bad_record.policy),
        )
        kept = None if out is None else open_journal(journal_path(out, part), model, copies, how)
        answers |= {name: given.text for name, given in generate_answers(model, copies, how, kept).items()}
    return [
        [
            {"answer": answers.get(a.question.id, ""), "order": list(a.order)}
            | ({"mirrored": True} if a.mirrored else {})
            for a in found
        ]
        for questions in again
        for found in questions
    ]


def ballots_of(item: Mapping) -> list[Answer]:
    """The values of an item's answer and of its "further" ones, as rules read them.

    Raises:
      DataError: "further" is not a list of answers with orders of the question's regions.
    """
    further = item.get("further", [])
    if not (isinstance(further, list) and all(_is_further(given) for given in further)):
        raise DataError(f"record {item['id']!r}: further is no list of answers, each with the order of its regions")
    category = item["category"] or question_category(item["question"])
    values = [normalized_answer(category, item["question"], item["answer"])]
    for given in further:
        mirrored = given.get("mirrored", False)
        asked = mirrored_text(item["question"]) if mirrored else item["question"]
        value = normalized_answer(category, asked, given["answer"])
        if category == "mcq" and value is not None:
            value = given["order"][value] if value < len(given["order"]) else None
        values.append(mirrored_value(value) if mirrored else value)
    return values


def describe_ballots(values: Sequence[Answer]) -> str:
    """Values of one question's answers in few words: "2 (9 times), 1, none (3 times)"; of distances their range, "4.8 to 5.6"."""
    given = [value for value in values if value is not None]
    if any(isinstance(value, float) for value in given):
        shown = [" to ".join(f"{value:g}" for value in sorted({min(given), max(given)}))]
    else:
        shown = [_times(str(value), count) for value, count in Counter(given).most_common()]
    none = [_times("none", len(values) - len(given))] if len(given) < len(values) else []
    return ", ".join(shown + none)


def _times(value: str, count: int) -> str:
    return value if count == 1 else f"{value} ({count} times)"


def _is_further(given: object) -> bool:
    if not (isinstance(given, Mapping) and isinstance(given.get("answer"), str)):
        return False
    if given.get("mirrored", False) not in (False, True):
        return False
    order = given.get("order")
    return isinstance(order, list) and all(type(i) is int for i in order) and sorted(order) == list(range(len(order)))


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
    """What each item's answer and its further ones elect.

    Raises:
      DataError: no item has further answers, or those of one are no answers.
    """
    if not any(item.get("further") for item in items):
        raise DataError("there are no further answers to vote: the model was asked each question once")
    return [elected(ballots_of(item)) for item in items]
