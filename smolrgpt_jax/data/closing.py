"""The closing of an answer: its normalised value once more, for programs to read.

The pallet [Region 2] is the closest to the transporter.
Answer: 2
"""

from __future__ import annotations

from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Question

CLOSING = "\nAnswer:"  # between the free text and " value"
DECIMALS = 2  # of metres


def closing_value(category: str, value: str | float) -> str:
    """How a value is written after `CLOSING`: metres with two decimals, anything else as it is."""
    return f" {value:.{DECIMALS}f}" if category == "distance" else f" {value}"


def closed_turns(question: Question) -> list[str]:
    """`question.turns`, the answer followed by the closing where it has a value of a category that is scored by it."""
    turns = question.turns
    closed = question.answer is not None and question.normalized_answer is not None
    if not closed or question.category not in WAREHOUSE_CATEGORIES:
        return turns
    value = closing_value(question.category, question.normalized_answer)
    return [*turns[:-1], question.answer.rstrip() + CLOSING + value]


def read_closing(category: str, text: str) -> tuple[str, str | int | float | None]:
    """Returns the free text of a generated answer and the value that it is closed with, None if it is not.

    Raises ValueError for a value that `closing_value` does not write.
    """
    free, mark, value = text.rpartition(CLOSING)
    # An answer that is nothing but the closing has lost its line break with the surrounding spaces.
    if not mark and text.startswith(CLOSING.strip()):
        mark, value = CLOSING, text[len(CLOSING.strip()) :]
    if not mark:
        return text, None
    value = value.strip()
    if category == "left_right" and value not in ("left", "right"):
        raise ValueError(f"{value!r} is neither left nor right")
    read = {"left_right": str, "distance": float}.get(category, int)
    return free.strip(), read(value)
