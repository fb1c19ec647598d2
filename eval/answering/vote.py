"""Further answers to the same question, for a vote (`eval.reading.ballots`).

The first ballot is the answer that a model gives without chance. For the others the masks that stand side by side in a
question, as in "pallets <mask> <mask> <mask>", are listed in other orders, which leaves the question what it is. Where
there are no more orders, answers are drawn at a temperature.
"""

import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.answering.asking import DRAWN, REORDERED, Answered, answer_questions, asked_category, described
from smolrgpt_jax.data.records import MASK, WAREHOUSE_CATEGORIES, BadRecords, Picture, Question

if TYPE_CHECKING:
    from smolrgpt_jax.generation.engine import AnswerOptions
    from smolrgpt_jax.model import Model

_SIDE_BY_SIDE = re.compile(rf"{MASK}(?:\s*{MASK})*")


@dataclasses.dataclass(frozen=True)
class Ballots:
    """How a question's further answers come about."""

    answers: int = 5  # of its answers, the first one among them; odd numbers have fewer ties
    temperature: float = 0.7  # of answers that are drawn, as in the paper, and as there no token is cut
    seed: int = 0  # of orders and draws, which depend on it, the question's id and nothing else
    categories: tuple[str, ...] = WAREHOUSE_CATEGORIES  # of the questions that are asked several times

    def __post_init__(self) -> None:
        if self.answers < 2:
            raise ValueError(f"a vote needs at least 2 answers to a question, not {self.answers}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"the temperature of a vote's answers is {self.temperature}, it must be above 0")

    def __str__(self) -> str:
        asked = "" if set(self.categories) == set(WAREHOUSE_CATEGORIES) else f" ({', '.join(self.categories)})"
        return (
            f"{self.answers} answers{asked}, of masks in other orders or drawn at temperature {self.temperature:g}, "
            f"seed {self.seed}"
        )


@dataclasses.dataclass(frozen=True)
class Again:
    """A question once more."""

    question: Question  # under an id of its own, its regions in another order unless it is to be drawn
    order: tuple[int, ...]  # the numbers that its regions have in the question it comes from
    drawn: bool  # whether it is to be answered by chance


def asked_again(question: Question, ballots: Ballots) -> list[Again]:
    """How a question is put for its further answers: in every other order once, then in all in turn, to be drawn."""
    if asked_category(question) not in ballots.categories:
        return []
    others = mask_orders(question, ballots)
    orders = [tuple(range(len(question.regions))), *others]
    ways = itertools.chain(((order, False) for order in others), ((order, True) for order in itertools.cycle(orders)))
    again = []
    for number, (order, drawn) in zip(range(1, ballots.answers), ways):
        regions = tuple(question.regions[i] for i in order)
        put = dataclasses.replace(question, id=f"{question.id}#{number}", regions=regions)
        again.append(Again(put, order, drawn))
    return again


def mask_orders(question: Question, ballots: Ballots) -> list[tuple[int, ...]]:
    """Up to ballots.answers - 1 other orders of a question's regions, all different; none without masks side by side."""
    if question.earlier:
        return []
    groups = mask_groups(question.prompt)
    possible = math.prod(math.factorial(len(group)) for group in groups) - 1
    digest = hashlib.blake2b(f"{ballots.seed}:{question.id}".encode(), digest_size=8).digest()
    draw = np.random.default_rng(int.from_bytes(digest, "little"))
    orders: dict[tuple[int, ...], None] = {}
    while len(orders) < min(ballots.answers - 1, possible):
        order = tuple(int(i) for group in groups for i in draw.permutation(group))
        if order != tuple(range(len(order))):
            orders[order] = None
    return list(orders)


def mask_groups(question: str) -> list[list[int]]:
    """The numbers of a question's regions, those together whose marks stand side by side."""
    numbers = itertools.count()
    return [[next(numbers) for _ in range(found.group().count(MASK))] for found in _SIDE_BY_SIDE.finditer(question)]


def further_answers(
    model: "Model", pictures: Sequence[Picture], ballots: Ballots, options: "AnswerOptions", out: Path | None = None
) -> list[list[dict]]:
    """The further answers to every question, in the questions' order: dicts of answer, its text ("" where it could not
    be asked), cut_off where the length cut it, and order, the question's own numbers of the regions that the text calls 0, 1, ...

    options: as for the first answers, but for sampling, seed and closing. The policy of `on_bad_record` is followed; what
    it has collected stays as it is, as these pictures have been read before. out: see `answer_questions`.
    """
    from smolrgpt_jax.generation.sampling import Sampling

    again = [[asked_again(question, ballots) for question in picture.questions] for picture in pictures]
    given: dict[str, dict] = {}
    for part, sampling in ((REORDERED, Sampling()), (DRAWN, Sampling(ballots.temperature, 0, 1.0))):
        copies = []
        for picture, questions in zip(pictures, again):
            asked = tuple(a.question for found in questions for a in found if a.drawn == (part == DRAWN))
            copies += [dataclasses.replace(picture, questions=asked)] if asked else []
        bad = BadRecords(options.on_bad_record.policy)
        how = dataclasses.replace(options, sampling=sampling, seed=ballots.seed, closing=None, on_bad_record=bad)
        said = answer_questions(model, copies, how, out, part)
        names = (question.id for picture in copies for question in picture.questions)
        given |= {name: described(answer) for name, answer in zip(names, said, strict=True)}
    each = (found for questions in again for found in questions)
    return [[{**given[a.question.id], "order": list(a.order)} for a in found] for found in each]


def with_further(answers: Sequence[Answered], further: Sequence[Sequence[dict]]) -> list[Answered]:
    return [{**described(answer), "further": list(more)} for answer, more in zip(answers, further, strict=True)]
