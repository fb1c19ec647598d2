"""Scores of answers during training: those of `eval.warehouse`, without intervals and report."""

from collections.abc import Mapping, Sequence

from eval.reading.rules import normalized_answer
from eval.scoring.official import score
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Picture
from smolrgpt_jax.training.validation import AnswerScorer


def score_answers(pictures: Sequence[Picture], answers: Mapping[str, str]) -> dict[str, float | None]:
    """S1 and the accuracy of each category in percent, None for one without questions; answers: free text per question id."""
    questions = [question for picture in pictures for question in picture.questions]
    read = {q.id: normalized_answer(q.category, q.prompt, answers.get(q.id, "")) for q in questions}
    scored = score(questions, read)
    return {name: scored[name] for name in WAREHOUSE_SCORES.columns}


WAREHOUSE_SCORES = AnswerScorer(("S1", *WAREHOUSE_CATEGORIES), score_answers)
