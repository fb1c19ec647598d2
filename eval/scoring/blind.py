"""What answering without looking gives: the baseline every score is to be read against."""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from eval.reading.rules import Answer
from smolrgpt_jax.data.records import IMAGE, Question, normalize_answer
from smolrgpt_jax.files import read_json

_MASKS = re.compile(r"<mask>(?:[\s,]*<mask>)*")


def template(prompt: str) -> str:
    """The question with each run of consecutive "<mask>" collapsed to one."""
    return " ".join(_MASKS.sub("<mask>", prompt.replace(IMAGE, "")).split())


class BlindBaseline:
    """The best constant answer per question template, learned from training questions.

    For left_right, count and mcq it is the most frequent normalized answer, for distance a value within 10 % of as many
    training answers as possible. A template that training did not show gets the best constant of its category.
    """

    def __init__(self, training: Iterable[Question]):
        """training: questions; those without a normalized answer are left out."""
        answers: dict[tuple[str, str | None], list] = defaultdict(list)
        for question in training:
            if question.normalized_answer is not None:
                for words in (template(question.prompt), None):
                    answers[question.category, words].append(question.normalized_answer)
        self._best = {key: best_constant(key[0], found) for key, found in answers.items()}

    def predict(self, question: Question) -> Answer:
        """The constant for a question, None if its category never occurred in training."""
        whole_category = self._best.get((question.category, None))
        return self._best.get((question.category, template(question.prompt)), whole_category)


def best_constant(category: str, answers: Sequence[str | int | float]) -> str | int | float:
    """The answer that is right for most of `answers` (at least one), the smaller of equals."""
    if category != "distance":
        return min(Counter(answers).items(), key=lambda item: (-item[1], item[0]))[0]
    # A constant is right for an answer t between 0.9 t and 1.1 t, so that the best one lies in the deepest overlap of
    # these intervals, which starts where one of them does.
    edges = sorted([(0.9 * answer, 0) for answer in answers] + [(1.1 * answer, 1) for answer in answers])
    depth = deepest = 0
    best = 0.0
    for (edge, closes), (following, _) in itertools.pairwise(edges):
        depth += -1 if closes else 1
        if depth > deepest:
            deepest, best = depth, (edge + following) / 2
    return best


def read_training_questions(path: str | Path) -> list[Question]:
    """Prompts and normalized answers of an annotation file; neither pictures nor masks.

    Records that a reader of the whole data set would refuse are left out. Raises DataError for a file that is no list.
    """
    questions = []
    for record in read_json(path, list):
        try:
            category, prompt = record["category"], record["conversations"][0]["value"]
            answer = normalize_answer(category, record["normalized_answer"])
            questions.append(Question(str(record["id"]), str(category), str(prompt), None, answer))
        except (KeyError, IndexError, TypeError, ValueError):
            continue
    return questions
