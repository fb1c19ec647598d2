"""From free text to values: `normalized_answer(category, question, answer)`, by rules."""

from eval.reading.rules import normalized_answer

__all__ = ["normalized_answer"]
