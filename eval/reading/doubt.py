"""Answers that state no value, or several: how many, why, and examples."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from eval.reading.phrases import TABLE, is_garbage, one_line
from eval.reading.rules import readings
from eval.reading.statements import SIDES
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES

EXAMPLES = 3  # per category and reason
UNREADABLE, AMBIGUOUS = "unreadable", "ambiguous"


def answer_doubt(category: str, question: str, answer: str, value: object) -> tuple[str, str] | None:
    """What is wrong with an answer, ("unreadable" or "ambiguous", the reason), None if nothing is.

    value: what the answer was scored with, None for an unreadable one.
    """
    found = readings(category, question, answer)
    reason, several = TABLE["doubts"][category]
    if value is not None:
        return (AMBIGUOUS, several) if len(set(found)) > 1 else None
    if not answer.strip():
        reason = "there is no text"
    elif not re.search(r"\w", answer):
        reason = "holds no letter or digit"
    elif is_garbage(one_line(answer)):
        reason = "repeats one or two words"
    elif found:
        reason = "the rules read a value, the method that scores did not"
    elif category == "left_right" and SIDES.both.search(answer):
        reason = "names both sides and chooses none"
    return UNREADABLE, reason


def readability(items: Sequence[Mapping]) -> dict[str, dict]:
    """Counts doubtful answers by category and reason; items: as in predictions.json, each with a category.

    Returns {category with questions: questions, unreadable, ambiguous (numbers), reasons: dicts of kind, reason, answers
    (their number) and at most EXAMPLES examples (id, question, answer, normalized_answer)}, unreadable ones first, the most
    frequent first.
    """
    table: dict[str, dict] = {}
    for category in WAREHOUSE_CATEGORIES:
        members = [item for item in items if item["category"] == category]
        doubts: dict[tuple[str, str], list[dict]] = defaultdict(list)
        for item in members:
            shown = {key: item[key] for key in ("id", "question", "answer", "normalized_answer")}
            if doubt := answer_doubt(category, *list(shown.values())[1:]):
                doubts[doubt].append(shown)
        if members:
            kinds = Counter(kind for (kind, _), found in doubts.items() for _ in found)
            counts = {"questions": len(members), UNREADABLE: kinds[UNREADABLE], AMBIGUOUS: kinds[AMBIGUOUS]}
            ordered = sorted(doubts.items(), key=lambda entry: (entry[0][0] != UNREADABLE, -len(entry[1])))
            reasons = [
                {"kind": kind, "reason": reason, "answers": len(found), "examples": found[:EXAMPLES]}
                for (kind, reason), found in ordered
            ]
            table[category] = counts | {"reasons": reasons}
    return table
