"""A question as it is asked about a picture seen in a mirror: left is right there and right is left, all else stays.

Counts, distances in metres and the region that is meant are the same; of sides the other one is true.
"""

from __future__ import annotations

import dataclasses
import re

from eval.reading.rules import Answer
from eval.reading.sides import OPPOSITE, RIGHT_OTHERWISE
from smolrgpt_jax.data.records import Question

# The sides in "leftmost", "left-hand", "right side", not in "bright" or "right now".
_SIDES = re.compile(
    rf"{RIGHT_OTHERWISE.pattern}|(?<![a-z])(?P<side>left|right)(?=most|hand|ward|side|[^a-z]|$)", re.IGNORECASE
)


def mirrored_text(text: str) -> str:
    """The text with left and right in each other's places, in lower or upper case as they were."""
    return _SIDES.sub(_mirrored_match, text)


def mirrored_value(value: Answer) -> Answer:
    """A normalised value of the mirrored picture's question as one of the question itself, and the other way round."""
    return OPPOSITE.get(value, value)


def mirrored_question(question: Question) -> Question:
    """The question about ``Picture.mirrored``; its regions stay, as they are mirrored with the picture when it is loaded."""
    return dataclasses.replace(
        question,
        prompt=mirrored_text(question.prompt),
        answer=None if question.answer is None else mirrored_text(question.answer),
        normalized_answer=mirrored_value(question.normalized_answer),
        earlier=tuple((mirrored_text(prompt), mirrored_text(answer)) for prompt, answer in question.earlier),
    )


def _mirrored_match(match: re.Match) -> str:
    side = match["side"]
    if side is None:
        return match[0]
    other = OPPOSITE[side.lower()]
    return other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other
