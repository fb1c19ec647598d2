"""What questions tell without their pictures: whether they fit rows, how answers are spread, what a blind guesser gets."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.reading.rules import readings
from eval.scoring.blind import BlindBaseline, best_constant
from eval.scoring.official import is_correct
from launch.checking.found_sources import Found
from launch.checking.problems import Problems
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.plan import check_fit
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Picture, Question
from smolrgpt_jax.data.rows import RowShape, TokenisedQuestions
from smolrgpt_jax.errors import DataError

AT_ONCE = 1000  # pictures whose questions are tokenised together
ONE_ANSWER, FEWEST = 0.9, 20  # share of a category's questions that one answer is right for, of at least so many
FARTHEST = 100.0  # metres, of the median distance that is believed
SHOWN = 6  # answers of a category


@dataclasses.dataclass
class Sizes:
    """The largest that rows have to take."""

    tokens: int = 0  # of a question with its picture
    regions: int = 0  # distinct ones of a question


def check_questions(
    found: Found,
    pictures: Sequence[Picture],
    shape: RowShape,
    tokenizer: ChatTokenizer,
    problems: Problems,
    sizes: Sizes,
) -> None:
    """Tries every question of a source against rows of `shape`, and its text against its value."""
    questions = [question for picture in pictures for question in picture.questions]
    answered = sum(question.answer is not None for question in questions)
    if questions and not answered and not found.trained:
        problems.add("unanswered", f"{found.file}: none of its {len(questions)} questions has an answer")
    prefix = tokenizer.prefix(shape.image_tokens).size
    for begin in range(0, len(pictures), AT_ONCE):
        part = pictures[begin : begin + AT_ONCE]
        tokens = TokenisedQuestions(part, tokenizer)
        for index, picture in enumerate(part):
            for number, question in enumerate(picture.questions):
                sizes.tokens = max(sizes.tokens, prefix + tokens.size(index, number))
                sizes.regions = max(sizes.regions, len(set(question.regions)))
                try:
                    if question.answer is None and found.trained:
                        raise DataError(f"{picture.image}: question {question.id!r} has no answer to train on")
                    check_fit(picture, question, tokens[index, number][0], prefix, shape, tokenizer)
                except DataError as error:
                    problems.add("row", f"{found.file}: {error}")
    _check_values(found, questions, problems)


def _check_values(found: Found, questions: Sequence[Question], problems: Problems) -> None:
    distances = []
    for question in questions:
        value, category = question.normalized_answer, question.category
        if category not in WAREHOUSE_CATEGORIES or value is None:
            continue
        if category == "distance":
            distances.append(value)
        if question.answer is None:
            continue
        problems.looked(1, "disagrees", "unread")
        read = readings(category, question.prompt, question.answer)
        where = f"{found.file}: record {question.id!r}"
        if not read:
            problems.add("unread", f"{where}: the rules read no value off {question.answer[:120]!r}")
        elif not is_correct(category, read[-1], value):
            problems.add("disagrees", f"{where}: the text says {read[-1]}, normalized_answer is {value}")
    if distances:
        problems.looked(1, "unit")
        if (middle := float(np.median(distances))) > FARTHEST:
            problems.add("unit", f"{found.file}: half of {len(distances)} distances are above {middle:g} metres")


def answer_table(
    pictures: Mapping[str, Sequence[Picture]], trained: Sequence[str], problems: Problems
) -> list[dict[str, Any]]:
    """A row for each category of each side: how answers are spread, and what guessing without looking gets.

    pictures: of each side; trained: sides that a training learns from, and a blind guesser too. Others are guessed from
    themselves where there are none. A row: side, category, questions, answered, distinct, common and its share in percent, blind
    (percent, None where it is not scored), top: (answer, number).
    """
    asked = {side: [question for p in found for question in p.questions] for side, found in pictures.items()}
    learned = BlindBaseline(question for side in trained for question in asked.get(side, ()))
    rows = []
    for side, questions in asked.items():
        blind = learned if trained else BlindBaseline(questions)
        groups: dict[str, list[Question]] = defaultdict(list)
        for question in questions:
            groups[question.category].append(question)
        for category, group in sorted(groups.items()):
            rows.append(row := {"side": side, "category": category, **_spread(category, group, blind)})
            problems.looked(1, "one_answer")
            if row["answered"] >= FEWEST and row["share"] >= 100 * ONE_ANSWER:
                said = f"{str(row['common'])[:80]!r} is right for {row['share']:.0f} % of {row['answered']} questions"
                problems.add("one_answer", f"{category or 'questions without category'} of {side}: {said}")
    return rows


def _spread(category: str, questions: Sequence[Question], blind: BlindBaseline) -> dict[str, Any]:
    scored = [q for q in questions if category in WAREHOUSE_CATEGORIES and q.normalized_answer is not None]
    values: list[Any] = [q.normalized_answer for q in scored]
    values = values or [q.answer for q in questions if q.answer is not None]
    counts, kind = Counter(values), category if scored else ""
    found = {
        "questions": len(questions),
        "answered": len(values),
        "distinct": len(counts),
        "common": None,
        "share": None,
    }
    top: list[tuple[object, int]] = counts.most_common(SHOWN)
    if values:
        common = best_constant(kind, values)
        found["share"] = 100 * sum(is_correct(kind, common, value) for value in values) / len(values)
        found["common"] = f"about {common:.2f}" if kind == "distance" else common
    if kind == "distance":
        top = [("{:g} to {:g} m, middle {:g}".format(*np.quantile(values, (0, 1, 0.5))), len(values))]
    guessed = [is_correct(category, blind.predict(q), q.normalized_answer) for q in scored]
    return found | {"top": top, "blind": 100 * sum(guessed) / len(guessed) if guessed else None}
