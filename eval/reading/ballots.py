"""The vote of several answers to the same question: the value that most of them come to, of distances the median.

An answer that is reached by several steps may be wrong in a different way each time and right in one way only, so that
the elected value is right more often than any of them ("self-consistency", Wang et al.,
https://arxiv.org/abs/2203.11171). How the answers come about: `eval.answering.vote`.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from eval.reading.rules import Answer, normalized_answer, question_category
from smolrgpt_jax.errors import DataError


def read_by_vote(items: Sequence[Mapping]) -> list[Answer]:
    """What each item's answer and its further ones elect; DataError where none has any, or those of one are no answers."""
    if not any(item.get("further") for item in items):
        raise DataError("there are no further answers to vote: the model was asked each question once")
    return [elected(ballots_of(item)) for item in items]


def ballots_of(item: Mapping) -> list[Answer]:
    """The values of an item's answer and of its "further" ones, as rules read them.

    Raises DataError where "further" is not a list of answers with orders of the question's regions.
    """
    category = item["category"] or question_category(item["question"])
    values = [normalized_answer(category, item["question"], item["answer"])]
    try:
        for given in item.get("further", []):
            value, order = normalized_answer(category, item["question"], given["answer"]), list(given["order"])
            if sorted(order) != list(range(len(order))):
                raise ValueError(order)
            if category == "mcq" and value is not None:
                value = order[value] if value < len(order) else None
            values.append(value)
    except (KeyError, TypeError, ValueError, AttributeError):
        reason = "further is no list of answers, each with the order of its regions"
        raise DataError(f"record {item['id']!r}: {reason}") from None
    return values


def elected(values: Sequence[Answer]) -> Answer:
    """The value that most have, of equally many the one that is named first; the median of distances (float).

    Answers without a value (None) abstain; if all do there is none.
    """
    given = [value for value in values if value is not None]
    if any(isinstance(value, float) for value in given):
        return float(statistics.median(given))
    return Counter(given).most_common(1)[0][0] if given else None


def describe_ballots(values: Sequence[Answer]) -> str:
    """Values in few words: "2 (9 times), 1, none (3 times)"; of distances their range, "4.8 to 5.6"."""
    given = [value for value in values if value is not None]
    if any(isinstance(value, float) for value in given):
        shown = {" to ".join(f"{value:g}" for value in sorted({min(given), max(given)})): 1}
    else:
        shown = dict(Counter(given).most_common())
    if len(given) < len(values):
        shown["none"] = len(values) - len(given)
    return ", ".join(f"{value}" if count == 1 else f"{value} ({count} times)" for value, count in shown.items())
